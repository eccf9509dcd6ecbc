"""Average precision of boxes and masks by COCO's and LVIS's rules, through faster-coco-eval."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eyesmith.data.annotations import Annotations, Objects, Picture
from eyesmith.data.annotations.masks import encoded, rle_masks
from eyesmith.errors import ConfigError, DataError, MissingDependencyError
from eyesmith.eval.located.found import Found

Region = Literal["box", "mask", "boundary"]
"""What is compared: boxes, masks, or the lesser of mask IoU and boundary IoU."""
_IOU_TYPES: Mapping[Region, str] = {"box": "bbox", "mask": "segm", "boundary": "boundary"}
AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e5**2)}


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Average precision of a set of pictures, fractions; NaN for a class without a counted object.

    ap: [K], mean over IoU 0.5 to 0.95; ap50, ap75: [K] at one IoU; by_area: [K] of each size of objects; recall: [K],
    mean over IoU of the recall that `per_image` detections reach. frequency: LVIS's letter of each class, or "".
    """

    ap: NDArray[np.float64]
    ap50: NDArray[np.float64]
    ap75: NDArray[np.float64]
    by_area: Mapping[str, NDArray[np.float64]]
    recall: NDArray[np.float64]
    frequency: tuple[str, ...]
    per_image: int

    def mean(self, column: str = "ap", classes: NDArray[np.bool_] | None = None) -> float:
        """Mean over the classes that have objects, of all or of those in `classes` [K]; NaN where there is none.

        column: ap, ap50, ap75, recall, or small, medium, large.
        """
        values = self.by_area[column] if column in self.by_area else getattr(self, column)
        return mean_of(values, classes)

    def by_frequency(self, letter: str) -> float:
        """LVIS's APr, APc or APf."""
        return self.mean("ap", np.array([one == letter for one in self.frequency], np.bool_))


def mean_of(values: NDArray[np.float64], classes: NDArray[np.bool_] | None = None) -> float:
    """Mean of the numbers [K] that are there (not NaN), among `classes` [K]; NaN where there is none."""
    chosen = values if classes is None else values[classes]
    chosen = chosen[~np.isnan(chosen)]
    return float(chosen.mean()) if len(chosen) else float("nan")


def average_precision(
    truth: Annotations,
    found: Sequence[Found],
    *,
    region: Region = "box",
    per_image: int | None = None,
    lvis: bool | None = None,
    agnostic: bool = False,
) -> Precision:
    """Average precision of the detections `found`, one entry a picture of `truth`, in its order.

    per_image: how many of a picture's best detections of a class count: 100; of LVIS 300, of all classes together.
    lvis: LVIS's rules (a detection of a class that a picture is not annotated for is dropped; a miss is no error where
    the picture is not exhaustive); by default when the categories have frequencies. agnostic: all classes are one.
    Equal to pycocotools in all digits. Raises DataError when lengths or labels do not fit, or masks are missing.
    Source: COCO's evaluation (T-Y. Lin et al. 2014), LVIS (A. Gupta et al. 2019).
    """
    if region not in _IOU_TYPES:
        raise ConfigError(f"region: expected one of {', '.join(_IOU_TYPES)}, got {region!r}")
    check_found(truth, found, masks=region != "box")
    is_lvis = (has_lvis_rules(truth) if lvis is None else lvis) and not agnostic
    if is_lvis and not all(one.frequency for one in truth.categories):
        raise DataError(f"{truth.name}: LVIS's rules need the frequency (r, c, f) of each category")
    limit = per_image if per_image is not None else 300 if is_lvis else 100
    if limit < 1:
        raise ConfigError(f"per_image: expected 1 or more, got {limit}")
    counted = found
    if is_lvis:
        each = zip(truth.pictures, truth, found, strict=True)
        counted = [one.only(lvis_places(one, picture, objects, limit)) for picture, objects, one in each]
    library = _library()
    number = 1 if agnostic else len(truth.categories)
    truth_set = library.COCO(_truth_fields(truth, region, lvis=is_lvis, agnostic=agnostic))
    found_set = library.COCO(
        {
            "images": [
                {"id": place + 1, "height": one.height, "width": one.width} for place, one in enumerate(truth.pictures)
            ],
            "categories": [{"id": label + 1, "name": str(label)} for label in range(number)],
            "annotations": list(_found_fields(counted, region, agnostic=agnostic)),
        }
    )
    run = library.COCOeval_faster(
        truth_set, found_set, _IOU_TYPES[region], lvis_style=is_lvis, print_function=_say_nothing
    )
    run.params.maxDets = [limit]
    run.evaluate()
    run.accumulate()
    table = np.array(run.eval["precision"]).reshape(len(run.params.iouThrs), len(run.params.recThrs), number, -1)
    recall = np.array(run.eval["recall"]).reshape(len(run.params.iouThrs), number, -1)  # [T, K, A]
    table = np.where(table < 0, np.nan, table)  # -1 says that there is nothing to find
    by_class = table.mean(1)  # [T, K, A]
    at = {round(float(one), 2): row for row, one in enumerate(run.params.iouThrs)}
    return Precision(
        ap=by_class[:, :, 0].mean(0),
        ap50=by_class[at[0.5], :, 0],
        ap75=by_class[at[0.75], :, 0],
        by_area={name: by_class[:, :, column].mean(0) for column, name in enumerate(AREAS, 1)},
        recall=np.where(recall < 0, np.nan, recall)[:, :, 0].mean(0),
        frequency=("",) if agnostic else tuple(one.frequency for one in truth.categories),
        per_image=limit,
    )


