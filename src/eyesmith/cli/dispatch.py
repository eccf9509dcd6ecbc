"""From a list of words to the verb that is meant: the table of verbs, help, and the closest name for a wrong one.

Nothing heavy is imported here: a verb's module is loaded when the verb is called.
"""

import difflib
import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from eyesmith.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Verb:
    """module: where its `main(argv, prog) -> exit status` (or the function `name`) lives; summary: one line of help."""

    module: str
    summary: str
    name: str = "main"

    def __call__(self, argv: Sequence[str], *, prog: str) -> int:
        """Run the verb; returns the exit status."""
        return getattr(importlib.import_module(self.module), self.name)(list(argv), prog)


def dispatch(verbs: dict[str, Verb], argv: Sequence[str], *, prog: str, about: str) -> int:
    """Call the verb that `argv` begins with. Raises ConfigError for an unknown one; without any, prints help (2)."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview(verbs, prog=prog, about=about), file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    name, *rest = argv
    if name not in verbs:
        raise ConfigError(f"unknown verb {name!r}{suggestion(name, verbs)}; `{prog} --help` shows them all")
    return verbs[name](rest, prog=f"{prog} {name}")


def overview(verbs: dict[str, Verb], *, prog: str, about: str) -> str:
    """Help text: what `prog` is for, and one line a verb."""
    width = max(map(len, verbs))
    lines = [f"  {name:{width}}  {verb.summary}" for name, verb in verbs.items()]
    return "\n".join([about, "", f"usage: {prog} VERB ...", "", *lines, "", f"`{prog} VERB --help` shows its options."])


def suggestion(name: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' with the closest of `known`, '' when none is near."""
    known = list(known)
    by_tail = {entry.rpartition(".")[2]: entry for entry in reversed(known)}
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if not near:  # a dotted name is often given by its end alone
        end = name.rpartition(".")[2]
        tails = difflib.get_close_matches(end, by_tail, n=2, cutoff=0.7) or [t for t in by_tail if end in t.split("_")]
        near = [by_tail[tail] for tail in tails] or difflib.get_close_matches(name, known, n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def call(function: Callable[..., int], argv: Sequence[str], *, prog: str, use_underscores: bool = False) -> int:
    """Fill the arguments of `function` from `argv` (tyro) and call it. A wrong argument ends in SystemExit(2)."""
    import tyro

    return tyro.cli(
        function,
        args=list(argv),
        prog=prog,
        use_underscores=use_underscores,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands),
    )
