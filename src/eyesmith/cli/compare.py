"""`eyesmith compare`: is one model really better than the other, on the same samples?"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from eyesmith.cli.dispatch import call
from eyesmith.cli.numbers import Seed
from eyesmith.cli.output import AsJson, answer, print_json, print_table, say

First = Annotated[
    Positional[Path], tyro.conf.arg(metavar="A", help="The folder that `eyesmith eval --out` wrote for one model.")
]
Second = Annotated[Positional[Path], tyro.conf.arg(metavar="B", help="That of the other, on the same data.")]


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(compare, argv, prog=prog)


def compare(
    a: First,
    b: Second,
    /,
    *,
    task: tuple[str, ...] = (),
    metric: Literal[
        "main", "acc1", "acc5", "mean_per_class_recall", "f1_macro", "worst_group_acc1", "worst_group_acc5"
    ] = "main",
    over: Literal["samples", "classes"] = "samples",
    replicates: int = 2000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> int:
    """B minus A, task by task, paired: with a 95 % interval and the chance of such a difference between equal models.

    Args:
        task: Task keys; all that both have when not given.
        metric: Each task's own main metric, or one for all (classification only).
        over: What to resample: samples, or whole classes (would it hold for other classes of this kind?).
        replicates: Bootstrap resamples.
        seed: Of the resampling; equal seeds give equal numbers.
    """
    from eyesmith.eval.results.compare import compare_folders
    from eyesmith.report.comparison import comparison_lines, comparison_table

    found = compare_folders(a, b, tasks=task, metric=metric, over=over, replicates=replicates, seed=seed)
    if as_json:
        print_json(dataclasses.asdict(found))
        return 0
    columns, rows = comparison_table(found)
    answer(f"A: {found.left}")
    answer(f"B: {found.right}" + ("  (the same weights as A)" if found.is_same_model else ""))
    print_table(columns, rows, right=columns[2:8])
    for line in comparison_lines(found):
        answer(line)
    for name, side in found.missing:
        say(f"{name}: only {a if side == 'left' else b} has it")
    return 0
