"""`eyesmith bench`: the side-by-side measurements of the checkout's `bench/` folder."""

import sys
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

import eyesmith
from eyesmith.cli.dispatch import call, suggestion
from eyesmith.cli.output import AsJson, print_json, print_table
from eyesmith.errors import ConfigError, MissingDependencyError

Group = Annotated[Positional[str], tyro.conf.arg(metavar="GROUP", help="What to measure: tokenizer, models, ...")]


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(bench, argv, prog=prog)


def bench(group: Group, /, *, as_json: AsJson = False) -> int:
    """Our speed beside our peers': both sides in one run, on the same inputs, outputs compared in the same run.

    `ratio` is how many times better ours is: the median of interleaved pairs, with its quartiles. Exit status 1 when
    the outputs of a row differ.
    """
    groups = _groups()
    if group not in groups.GROUPS:
        known = ", ".join(sorted(groups.GROUPS))
        raise ConfigError(f"unknown group {group!r}{suggestion(group, groups.GROUPS)}; there are: {known}")
    rows = [row.to_json() for row in groups.run(group)]
    if as_json:
        print_json(rows)
    else:
        columns = ("row", "ours", "theirs", "unit", "ratio", "quartiles", "outputs", "peer")
        cells = [
            (
                row["row"],
                f"{row['ours']:.4g}",
                f"{row['theirs']:.4g}",
                row["unit"],
                f"{row['ratio']:.2f}x",
                f"{row['low']:.2f} to {row['high']:.2f}",
                "equal" if row["equal"] else "DIFFER",
                row["peer"],
            )
            for row in rows
        ]
        print_table(columns, cells, right=("ours", "theirs", "ratio"))
    return 0 if all(row["equal"] for row in rows) else 1


def _groups() -> Any:
    """The `bench` package of the checkout this package lies in. Raises MissingDependencyError when there is none."""
    checkout = Path(eyesmith.__file__).resolve().parents[2]
    if not (checkout / "bench" / "__init__.py").is_file():
        raise MissingDependencyError(
            "the measurements are not part of the installed package: clone the repository and run it from there"
        )
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    import bench as package

    return package
