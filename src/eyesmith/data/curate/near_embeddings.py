"""Pairs of near embeddings: all with all, or within clusters where there are too many for that."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eyesmith.data.curate.groups import spanning_pairs
from eyesmith.errors import MissingDependencyError, ShapeError

_BLOCK = 4096
_HOMES = 2  # clusters that every row is a member of: pairs across one border are found
_ROWS_PER_CENTROID, _NUM_STEPS = 32, 5


def near_embedding_pairs(
    rows: NDArray[np.floating], min_similarity: float, *, max_exact: int, device: str = "cpu"
) -> Iterator[NDArray[np.int64]]:
    """Pairs of rows [N, D] with at least this cosine (fp32), int64 [P, 2] at a time; they join what all near pairs do.

    Up to max_exact rows are compared all with all. More are compared within about sqrt(2 N) clusters, every row in the
    two whose centroids are nearest: N^1.5 products, and pairs without a common cluster are missed. `rows` may be
    mapped; 28 bytes a row are held beside it. Raises MissingDependencyError when clusters need faiss, which makes them.
    """
    groups = _clusters(rows, device) if len(rows) > max_exact else iter([np.arange(len(rows))])
    for members in groups:
        for start in range(0, len(members), _BLOCK):
            block = _unit(rows[members[start : start + _BLOCK]], device)
            for other in range(start, len(members), _BLOCK):
                others = block if other == start else _unit(rows[members[other : other + _BLOCK]], device)
                is_near = block @ others.T >= min_similarity
                if other == start:
                    is_near = is_near.triu(1)
                if is_near.any():
                    pairs = spanning_pairs(is_near.cpu().numpy())
                    yield np.stack([members[start + pairs[:, 0]], members[other + pairs[:, 1]]], axis=1)


def is_near_embedding(
    rows: NDArray[np.floating], against: NDArray[np.floating], min_similarity: float, *, device: str = "cpu"
) -> NDArray[np.bool_]:
    """Whether each of rows [N, D] has at least this cosine with one of `against` [M, D]; in blocks, fp32."""
    if rows.shape[1] != against.shape[1]:
        raise ShapeError(f"features of {rows.shape[1]} and of {against.shape[1]} numbers are of different encoders")
    unit, others = _unit(rows, device), _unit(against, device)
    near = torch.zeros(len(unit), dtype=torch.bool, device=device)
    for start in range(0, len(unit), _BLOCK):
        for other in range(0, len(others), _BLOCK):
            products = unit[start : start + _BLOCK] @ others[other : other + _BLOCK].T
            near[start : start + _BLOCK] |= (products >= min_similarity).any(dim=1)
    return near.cpu().numpy()


def _clusters(rows: NDArray[np.floating], device: str) -> Iterator[NDArray[np.int64]]:
    """The members of each cluster, rising."""
    count = round(math.sqrt(2 * len(rows)))
    some = np.random.default_rng(0).choice(len(rows), min(len(rows), _ROWS_PER_CENTROID * count), replace=False)
    sample = _unit(rows[np.sort(some)], device).nan_to_num().cpu().numpy()
    centroids = _unit(_centroids(sample, count), device)
    homes = np.empty((len(rows), _HOMES), dtype=np.int32)
    for start in range(0, len(rows), _BLOCK):
        products = _unit(rows[start : start + _BLOCK], device) @ centroids.T
        homes[start : start + _BLOCK] = products.topk(_HOMES, dim=1).indices.cpu().numpy()
    ends = np.cumsum(np.bincount(homes.ravel(), minlength=count))
    order = np.argsort(homes.ravel(), kind="stable")
    order //= _HOMES
    for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        yield order[start:end]


def _centroids(sample: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Spherical k-means, [count, D]; the same for the same sample. What lies where is asked of the device, not here."""
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError(
            "near embeddings of more samples than duplicates.max_exact are looked for within clusters, which need "
            "faiss: pip install 'eyesmith[curate]'; or raise duplicates.max_exact and wait"
        ) from error
    options = {"niter": _NUM_STEPS, "seed": 0, "spherical": True}
    limits = {"min_points_per_centroid": 1, "max_points_per_centroid": _ROWS_PER_CENTROID}
    kmeans = faiss.Kmeans(sample.shape[1], count, **options, **limits)
    kmeans.train(sample)
    return np.asarray(kmeans.centroids, np.float32)


def _unit(rows: NDArray[np.floating], device: str) -> Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(np.array(rows, dtype=np.float32)).to(device), dim=1)