def has_lvis_rules(truth: Annotations) -> bool:
    """Whether each picture of a set is annotated for some of the classes alone, as LVIS's are."""
    return bool(truth.categories) and all(one.frequency for one in truth.categories)


def lvis_places(found: Found, picture: Picture, objects: Objects, limit: int) -> NDArray[np.int64]:
    """Of the `limit` best detections of a picture those of the classes that it is annotated for, in the order given."""
    best = np.sort(np.argsort(-found.scores, kind="stable")[:limit])
    asked = set(objects.labels.tolist()) | (picture.absent or frozenset())
    return best[np.isin(found.labels[best], list(asked))]


def check_found(truth: Annotations, found: Sequence[Found], *, masks: bool) -> None:
    """Raises DataError when detections do not fit the set: their number, their labels, masks that are missing."""
    if len(found) != len(truth):
        raise DataError(f"{truth.name}: {len(truth)} pictures, detections of {len(found)}; give one entry a picture")
    if not len(truth):
        raise DataError(f"{truth.name}: no pictures")
    for picture, one in zip(truth.pictures, found, strict=True):
        if len(one) and int(one.labels.max()) >= len(truth.categories):
            raise DataError(
                f"{picture.file}: label {int(one.labels.max())}; {truth.name} has {len(truth.categories)} categories"
            )
        if masks and len(one) and one.masks is None:
            raise DataError(f"{picture.file}: detections without masks; give masks, or compare boxes")


def _truth_fields(truth: Annotations, region: Region, *, lvis: bool, agnostic: bool) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for place, objects in enumerate(truth):
        if region != "box" and not objects.has_masks:
            raise DataError(f"{truth.pictures[place].file}: {truth.name} has objects without masks; compare boxes")
        rows = zip(
            objects.labels.tolist(), objects.xywh.tolist(), objects.area.tolist(), objects.crowd.tolist(), strict=True
        )
        for row, (label, box, area, crowd) in enumerate(rows):
            fields = {
                "id": len(annotations) + 1,
                "image_id": place + 1,
                "category_id": 1 if agnostic else label + 1,
                "bbox": box,
                "area": area,
                "iscrowd": int(crowd),
            }
            if region != "box":
                shape = objects.shapes[row]
                assert shape is not None
                fields["segmentation"] = encoded(shape, objects.height, objects.width)
            annotations.append(fields)
    categories = (
        [{"id": 1, "name": "object"}]
        if agnostic
        else [
            {"id": label + 1, "name": one.name, "frequency": one.frequency}
            for label, one in enumerate(truth.categories)
        ]
    )
    images = []
    for place, one in enumerate(truth.pictures):
        image: dict[str, Any] = {"id": place + 1, "height": one.height, "width": one.width}
        if lvis:
            image["neg_category_ids"] = [label + 1 for label in sorted(one.absent or ())]
            image["not_exhaustive_category_ids"] = [label + 1 for label in sorted(one.not_exhaustive)]
        images.append(image)
    return {"images": images, "categories": categories, "annotations": annotations}


def _found_fields(found: Sequence[Found], region: Region, *, agnostic: bool) -> Iterator[dict[str, Any]]:
    number = 0
    for place, one in enumerate(found):
        corners = one.boxes.copy()
        corners[:, 2:] -= corners[:, :2]
        areas = corners[:, 2] * corners[:, 3]
        rows = zip(one.labels.tolist(), one.scores.tolist(), corners.tolist(), areas.tolist(), strict=True)
        for row, (label, score, box, area) in enumerate(rows):
            number += 1
            fields: dict[str, Any] = {
                "id": number,
                "image_id": place + 1,
                "category_id": 1 if agnostic else label + 1,
                "bbox": box,
                "area": area,
                "score": score,
                "iscrowd": 0,
            }
            if region != "box":
                assert one.masks is not None
                fields["segmentation"] = one.masks[row]
                fields["area"] = float(rle_masks().area(one.masks[row]))
            yield fields


def _library() -> ModuleType:
    try:
        import faster_coco_eval
    except ImportError:
        raise MissingDependencyError(
            "average precision needs faster-coco-eval: pip install 'eyesmith[dense]'"
        ) from None
    return faster_coco_eval


def _say_nothing(*_: object) -> None:
    pass
