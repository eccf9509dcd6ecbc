"""Tables and JSON on the terminal. Results go to stdout, everything about the work to stderr."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.table import Table

from eyesmith.console import PlainConsole
from eyesmith.errors import CheckpointError
from eyesmith.plain import plain, plain_json

if TYPE_CHECKING:
    from eyesmith.runs.work import RunSummary

AsJson = Annotated[bool, tyro.conf.arg(name="json", help="Print JSON instead of a table.")]

_WIDTH_WITHOUT_TERMINAL = 200


def console() -> PlainConsole:
    """Where tables go: stdout, wide enough for whole rows when it is a file or a pipe. No markup: names may hold []."""
    width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    return PlainConsole(file=sys.stdout, width=width)


def messages() -> PlainConsole:
    """Where progress and notes go: stderr."""
    return PlainConsole(stderr=True)


def answer(message: str) -> None:
    """One line of the result, on stdout."""
    print(plain(message))


def say(message: str) -> None:
    """One line about the work, on stderr."""
    print(plain(message), file=sys.stderr, flush=True)


@contextmanager
def bars(*, unit: str) -> Iterator[Callable[[str, int, int], None]]:
    """One progress bar after the other: whenever another name comes, the bar before it is closed."""
    from eyesmith.train.callbacks.progress import progress

    console = messages()
    with ExitStack() as open_bar:
        shown: dict[str, Callable[[int], None]] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in shown:
                open_bar.close()
                shown.clear()
                shown[name] = open_bar.enter_context(progress(console, name, total, unit=unit))
            shown[name](done)

        yield show


def print_json(value: Any) -> None:
    """`value` as indented JSON on stdout; floats as they are, no NaN."""
    print(plain_json(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = ()) -> None:
    """A table with a header; None is an empty cell; the columns named in `right` are aligned to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else plain(str(cell)) for cell in row))
    console().print(table)


def show_run(work: Callable[[PlainConsole], "RunSummary"]) -> None:
    """Do a run with its progress on the terminal, then show what it reached and how to use it.

    A finished run stays one, whatever became of its folder since: without it the way to use it is left out.
    """
    from eyesmith.report.terminal import splits_table
    from eyesmith.tasks.task import BEFORE

    summary = work(messages())
    rows = [row for row in summary.rows if not row.model.endswith(BEFORE)]
    for model in dict.fromkeys(row.model for row in rows):  # a run that looks in several ways has a name for each
        before = [row for row in summary.rows if row.model == model + BEFORE]
        console().print(splits_table([row for row in rows if row.model == model], before))
    done = "was finished before," if summary.was_finished else "trained"
    line = f"{summary.folder}: {done} {summary.train_s:.0f} s"
    try:
        line += f"; now `{_use_of(summary.folder)}`"
    except (CheckpointError, OSError) as error:
        say(f"how to use it is not known: {error}")
    answer(line)


def _use_of(run: Path) -> str:
    """The command that uses a finished run, by what its folder holds. Raises as `read_config` does."""
    from eyesmith.hub.run_folder import CHAT_KIND, DETECT_KIND, ENCODERS, SEGMENT_KIND, read_config
    from eyesmith.models.classifier import ClassifierConfig

    match read_config(run)["model"].get("kind"):
        case str(kind) if kind in (DETECT_KIND, SEGMENT_KIND):
            return f"eyesmith {kind} {run} IMAGE"
        case str(kind) if kind == CHAT_KIND:
            return f"eyesmith chat {run} IMAGE QUESTION"
        case str(kind) if kind == ClassifierConfig.__name__:
            return f"eyesmith classify {run} IMAGE"
        case str(kind) if kind in ENCODERS:
            return f"eyesmith train RECIPE initial.weights={run} initial.part=image"
        case _:
            return f"eyesmith classify {run} IMAGE --names ..."
