"""What a frozen model says of every sample, computed once and kept on disk in half precision."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eyesmith.errors import DataError
from eyesmith.files import cache_folder, is_sealed, sealed_path
from eyesmith.train.precision import Precision, autocast


class KeptFeatures:
    """Features in a file that is mapped into memory and read by the loader."""

    def __init__(self, path: Path) -> None:
        self._values = np.load(path, mmap_mode="r")  # [samples of the data set, N, D]

    def lacking(self) -> list[int]:
        """Places in the data set whose sample could not be read."""
        return np.flatnonzero(np.isnan(self._values[:, 0, 0])).tolist()

    def read(self, indices: Tensor) -> Tensor:
        """[b, N, D] fp16 on the CPU; indices: int64 [b], places in the data set."""
        return torch.from_numpy(self._values[indices.numpy()])


def keep_features(
    ask: Callable[[Tensor], Tensor],
    views: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    *,
    num_samples: int,
    facts: Sequence[object],
    field: str,
    precision: Precision,
    device: torch.device,
) -> KeptFeatures:
    """The features of all samples of a data set, out of the cache folder, where they are put if they are not there.

    ask: gives [b, N, D] of pixels on the device. views: gives places in the data set and their pixels, each sample
    once; num_samples: of the data set. facts: all that the features depend on, the frozen model and the pictures
    included, as JSON values; the file is known by them and the precision, and appears whole or not at all. field: of
    the config, that turns this off. Raises DataError where a feature is not finite, or too large for half precision.
    """
    name = hashlib.sha256(json.dumps([*facts, precision]).encode()).hexdigest()[:32]
    path = cache_folder() / "targets" / f"{name}.npy"
    if not is_sealed(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with sealed_path(path) as part:
            file: np.ndarray | None = None
            is_given = np.zeros(num_samples, dtype=bool)
            for indices, pixels in views():
                with autocast(precision, device):
                    found = _halved(ask(pixels.to(device)), field).cpu().numpy()
                if file is None:
                    shape = (num_samples, *found.shape[1:])
                    file = np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=shape)
                file[indices.numpy()] = found
                is_given[indices.numpy()] = True
            if file is None:
                raise DataError("none of the images can be read")
            file[~is_given] = np.nan
            file.flush()
            del file
    return KeptFeatures(path)


def _halved(features: Tensor, field: str) -> Tensor:
    half = features.half()
    if not bool(torch.isfinite(half).all()):
        if bool(torch.isfinite(features).all()):
            raise DataError(
                f"{field}: a feature of the frozen model is {float(features.abs().max()):.3g}, half precision ends at "
                f"65504; set {field}=false"
            )
        raise DataError(
            f"{field}: the frozen model's features of some image are not finite; is it damaged, or of another task?"
        )
    return half
