"""`eyesmith report`: a leaderboard page out of result files, beside the papers' numbers."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from eyesmith.cli.dispatch import call
from eyesmith.cli.numbers import OutFile
from eyesmith.cli.output import AsJson, print_json, print_table, say
from eyesmith.errors import ConfigError

Results = Annotated[
    Positional[tuple[Path, ...]],
    tyro.conf.arg(
        metavar="RESULT...", help="Result files or folders: ours, DataComp's, CLIP_benchmark's, open_clip's."
    ),
]


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(report, argv, prog=prog)


def report(
    results: Results,
    /,
    *,
    out: OutFile = Path("leaderboard.html"),
    data: Path | None = None,
    compare: tuple[str, ...] = (),
    published: bool = True,
    as_json: AsJson = False,
) -> int:
    """Write one page (and a CSV beside it) with the models of all result files and the published ones.

    Args:
        out: The page to write; its CSV has the same name.
        data: The folder of the evaluation sets, for names and pictures of the worst classes.
        compare: Two models, as the page calls them, for the task-by-task chart; the two best when not given.
        published: Whether the papers' rows stand beside; --no-published leaves them out.
    """
    from eyesmith.report.leaderboard import write_leaderboard

    if not results:
        raise ConfigError("expected the result files or folders to show: `eyesmith report RUN/eval ...`")

    board = write_leaderboard(results, out, data=data, compare=compare, with_published=published)
    rows = [
        {
            "suite": one.suite.name,
            "model": entry.label,
            "tasks": len(entry.tasks),
            "missing": list(entry.missing),
            "averages": {name: cell.value for name, cell in entry.averages.items()},
        }
        for one in board.suites
        for entry in one.measured
    ]
    if as_json:
        print_json(rows)
    elif rows:
        cells = [
            (row["suite"], row["model"], row["tasks"], len(row["missing"]), _averages(row["averages"])) for row in rows
        ]
        print_table(("suite", "model", "tasks", "missing", "averages"), cells, right=("tasks", "missing"))
    number = board.num_models
    say(f"{out} and {out.with_suffix('.csv')} written: {number} model{'s' * (number != 1)}")
    return 0


def _averages(averages: dict[str, float]) -> str:
    return ", ".join(f"{name} {100 * value:.1f}" for name, value in averages.items())
