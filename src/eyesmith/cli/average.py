"""`eyesmith average`: one model out of several of its kind, or between before and after fine-tuning."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from eyesmith.cli.dispatch import call
from eyesmith.cli.numbers import Within, Written
from eyesmith.cli.output import AsJson, answer, print_json, print_table, say

Out = Annotated[Positional[Path], Written("folder"), tyro.conf.arg(metavar="OUT", help="The folder to write.")]
Models = Annotated[
    Positional[tuple[str, ...]],
    tyro.conf.arg(metavar="MODEL...", help="Run folders, weight files or hf:owner/name, of one architecture."),
]


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(average, argv, prog=prog)


def average(
    out: Out,
    models: Models,
    /,
    *,
    method: Literal["uniform", "greedy", "wise_ft"] = "uniform",
    alpha: Annotated[tuple[float, ...], Within(0, 1)] = (0.5,),
    data: tuple[str, ...] = (),
    splits: tuple[str, ...] = (),
    as_json: AsJson = False,
) -> int:
    """Average the weights of models into a folder that is a model.

    Args:
        method: The mean of all; the mean of those that help on --data, best first (greedy); or, of two models, before
            and after fine-tuning, a point between them (wise_ft).
        alpha: For wise_ft, from 0 (before) to 1 (after); of several the best on --data is written.
        data: Sets to score by, their mean: zero-shot top-1, retrieval R@1 without labels. Not the test set.
        splits: The splits to score on; all but train when not given.
    """
    from eyesmith.runs.average import average as run

    done = run(models, out, method=method, alphas=alpha, data=data, splits=splits, note=say)
    if as_json:
        print_json(done.as_dict())
        return 0
    if done.tried:
        rows = [(tried.average, f"{tried.score:.2%}") for tried in done.tried]
        print_table(("average", "score"), rows, right=("score",))
    answer(f"{done.folder}: {done.average}")
    return 0
