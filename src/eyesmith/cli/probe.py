"""`eyesmith probe`: what a head on frozen features reaches, with little labelled data or much."""

from pathlib import Path

from eyesmith.cli.dispatch import call
from eyesmith.cli.images import Device, Model, ModelName
from eyesmith.cli.numbers import OutFolder
from eyesmith.cli.output import AsJson, print_json, print_table, say
from eyesmith.eval.heads.run import ProbePlan, run_probes


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
