"""`eyesmith probe`: what a head on frozen features reaches, with little labelled data or much."""

from pathlib import Path
from typing import TYPE_CHECKING

from eyesmith.cli.dispatch import call
from eyesmith.cli.images import Device, Model, ModelName
from eyesmith.cli.numbers import OutFolder
from eyesmith.cli.output import AsJson, print_json, print_table, say
from eyesmith.eval.heads.run import ProbePlan, run_probes

if TYPE_CHECKING:
    from eyesmith.eval.results.rows import ResultRow


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(probe, argv, prog=prog)


def probe(
    model: Model,
    /,
    *,
    plan: ProbePlan,
    cache: Path | None = None,
    out: OutFolder | None = None,
    name: ModelName = None,
    device: Device = None,
    as_json: AsJson = False,
) -> int:
    """A classifier on frozen features: every setting is chosen on held-out training images, never on the test images.

    Args:
        cache: Where image features are kept for the next time; the cache folder when not given.
        out: A folder for results.jsonl and the predictions, which `eyesmith compare` reads.
    """
    if plan.head == "scenes":
        splits = (plan.train_split or "train", plan.test_split or "test")
        return _scenes(model, plan.train, splits, name, out, device, as_json)
    if plan.head == "segment":
        return _segment(model, plan, name, out, device, as_json)
    from eyesmith.hub.device import find_device
    from eyesmith.hub.load import load

    where = find_device(device)
    found = run_probes(load(model, name=name).to(where), plan, model_name=model, cache=cache, out=out, note=say)
    if as_json:
        print_json([one.as_dict() for one in found])
        return 0
    columns = ("head", "shots", "top-1", "95 %", "per class", "chosen", "validation", "n", "chance")
    print_table(columns, [one.cells() for one in found], right=("shots", "top-1", "95 %", "per class", "n", "chance"))
    return 0


def _scenes(
    model: str,
    data: str,
    splits: tuple[str, str],
    name: str | None,
    out: Path | None,
    device: str | None,
    as_json: bool,
) -> int:
    from eyesmith.data.sources import open_source
    from eyesmith.hub.device import find_device
    from eyesmith.multimodal.eye import EyeConfig, open_eye
    from eyesmith.multimodal.probe import probe_scenes

    where = find_device(device)
    train, test = (open_source(data, split=split) for split in splits)
    eye, preprocess = open_eye(model, EyeConfig())
    rows = probe_scenes(eye.to(where), preprocess, train, test, model=name or model)
    return _show(rows, "asked", "top-1", out, as_json)


def _segment(model: str, plan: ProbePlan, name: str | None, out: Path | None, device: str | None, as_json: bool) -> int:
    from eyesmith.data.annotations import open_annotations
    from eyesmith.dense.segmentation_probe import probe_segments
    from eyesmith.hub.device import find_device
    from eyesmith.hub.load import load_encoder

    where = find_device(device)
    train = open_annotations(plan.train, plan.train_split or (None if plan.test else "train"))
    test = open_annotations(plan.test or plan.train, plan.test_split or (None if plan.test else "test"))
    eye = load_encoder(model, name=name).to(where)
    rows = probe_segments(eye, train, test, model=name or model, c=plan.c, side_px=plan.side_px, note=say)
    return _show(rows, "classes", "mIoU", out, as_json)


def _show(rows: "list[ResultRow]", parts: str, metric: str, out: Path | None, as_json: bool) -> int:
    """parts: what the splits of the rows are called."""
    from eyesmith.eval.results.rows import append_rows

    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        append_rows(out / "results.jsonl", rows)
    if as_json:
        print_json([row.__dict__ for row in rows])
        return 0
    shown = []
    for row in rows:
        span = "" if row.low is None or row.high is None else f"{100 * row.low:.1f} to {100 * row.high:.1f}"
        chance = "" if row.chance is None else f"{row.chance:.1%}"
        shown.append((row.split, f"{row.value:.1%}", span, f"{row.n:,}", chance))
    print_table((parts, metric, "95 %", "n", "chance"), shown, right=(metric, "95 %", "n", "chance"))
    return 0
