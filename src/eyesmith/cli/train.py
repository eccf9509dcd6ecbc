"""`eyesmith train`: a recipe with some fields changed, into a run folder that is a model."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eyesmith.cli.dispatch import suggestion
from eyesmith.cli.failures import on_interrupt
from eyesmith.cli.overrides import parse_config
from eyesmith.errors import ConfigError


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments: the recipe's name, --out, and fields of its config."""
    from eyesmith.recipes import RECIPES

    if not argv or argv[0] in ("-h", "--help"):
        print(_overview(RECIPES, prog))
        return 0 if argv else 2
    name, *words = argv
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}{suggestion(name, RECIPES)}; there are: {', '.join(RECIPES)}")
    out, words = _take_out(words, default=Path("runs") / name)
    config = parse_config(RECIPES[name](), words, prog=f"{prog} {name}")
    return train(config, out)


def train(config: Any, out: Path) -> int:
    """Train `config` into the run folder `out`, and show what it reached."""
    from eyesmith.cli.output import show_run
    from eyesmith.runs.train import start

    with on_interrupt(f"go on with `eyesmith resume {out}`"):
        show_run(lambda console: start(config, out, console=console))
    return 0


def _take_out(words: list[str], *, default: Path) -> tuple[Path, list[str]]:
    """The run folder, and the words that are not about it. `out` belongs to the command, not to the recipe."""
    rest: list[str] = []
    out = default
    pending = iter(words)
    for word in pending:
        if word == "--out":
            value = next(pending, None)
        elif word.startswith(("--out=", "out=")):
            value = word.partition("=")[2]
        else:
            rest.append(word)
            continue
        if not value:
            raise ConfigError("--out: expected a folder")
        out = Path(value)
    return out, rest


def _overview(recipes: Mapping[str, Callable[[], Any]], prog: str) -> str:
    width = max(map(len, recipes))
    lines = [
        f"  {name:{width}}  {(inspect.getdoc(make) or '').partition(chr(10))[0]}" for name, make in recipes.items()
    ]
    usage = f"usage: {prog} RECIPE [--out RUN] [field=value ...]"
    return "\n".join([usage, "", *lines, "", f"`{prog} RECIPE --help` shows every field with its default."])
