"""A 1000-class ImageNet classifier on the variants of ImageNet, as EVA-02's Table 6 counts them.

V2 and Sketch use all classes as they are. The 200-class lists of ImageNet-A and -R and the ReaL labels are read from
the timm package (its files, without importing it).
"""

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from eyesmith.errors import DataError, MissingDependencyError, ShapeError
from eyesmith.eval.statistics.metrics import check_finite

AVERAGED = ("imagenet1k", "imagenetv2", "imagenet-real", "imagenet-a", "imagenet-r", "imagenet_sketch")
NUM_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class Robustness:
    """average: of the six sets of AVERAGED; delta: ImageNet-1K minus average, smaller is more robust."""

    average: float
    delta: float


def subset_answers(logits: Tensor, targets: Tensor, subset: Sequence[int]) -> Tensor:
    """Which images of a 200-class variant are right, [N] bool: the arg-max over the subset's columns only.

    logits: [N, 1000]; targets: [N] int64, positions in `subset`; subset: ImageNet class indices, ascending. Equal
    logits: the lowest index wins.
    """
    _check(logits, targets)
    if len(set(subset)) != len(subset) or min(subset) < 0 or max(subset) >= logits.shape[1]:
        raise ShapeError(f"subset: expected distinct classes in 0..{logits.shape[1] - 1}")
    if len(targets) and not (int(targets.min()) >= 0 and int(targets.max()) < len(subset)):
        raise ShapeError(f"a target lies outside the {len(subset)} classes of the subset")
    return _first_max(logits[:, list(subset)]) == targets


def real_answers(logits: Tensor, labels: Sequence[Sequence[int]]) -> Tensor:
    """Right or wrong by the ReaL labels, [M] bool for the M <= N images that have any: the guess is one of them.

    logits: [N, 1000]; labels: for each image its ReaL classes, () where the raters found none (dropped).
    Raises DataError when no image has a label.
    """
    _check(logits, torch.zeros(len(labels)))
    guesses = _first_max(logits).tolist()
    answers = [guess in set(right) for guess, right in zip(guesses, labels, strict=True) if len(right)]
    if not answers:
        raise DataError("ReaL: not one of the images has a label")
    return torch.tensor(answers)


def objectnet_answers(logits: Tensor, targets: Tensor, imagenet_ids: Sequence[Sequence[int]]) -> Tensor:
    """Right or wrong on ObjectNet's 113 classes that ImageNet knows, [N] bool.

    logits: [N, 1000], arg-max over all of them. targets: [N] positions in `imagenet_ids`, which lists the ImageNet
    classes of each ObjectNet class; only the first of them counts as right (the reference's rule: a guess of the second
    is wrong).
    """
    _check(logits, targets)
    if any(not ids for ids in imagenet_ids):
        raise DataError("ObjectNet: a class has no ImageNet class; leave such images out before")
    first = torch.tensor([ids[0] for ids in imagenet_ids])
    return _first_max(logits) == first[targets]


def robustness(values: Mapping[str, float]) -> Robustness:
    """Average and delta of Table 6 from the six top-1 values by task key (fractions or percent, all alike).

    ObjectNet does not enter. Raises DataError naming the sets that are missing.
    """
    if missing := [key for key in AVERAGED if key not in values]:
        raise DataError(
            f"the average over ImageNet variants needs {', '.join(AVERAGED)}; missing: {', '.join(missing)}"
        )
    average = sum(values[key] for key in AVERAGED) / len(AVERAGED)
    return Robustness(average, values["imagenet1k"] - average)


def subset_classes(name: str) -> tuple[int, ...]:
    """The 200 ImageNet class indices, ascending, of "imagenet-a" or "imagenet-r"."""
    files = {"imagenet-a": "imagenet_a_indices.txt", "imagenet-r": "imagenet_r_indices.txt"}
    if name not in files:
        raise DataError(f"{name}: expected one of {', '.join(files)} (ImageNet-O has a list of its own in its folder)")
    return tuple(sorted(int(line) for line in _timm_file(files[name]).read_text("utf-8").split()))


def real_labels(keys: Sequence[str]) -> list[tuple[int, ...]]:
    """ReaL labels of images by the number in their validation file name (ILSVRC2012_val_00000001.JPEG is the first).

    keys: file names or sample keys; the last 8 digits in a row count. Raises DataError for a key without such a number.
    """
    table = json.loads(_timm_file("imagenet_real_labels.json").read_text("utf-8"))
    found = []
    for key in keys:
        numbers = re.findall(r"(?<!\d)\d{8}(?!\d)", key)
        if not numbers or not 1 <= int(numbers[-1]) <= len(table):
            raise DataError(
                f"ReaL: {key!r} is no name of a validation image (expected ..._00000001 to _{len(table):08d})"
            )
        found.append(tuple(table[int(numbers[-1]) - 1]))
    return found


def _timm_file(name: str) -> Path:
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError("the class lists of ImageNet variants are in timm: pip install 'eyesmith[timm]'")
    path = Path(spec.submodule_search_locations[0]) / "data" / "_info" / name
    if not path.is_file():
        raise MissingDependencyError(f"this timm has no {name}; install timm 1.0.20 or newer")
    return path


def _check(logits: Tensor, targets: Tensor) -> None:
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise ShapeError(f"expected logits [N, K] and N targets, got {list(logits.shape)} and {list(targets.shape)}")
    check_finite(logits)


def _first_max(logits: Tensor) -> Tensor:
    return (logits == logits.max(1, keepdim=True)[0]).int().argmax(1)  # max alone leaves open which of equals it takes
