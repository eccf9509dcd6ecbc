"""From a list of words to the verb that is meant: the table of verbs, help, and the closest name for a wrong one.

Nothing heavy is imported here: a verb's module is loaded when the verb is called.
"""

import difflib
import functools
import importlib
import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Any

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
    """Fill the arguments of `function` from `argv` and call it; raises as `parsed`, and for a number out of bounds."""
    import tyro

    from eyesmith.cli.numbers import check_arguments

    @functools.wraps(function)
    def fill(*positional: Any, **named: Any) -> inspect.BoundArguments:
        return inspect.signature(function).bind(*positional, **named)

    places = [one.name for one in inspect.signature(function).parameters.values() if one.kind is one.POSITIONAL_ONLY]
    for word in argv:
        name = word.partition("=")[0].removeprefix("--").replace("-", "_")
        if word.startswith("--") and name in places:
            order = " ".join(place.upper() for place in places)
            raise ConfigError(
                f"--{name}: {name.upper()} has no name before it but its place: `{prog} {order} ...`; "
                f"`{prog} --help` shows its options"
            )
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands, tyro.conf.OmitArgPrefixes)
    given = parsed(fill, argv, prog=prog, use_underscores=use_underscores, config=config)
    check_arguments(function, given.arguments)
    return function(*given.args, **given.kwargs)


def parsed(kind: Any, argv: Sequence[str], *, prog: str, **options: Any) -> Any:
    """What tyro makes of `argv`. Raises ConfigError with one line where it has a box of many; --help still ends."""
    import tyro

    if {"-h", "--help"} & set(argv):
        return tyro.cli(kind, args=list(argv), prog=prog, **options)
    said = io.StringIO()
    width = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"  # no sentence is broken into lines
    try:
        with redirect_stderr(said):
            return tyro.cli(kind, args=list(argv), prog=prog, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ConfigError(_sentence(said.getvalue(), prog)) from None
    finally:
        os.environ.pop("COLUMNS")
        if width is not None:
            os.environ["COLUMNS"] = width


def _sentence(box: str, prog: str) -> str:
    """The line that a box of the parser's comes to."""
    lines = [line[1:-1].removeprefix(" ").rstrip() for line in box.splitlines()][1:]  # without borders and the title
    parts = [part for part in re.split(r"^[─-]{3,}$", "\n".join(lines), flags=re.MULTILINE) if part.strip()]
    if not parts:
        return f"these arguments cannot be read; `{prog} --help` shows its options"
    text = parts[0].strip("\n")
    if missing := re.match(r"Missing from [^\n]*:\n", text):
        names = [line.strip() for line in text[missing.end() :].splitlines() if re.match(r" {4}\S", line)]
        text = f"missing: {', '.join(names)}"
    text = re.sub(r"^Error parsing (?:--)?(\S+): ", lambda found: f"{found[1]}: ", text)
    text = re.sub(r"^\w+: (?=\w[\w.]*: )", "", text)  # the class of a config, before the field it names
    text = re.sub(r"invalid literal for int\(\) with base 10: ", "expected a whole number, got ", text)
    text = re.sub(r"could not convert string to float: ", "expected a number, got ", text)
    text = re.sub(r"^Missing value for argument '-*([^']+)'.*", r"\1: expected a value", text)
    text = re.sub(
        r"^invalid choice (.*) for argument '-*([^']+)'\. Expected one of \((.*)\)\.?$",
        r"\2: expected one of \3, got \1",
        text,
    )
    text = re.sub(r"no type matching (.*) could be instantiated from \[(.*)\]", r"expected \1, got \2", text)
    text = re.sub(r"\.?\n\nGot errors:\n.*", "", text, flags=re.DOTALL)
    near = [part for part in parts[1:] if "Perhaps you meant:" in part]
    if near and (hints := re.findall(r"^ {4}(\S.*)", near[0], re.MULTILINE)):
        text += f"; perhaps you meant {' or '.join(hint.strip() for hint in hints)}"
    return f"{' '.join(text.split()).rstrip('.')}; `{prog} --help` shows its options"
