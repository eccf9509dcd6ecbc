"""The least any encoder should beat: naming an image by the training image that looks most alike, pixel by pixel."""

import torch

from eyesmith.data.memory import decode_all
from eyesmith.data.sample import Source
from eyesmith.errors import DataError
from eyesmith.eval.features.identity import content_hash, decoders
from eyesmith.eval.results.rows import ResultRow
from eyesmith.eval.statistics.metrics import target_ranks, wilson_interval

MODEL = "nearest pixels"
TASK = "pixel_neighbour"


def pixel_neighbour(train: Source, test: Source, *, split: str, side_px: int = 16) -> list[ResultRow]:
    """acc1 and acc5 of a nearest-neighbour rule on thumbnails; candidates are the classes of `train`.

    Both sources are labelled, over the same class names. A class is as near as its nearest training image, by the
    Euclidean distance of RGB thumbnails of side_px x side_px. Returns [] when no test image is of a training class.
    The lines say which pictures were compared; there are no weights to name.
    """
    known, asked = decode_all(train, side_px), decode_all(test, side_px)
    if known.labels is None or asked.labels is None or train.classes != test.classes:
        raise DataError(f"{train.name} and {test.name}: expected labelled images of the same classes")
    candidates = sorted(set(known.labels))
    place = {label: row for row, label in enumerate(candidates)}
    rows = [row for row, label in enumerate(asked.labels) if label in place]
    if not rows:
        return []
    distance = torch.cdist(asked.pixels[rows].flatten(1).double(), known.pixels.flatten(1).double())  # [N, train]
    owner = torch.tensor([place[label] for label in known.labels]).expand(len(rows), -1)
    nearest = torch.full((len(rows), len(candidates)), torch.inf, dtype=torch.float64)
    nearest.scatter_reduce_(1, owner, distance, "amin")  # [N, K]
    ranks = target_ranks(-nearest, torch.tensor([place[asked.labels[row]] for row in rows]))
    run = {"train": content_hash(train), "data": content_hash(test), "side_px": side_px, "decoders": decoders()}
    found = []
    for k in (1, 5):
        hits = int((ranks < k).sum())
        low, high = wilson_interval(hits, len(rows))
        found.append(
            ResultRow(
                model=MODEL,
                task=TASK,
                split=split,
                metric=f"acc{k}",
                value=hits / len(rows),
                low=low,
                high=high,
                n=len(rows),
                chance=min(1.0, k / len(candidates)),
                run=run,
            )
        )
    return found
