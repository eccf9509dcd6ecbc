"""`eyesmith probe`: what a head on frozen features reaches, with little labelled data or much."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from eyesmith.cli.dispatch import call
from eyesmith.cli.images import BatchSize, Device, Model, ModelName
from eyesmith.cli.output import AsJson, print_json, print_table, say
from eyesmith.errors import ConfigError

Data = Annotated[str, tyro.conf.arg(metavar="DIR", help="A folder of class folders, a made data set, tar shards.")]


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(probe, argv, prog=prog)


def probe(
    model: Model,
    /,
    *,
    train: Data,
    test: Annotated[
        str | None,
        tyro.conf.arg(metavar="DIR", help="The images to measure on; the test split of --train when absent."),
    ] = None,
    train_split: str | None = None,
    test_split: str | None = None,
    head: Literal["linear", "few-shot", "gaussian", "scenes"] = "linear",
    shots: tuple[int, ...] = (),
    seeds: int = 3,
    c: float | None = None,
    shrinkage: float | None = None,
    alpha: float | None = None,
    zero_shot: bool = True,
    cache: Path | None = None,
    fresh: bool = False,
    out: Path | None = None,
    name: ModelName = None,
    batch_size: BatchSize = 64,
    device: Device = None,
    as_json: AsJson = False,
) -> int:
    """A classifier on frozen features: every setting is chosen on held-out training images, never on the test images.

    Args:
        train_split: The split to train on; train where the data have splits.
        test_split: The split to measure on; test where the data have splits.
        head: Logistic regression on all images or on --shots (linear); on 1, 2, 4, 8 and 16 shots (few-shot); class
            means with one shared covariance, mixed with the zero-shot classifier (gaussian); a small network on the
            tokens that a language model would read, asked for the main thing of made scenes and how many things
            there are (scenes).
        shots: Training images per class; several numbers give several rows.
        seeds: Draws of the shots, averaged.
        c: Inverse strength of L2, instead of a choice.
        shrinkage: Of the covariance, 0 to 1, instead of a choice.
        alpha: Weight of the Gaussian head beside zero-shot, instead of a choice.
        zero_shot: Mix the Gaussian head with zero-shot (a model with a text tower).
        cache: Where image features are kept for the next time; the cache folder when not given.
        fresh: Compute the features anew.
        out: A folder for results.jsonl and the predictions, which `eyesmith compare` reads.
    """
    if head == "scenes":
        if shots or test is not None or not (c is shrinkage is alpha is None):
            raise ConfigError("head scenes: reads the splits of --train; leave out test, shots, c, shrinkage and alpha")
        return _scenes(model, train, (train_split or "train", test_split or "test"), name, out, device, as_json)
    from eyesmith.eval.heads.run import ProbePlan, run_probes
    from eyesmith.hub.device import find_device
    from eyesmith.hub.load import load

    where = find_device(device)
    plan = ProbePlan(
        train=train,
        test=test,
        train_split=train_split,
        test_split=test_split,
        head=head,
        shots=shots,
        num_seeds=seeds,
        c=c,
        shrinkage=shrinkage,
        alpha=alpha,
        zero_shot=zero_shot,
        batch_size=batch_size,
        fresh=fresh,
    )
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
    from eyesmith.eval.results.rows import append_rows
    from eyesmith.hub.device import find_device
    from eyesmith.multimodal.eye import EyeConfig, open_eye
    from eyesmith.multimodal.probe import probe_scenes

    where = find_device(device)
    train, test = (open_source(data, split=split) for split in splits)
    eye, preprocess = open_eye(model, EyeConfig())
    rows = probe_scenes(eye.to(where), preprocess, train, test, model=name or model)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        append_rows(out / "results.jsonl", rows)
    if as_json:
        print_json([row.__dict__ for row in rows])
        return 0
    shown = []
    for row in rows:
        assert row.low is not None
        assert row.high is not None
        assert row.chance is not None
        span = f"{100 * row.low:.1f} to {100 * row.high:.1f}"
        shown.append((row.split, f"{row.value:.1%}", span, f"{row.n:,}", f"{row.chance:.1%}"))
    print_table(("asked", "top-1", "95 %", "n", "chance"), shown, right=("top-1", "95 %", "n", "chance"))
    return 0
