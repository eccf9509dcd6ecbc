"""Nearest centroids of image features, in blocks of bounded memory."""

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eyesmith.errors import DataError, ShapeError

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
