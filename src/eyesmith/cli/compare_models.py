"""`eyesmith compare-models`: two models on your own images, side by side."""

import dataclasses
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from eyesmith.cli.dispatch import call
from eyesmith.cli.images import Device
from eyesmith.cli.output import AsJson, answer, print_json, print_table, say

_MODEL = "A run folder, a weight file, hf:owner/name, open_clip:NAME/TAG, or timm:NAME.TAG."
First = Annotated[Positional[str], tyro.conf.arg(metavar="A", help=_MODEL)]
Second = Annotated[Positional[str], tyro.conf.arg(metavar="B", help="The other, likewise.")]


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(compare_models, argv, prog=prog)


def compare_models(
    a: First,
    b: Second,
    /,
    *,
    data: str,
    train: str | None = None,
    batch_size: int = 8,
    device: Device = None,
    as_json: AsJson = False,
) -> int:
    """How often each of two models is right on your own labelled images, and whether the difference is chance; beside
    it their speed, memory and size here, and the licence that their cards state.

    Each names the classes by its own texts; with --train a linear probe on frozen features does, for models that have
    none.

    Args:
        data: Labelled images to measure on: a folder for each class, a table, an evaluation set.
        train: Other labelled images of the same classes, to fit probes on.
        batch_size: Images that go through the encoder at once, for speed and memory.
    """
    from eyesmith.eval.comparison.models import compare_models as measure
    from eyesmith.hub.device import find_device
    from eyesmith.report.comparison import comparison_lines, comparison_table

    found = measure(a, b, data, train=train, batch_size=batch_size, device=find_device(device), note=say)
    if as_json:
        print_json(
            {
                "models": [dataclasses.asdict(one) for one in (found.a, found.b)],
                "rows": [dataclasses.asdict(row) for row in found.rows],
                "difference": dataclasses.asdict(found.difference),
            }
        )
        return 0
    answer(f"A: {a}")
    answer(f"B: {b}" + ("  (the same weights as A)" if found.difference.is_same_model else ""))
    print_table(("", "A", "B"), _cells(found), right=("A", "B"))
    columns, rows = comparison_table(found.difference)
    print_table(columns, rows, right=columns[2:8])
    for line in comparison_lines(found.difference):
        answer(line)
    return 0


def _cells(found: Any) -> list[tuple[str, ...]]:
    pair = (found.a, found.b)
    rows: list[tuple[str, ...]] = []
    for metric in dict.fromkeys(row.metric for row in found.rows):
        values = []
        for one in pair:
            row = next((row for row in found.rows if (row.model, row.metric) == (one.model, metric)), None)
            values.append("-" if row is None else _percent(row.value, row.low, row.high))
        rows.append((metric, *values))
    return [
        *rows,
        ("images a second", *(f"{one.images_per_s:.1f}" for one in pair)),
        ("image GMACs", *("-" if one.image_gmacs is None else f"{one.image_gmacs:.2f}" for one in pair)),
        ("parameters, image", *(f"{one.image_params / 1e6:.2f} M" for one in pair)),
        ("parameters, text", *("-" if one.text_params is None else f"{one.text_params / 1e6:.2f} M" for one in pair)),
        ("weights", *(f"{one.weights_mib:.1f} MiB" for one in pair)),
        ("memory of a batch", *(f"{one.memory_mib:.1f} MiB" for one in pair)),
        ("image px", *("x".join(map(str, dict.fromkeys(one.image_size))) for one in pair)),
        ("code", *(one.origin for one in pair)),
        ("licence", *(one.licence or "not stated" for one in pair)),
    ]


def _percent(value: float, low: float | None, high: float | None) -> str:
    span = "" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})"
    return f"{100 * value:.1f} %{span}"
