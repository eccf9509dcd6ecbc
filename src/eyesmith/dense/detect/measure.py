"""How well boxes and masks were found: average precision at an overlap of a half, of parts of the classes."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eyesmith.data.annotations import Annotations
from eyesmith.data.annotations.masks import encode_mask, encoded
from eyesmith.dense.detect.detections import Detections
from eyesmith.dense.detect.object_detector import AGNOSTIC
from eyesmith.eval import ResultRow

TASK = "detect"
METRICS: dict[Literal["bbox", "segm"], str] = {"bbox": "ap50", "segm": "mask_ap50"}


def located_rows(
    data: Annotations,
    pictures: Sequence[int],
    found: Mapping[str, Sequence[Detections]],
    *,
    seen: NDArray[np.bool_],
    model: str,
    prefix: str = "",
) -> list[ResultRow]:
    """AP50 of boxes, and of masks where both sides have them: of base, novel and all classes by source.

    pictures: places in the set; found: of each, by source and for `AGNOSTIC`. seen: bool [K], the base classes.
    """
    rows = []
    for source, detections in found.items():
        is_one = source == AGNOSTIC
        has_masks = all(one.masks is not None for one in detections)
        parts = {"agnostic": np.ones(1, np.bool_)} if is_one else {"base": seen, "novel": ~seen, "all": seen | True}
        name = f"{model} detector" if is_one else f"{model} {source}"
        truths = _truths(data, pictures, is_one=is_one, has_masks=has_masks)
        has_masks = has_masks and all("segmentation" in one for one in truths["annotations"])
        answers = _answers(detections, is_one=is_one, has_masks=has_masks)
        for kind, metric in METRICS.items():
            if kind == "segm" and not has_masks:
                continue
            values = _ap50(truths, answers, kind)
            for split, which in parts.items():
                some = values[which & ~np.isnan(values)]
                if len(some):
                    rows.append(
                        ResultRow(
                            model=name,
                            task=TASK,
                            split=prefix + split,
                            metric=metric,
                            value=float(some.mean()),
                            low=None,
                            high=None,
                            n=len(pictures),
                            chance=None,
                        )
                    )
    return rows


def _truths(data: Annotations, pictures: Sequence[int], *, is_one: bool, has_masks: bool) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for number, place in enumerate(pictures):
        objects = data.objects(place)
        for row in range(len(objects)):
            one = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": 0 if is_one else int(objects.labels[row]),
                "bbox": objects.xywh[row].tolist(),
                "area": float(objects.area[row]),
                "iscrowd": int(objects.crowd[row]),
            }
            shape = objects.shapes[row]
            if has_masks and shape is not None:
                one["segmentation"] = encoded(shape, objects.height, objects.width)
            annotations.append(one)
    images = [
        {"id": number, "width": data.pictures[place].width, "height": data.pictures[place].height}
        for number, place in enumerate(pictures)
    ]
    names = ("object",) if is_one else data.names
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": place, "name": name} for place, name in enumerate(names)],
    }


def _answers(found: Sequence[Detections], *, is_one: bool, has_masks: bool) -> list[dict[str, Any]]:
    answers = []
    for number, one in enumerate(found):
        masks = one.masks_px().numpy() if has_masks else None
        for row, (box, score, label) in enumerate(
            zip(one.boxes_px.tolist(), one.scores.tolist(), one.labels.tolist(), strict=True)
        ):
            x0, y0, x1, y1 = box
            answer: dict[str, Any] = {
                "image_id": number,
                "category_id": 0 if is_one else label,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": score,
            }
            if masks is not None:
                answer["segmentation"] = encode_mask(masks[row])
            answers.append(answer)
    return answers


def _ap50(truths: dict[str, Any], answers: list[dict[str, Any]], kind: Literal["bbox", "segm"]) -> NDArray[np.float64]:
    """[K], of each class the mean precision over 101 recalls; nan where a class is not there."""
    from faster_coco_eval import COCO, COCOeval_faster

    if not answers:
        present = {one["category_id"] for one in truths["annotations"] if not one["iscrowd"]}
        return np.array([0.0 if one["id"] in present else np.nan for one in truths["categories"]])
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(truths)
        test = COCOeval_faster(known, known.loadRes(answers), iouType=kind)
        test.params.iouThrs = np.array([0.5])
        test.evaluate()
        test.accumulate()
    precision = np.asarray(test.eval["precision"])[0, :, :, 0, -1]  # [101, K]
    return np.where((precision > -1).all(0), precision.mean(0), np.nan)
