"""Nearest centroids of image features, and k-means to make centroids, in blocks of bounded memory."""

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eyesmith.errors import ConfigError, DataError, ShapeError

_BLOCK_BYTES = 256 << 20


def read_rows(path: str | os.PathLike[str]) -> NDArray[np.floating]:
    """Rows [N, D] of floating-point numbers out of a .npy file, mapped. Raises DataError for anything else."""
    try:
        rows = np.load(Path(path), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as .npy: {error}") from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind != "f":
        raise DataError(f"{path}: expected rows of floating-point numbers in a .npy file")
    return rows


def nearest_centroids(
    features: NDArray[np.floating], centroids: NDArray[np.floating], *, device: str = "cpu"
) -> NDArray[np.int64]:
    """Index of the centroid with the largest inner product, int64 [N]; the lowest index of equal ones.

    features: [N, D]; centroids: [K, D]; both are taken as fp32. At most 256 MB of products at a time.
    """
    if features.ndim != 2 or centroids.ndim != 2 or features.shape[1] != centroids.shape[1]:
        raise ShapeError(f"features {features.shape} and centroids {centroids.shape}: expected [N, D] and [K, D]")
    against = torch.from_numpy(np.array(centroids, dtype=np.float32)).to(device)
    step = max(1, _BLOCK_BYTES // (4 * len(centroids)))
    found = np.empty(len(features), dtype=np.int64)
    for start in range(0, len(features), step):
        block = torch.from_numpy(np.array(features[start : start + step], dtype=np.float32)).to(device)
        found[start : start + step] = (block @ against.T).argmax(dim=1).cpu().numpy()
    return found


def train_centroids(
    features: NDArray[np.floating], count: int, *, num_steps: int = 20, seed: int = 0, device: str = "cpu"
) -> NDArray[np.float32]:
    """k-means in Euclidean distance: fp32 [count, D], the same for the same features, order and seed.

    DataComp's own centroids come from FAISS (100,000, 20 steps, seed 0), which draws other starting points: same
    method, other numbers. A centroid that loses all its rows starts again beside the largest one.
    """
    if not 1 <= count <= len(features):
        raise ConfigError(f"centroids: expected 1 to {len(features):,} (the number of features), got {count:,}")
    rng = np.random.default_rng(seed)
    rows = torch.from_numpy(np.array(features, dtype=np.float32)).to(device)
    centroids = rows[torch.from_numpy(np.sort(rng.choice(len(rows), count, replace=False))).to(device)].clone()
    for _ in range(num_steps):
        owner = _nearest_by_distance(rows, centroids)
        sizes = torch.bincount(owner, minlength=count)
        sums = torch.zeros_like(centroids).index_add_(0, owner, rows)
        centroids = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], centroids)
        for empty in torch.nonzero(sizes == 0).flatten().tolist():
            largest = int(sizes.argmax())
            nudge = torch.where(torch.arange(rows.shape[1], device=rows.device) % 2 == 0, 1 / 1024, -1 / 1024)
            centroids[empty] = centroids[largest] * (1 + nudge)
            centroids[largest] = centroids[largest] * (1 - nudge)
            sizes[empty] = sizes[largest] // 2
            sizes[largest] -= sizes[empty]
    return centroids.cpu().numpy()


def _nearest_by_distance(rows: Tensor, centroids: Tensor) -> Tensor:
    squares = centroids.square().sum(dim=1)
    step = max(1, _BLOCK_BYTES // (4 * len(centroids)))
    parts = [(squares - 2 * rows[i : i + step] @ centroids.T).argmin(dim=1) for i in range(0, len(rows), step)]
    return torch.cat(parts)
