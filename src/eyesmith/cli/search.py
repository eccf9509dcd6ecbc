"""`eyesmith search`: the images of a folder or data set that are nearest to a text."""

from typing import Annotated

import tyro
from tyro.conf import Positional

from eyesmith.cli.dispatch import call
from eyesmith.cli.images import (
    BatchSize,
    Device,
    Model,
    ModelName,
    encode,
    load_model,
    open_images_or_data,
    report_broken,
)
from eyesmith.cli.output import AsJson, print_json, print_table, say
from eyesmith.data.sample import Source
from eyesmith.eval.features.index import ImageIndex, check_query, read_index, search, write_index
from eyesmith.hub.device import find_device
from eyesmith.models.clip import Clip

Place = Annotated[
    Positional[str],
    tyro.conf.arg(metavar="IMAGES", help="A folder or pattern of images, or a data set (tar shards, a made one)."),
]
Query = Annotated[Positional[str], tyro.conf.arg(metavar="TEXT", help="What to look for.")]


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(find, argv, prog=prog)


def find(
    model: Model,
    images: Place,
    text: Query,
    /,
    *,
    top: int = 5,
    split: str | None = None,
    fresh: bool = False,
    name: ModelName = None,
    batch_size: BatchSize = 64,
    device: Device = None,
    as_json: AsJson = False,
) -> int:
    """The images that are nearest to a text, the nearest first; the score is the cosine of their features.

    The features of the images are kept in the user's cache, so the next search in the same images is quick.

    Args:
        top: How many images to show.
        split: The split of a data set that has several.
        fresh: Compute the features anew.
    """
    check_query(text)
    where = find_device(device)
    source = open_images_or_data((images,), split)
    clip = load_model(model, name, where)
    index = _index(clip, source, batch_size=batch_size, fresh=fresh)
    hits = search(clip, index, text, top=top)
    place = {key: number for number, key in enumerate(source.keys)}
    found = [
        {
            "rank": rank,
            "score": hit.score,
            "image": hit.key,
            "where": source.where(place[hit.key]),
            "caption": next(iter(source.texts(place[hit.key])), None),
        }
        for rank, hit in enumerate(hits, start=1)
    ]
    if as_json:
        print_json(found)
        return 0
    # a file is its own place and has no caption; a sample of a shard is known by both
    columns = ["rank", "score", "image"]
    columns += ["where"] if any(one["where"] != one["image"] for one in found) else []
    columns += ["caption"] if any(one["caption"] for one in found) else []
    rows = [[f"{one[name]:.3f}" if name == "score" else one[name] for name in columns] for one in found]
    print_table(columns, rows, right=("rank", "score"))
    return 0


def _index(clip: Clip, source: Source, *, batch_size: int, fresh: bool) -> ImageIndex:
    from eyesmith.eval.features.cache import prune, touch
    from eyesmith.eval.features.identity import WHY, cache_key, model_facts
    from eyesmith.files import cache_folder

    key = cache_key(model_facts(clip.image, clip.preprocess), source)
    path = cache_folder() / "search" / f"{key}.npz"
    kept = None if fresh else read_index(path)
    if kept is not None:
        touch(path)
        say(f"image features reused because {WHY}; --fresh computes them anew")
        report_broken(kept)
        return kept
    index = encode(clip, source, batch_size=batch_size, what="reading the images")
    try:
        write_index(path, index, is_kept=True)
    except OSError as error:  # the cache is a convenience: a full or read-only disk does not stop a search
        say(f"note: the features could not be kept for the next search ({error.strerror})")
    else:
        prune(path.parent)
    return index
