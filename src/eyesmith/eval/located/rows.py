"""Result lines of detection and segmentation: `detect` (ap50, mask_ap50), `segment` (pq, miou), of base and novel."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eyesmith.data.annotations import Annotations
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.located.found import Found
from eyesmith.eval.located.intervals import picture_intervals
from eyesmith.eval.located.matching import match
from eyesmith.eval.located.panoptic import PanopticQuality
from eyesmith.eval.located.pixels import PixelScores
from eyesmith.eval.located.precision import average_precision, has_lvis_rules
from eyesmith.eval.results.rows import ResultRow

SETTINGS = ("detector", "dense", "crop")
"""What gave the scores: the detector alone, or with the encoder's dense map, or with the encoder's word on crops."""
_METRICS = {"box": "ap50", "mask": "mask_ap50"}


def detect_rows(
    truth: Annotations,
    found: Sequence[Found],
    *,
    model: str,
    setting: str,
    agnostic: Sequence[Found] | None = None,
    masks: bool = False,
    per_image: int = 100,
    replicates: int = 500,
    seed: int = 0,
    run: Mapping[str, Any] | None = None,
) -> list[ResultRow]:
    """Lines of task `detect`: AP at IoU 0.5 of splits base, novel, all and agnostic, with intervals over pictures.

    A set with LVIS's frequencies gets LVIS's rules, but for the split in which all classes are one.
    found: of each picture of `truth`. setting: one of SETTINGS, written at the end of `model`. agnostic: other
    detections for the split in which all classes are one; `found` where none are given. masks: `mask_ap50` too. run:
    what was measured, see `ResultRow`; how it was scored is added. A split without counted objects has no line.
    """
    _check_setting(setting)
    groups = class_groups(truth)
    rows = []
    for region in ("box", "mask") if masks else ("box",):
        facts = {"region": region, "iou": 0.5, "per_image": per_image, "replicates": replicates, "seed": seed}
        facts |= {"rules": "lvis"} if has_lvis_rules(truth) else {}
        common: dict[str, Any] = {"task": "detect", "metric": _METRICS[region], "chance": None}
        common |= {"model": f"{model} {setting}", "run": dict(run or {}) | {"scored": facts}}
        matches = match(truth, found, region=region, per_image=per_image)
        spans = picture_intervals(matches.average_precision, groups, len(truth), replicates=replicates, seed=seed)
        exact = average_precision(truth, found, region=region, per_image=per_image)
        for split, span in spans.items():
            value = exact.mean("ap50", groups[split])
            rows.append(
                ResultRow(
                    **common,
                    split=split,
                    value=value,
                    low=min(span.low, value),
                    high=max(span.high, value),
                    n=int(matches.objects[:, groups[split]].sum()),
                )
            )
        one_class, one_found = as_one_class(truth), [as_one_label(one) for one in agnostic or found]
        matches = match(one_class, one_found, region=region, per_image=per_image)
        spans = picture_intervals(
            matches.average_precision, {"agnostic": np.ones(1, np.bool_)}, len(truth), replicates=replicates, seed=seed
        )
        rows += [
            ResultRow(
                **common, split=split, value=span.value, low=span.low, high=span.high, n=int(matches.objects.sum())
            )
            for split, span in spans.items()
        ]
    return rows


def segment_rows(
    truth: Annotations,
    *,
    model: str,
    quality: PanopticQuality | None = None,
    pixels: PixelScores | None = None,
    replicates: int = 500,
    seed: int = 0,
    run: Mapping[str, Any] | None = None,
) -> list[ResultRow]:
    """Lines of task `segment`: pq and miou of splits base, novel and all, with intervals over pictures.

    quality, pixels: what was counted on all pictures of `truth`. A split without a class to score has no line.
    """
    groups = class_groups(truth)
    counted: dict[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], int]] = {}
    if quality is not None:
        counted["pq"] = quality.by_class, len(quality.counts)
    if pixels is not None:
        counted["miou"] = pixels.by_class, len(pixels.counts)
    rows = []
    for metric, (by_class, number) in counted.items():
        if number != len(truth):
            raise DataError(f"{metric}: {number} pictures were counted, {truth.name} has {len(truth)}")
        facts = {"replicates": replicates, "seed": seed}
        for split, span in picture_intervals(by_class, groups, number, replicates=replicates, seed=seed).items():
            rows.append(
                ResultRow(
                    model=model,
                    task="segment",
                    split=split,
                    metric=metric,
                    value=span.value,
                    low=span.low,
                    high=span.high,
                    n=number,
                    chance=None,
                    run=dict(run or {}) | {"scored": facts},
                )
            )
    return rows


def class_groups(truth: Annotations) -> dict[str, NDArray[np.bool_]]:
    """Classes [K] by split: all, and base and novel where the set says which are held out."""
    groups = {"all": np.ones(len(truth.categories), np.bool_)}
    if truth.novel.any():
        groups = {"base": ~truth.novel, "novel": truth.novel} | groups
    return groups


def as_one_class(truth: Annotations) -> Annotations:
    """A set in which all categories are one, read lazily."""
    one = replace(truth.categories[0], name="object", frequency="")  # of what is anything at all nothing is left out
    return replace(truth, categories=(one,), read=_OneLabel(truth))


def as_one_label(found: Found) -> Found:
    """Detections without classes."""
    return Found(boxes=found.boxes, scores=found.scores, labels=np.zeros_like(found.labels), masks=found.masks)


class _OneLabel:
    def __init__(self, truth: Annotations) -> None:
        self.truth = truth

    def __call__(self, index: int) -> Any:
        objects = self.truth.objects(index)
        return replace(objects, labels=np.zeros_like(objects.labels))


def _check_setting(setting: str) -> None:
    if setting not in SETTINGS:
        raise ConfigError(f"setting: expected one of {', '.join(SETTINGS)}, got {setting!r}")
