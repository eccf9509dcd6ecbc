"""`eyesmith embed`: features of a user's images, in a file that numpy opens."""

from pathlib import Path

from eyesmith.cli.dispatch import call
from eyesmith.cli.images import (
    BatchSize,
    Device,
    Images,
    Model,
    ModelName,
    broken_as_json,
    encode,
    load_for_features,
    open_images_or_data,
)
from eyesmith.cli.numbers import OutFile
from eyesmith.cli.output import AsJson, answer, print_json
from eyesmith.errors import ConfigError
from eyesmith.eval.features.index import write_index
from eyesmith.eval.statistics.metrics import check_finite
from eyesmith.hub.device import find_device


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(embed, argv, prog=prog)


def embed(
    model: Model,
    images: Images,
    /,
    *,
    out: OutFile = Path("features.npz"),
    split: str | None = None,
    overwrite: bool = False,
    name: ModelName = None,
    batch_size: BatchSize = 64,
    device: Device = None,
    as_json: AsJson = False,
) -> int:
    """Write the features of images to an .npz file: `features` [N, D] float32 unit rows, `keys` [N], `broken` [M, 2].

    A data set (tar shards, a made one) may stand in place of images. The file appears whole or not at all. Images that
    cannot be read are named and skipped.

    Args:
        out: The file to write.
        split: The split of a data set that has several.
        overwrite: Replace the file when it is there.
    """
    if out.suffix != ".npz":
        raise ConfigError(f"out: expected a name that ends in .npz, got {str(out)!r}")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out}: is there already; choose another --out, or --overwrite")
    where = find_device(device)
    source = open_images_or_data(images, split)
    index = encode(load_for_features(model, name, where), source, batch_size=batch_size)
    check_finite(index.features)
    write_index(out, index)
    count, dim = index.features.shape
    if as_json:
        print_json({"out": str(out), "images": count, "dim": dim, "skipped": broken_as_json(index)})
    else:
        answer(f"{out}: {count} images, {dim} numbers each")
    return 0
