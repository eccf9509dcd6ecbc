"""`eyesmith eval`: measure a model on a data set, into a result file that other programs read."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from eyesmith.cli.dispatch import call, suggestion
from eyesmith.cli.images import BatchSize, Model, ModelName, load_model
from eyesmith.cli.output import AsJson, console, print_json, say
from eyesmith.errors import ConfigError

TASKS = {
    "all": ("zero_shot", "zero_shot_all", "retrieval", "retrieval_label"),
    "zero_shot": ("zero_shot", "zero_shot_all"),
    "retrieval": ("retrieval", "retrieval_label"),
}

Task = Annotated[Positional[str], tyro.conf.arg(metavar="TASK", help="all, zero_shot or retrieval.")]
Data = Annotated[
    str, tyro.conf.arg(metavar="DIR", help="A made data set, tar shards, a table, or a folder of class folders.")
]


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(evaluate, argv, prog=prog)


def evaluate(
    model: Model,
    task: Task = "all",
    /,
    *,
    data: Data,
    splits: tuple[str, ...] = (),
    out: Path | None = None,
    name: ModelName = None,
    batch_size: BatchSize = 64,
    as_json: AsJson = False,
) -> int:
    """Zero-shot classification and retrieval on the splits of a data set, with 95 % intervals and chance.

    Args:
        splits: The splits to measure; all but train when not given.
        out: Where the result lines are added; RUN/results.jsonl for a run folder, else results.jsonl here.
    """
    if task not in TASKS:
        raise ConfigError(f"unknown task {task!r}{suggestion(task, TASKS)}; there are: {', '.join(TASKS)}")
    from eyesmith.eval.results import append_rows
    from eyesmith.eval.suite import evaluate as run_suite
    from eyesmith.report.terminal import splits_table

    clip = load_model(model, name)
    rows = run_suite(clip, data, splits or None, batch_size=batch_size, note=say)
    rows = [row for row in rows if row.task in TASKS[task]]
    if not rows:
        raise ConfigError(f"{data}: cannot carry the task {task!r}: zero_shot needs labels, retrieval captions")
    target = out or (Path(model) if Path(model).is_dir() else Path()) / "results.jsonl"
    append_rows(target, rows)
    if as_json:
        print_json([dataclasses.asdict(row) for row in rows])
    else:
        console().print(splits_table(rows))
    say(f"{len(rows)} result lines added to {target}")
    return 0
