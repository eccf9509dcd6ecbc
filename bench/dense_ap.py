"""Average precision against pycocotools: the same file of truth and the same detections, from there to the numbers."""

import contextlib
import io
import json
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.pairs import Row, speed
from eyesmith.data.annotations import open_annotations
from eyesmith.eval.located import average_precision, found

NUM_PICTURES, NUM_CLASSES, NUM_FOUND, SIDE = 500, 80, 40, 500
BOUND = 1e-12  # of each class's precision: the order of a sum


@dataclass(frozen=True)
class Case:
    """A COCO json on disk, and what was found: of each picture boxes [N, 4] xyxy, scores [N], labels [N]."""

    truth: Path
    detections: list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def rows() -> list[Row]:
    """Boxes of COCO's size: 80 classes, 7 objects and 40 detections a picture, crowds among them."""
    with tempfile.TemporaryDirectory(prefix="eyesmith-bench-") as folder:
        return [
            speed(
                "ap_evaluation",
                lambda number: case(Path(folder), number),
                ours,
                theirs,
                equal=lambda one, other: bool(np.allclose(one, other, rtol=0, atol=BOUND, equal_nan=True)),
                count=NUM_PICTURES,
                unit="pictures/s",
                peer="pycocotools",
                note=f"{NUM_PICTURES} pictures, {NUM_CLASSES} classes, {NUM_PICTURES * NUM_FOUND:,} boxes; equal: AP "
                f"of each class at IoU 0.5 to 0.95 and at 0.5 within {BOUND:g}",
                num_pairs=5,
                num_warmups=1,
            )
        ]


def ours(made: Case) -> np.ndarray:
    """Of each class: AP over IoU 0.5 to 0.95, and at 0.5."""
    truth = open_annotations(made.truth)
    scored = average_precision(truth, [found(*one) for one in made.detections])
    return np.stack([scored.ap, scored.ap50])


def theirs(made: Case) -> np.ndarray:
    """The same by pycocotools, from the same file and its own form of results."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        truth = COCO(str(made.truth))
        results = [
            {"image_id": place + 1, "category_id": label + 1, "score": score, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            for place, (boxes, scores, labels) in enumerate(made.detections)
            for (x0, y0, x1, y1), score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)
        ]
        run = COCOeval(truth, truth.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
    table: Any = run.eval["precision"]
    table = np.where(table < 0, np.nan, table)[:, :, :, 0, -1]  # [T, R, K]
    return np.stack([table.mean(1).mean(0), table[0].mean(0)])


def case(folder: Path, number: int) -> Case:
    """A made set and detections: most objects found, moved a little, and more of nothing."""
    rng = np.random.default_rng(number)
    annotations: list[dict[str, Any]] = []
    detections = []
    for place in range(NUM_PICTURES):
        count = int(rng.integers(1, 14))
        size = rng.uniform(10, 250, (count, 2))
        corner = rng.uniform(0, 1, (count, 2)) * (SIDE - size)
        labels = rng.integers(0, NUM_CLASSES, count)
        crowd = rng.random(count) < 0.02
        for (left, top), (width, height), label, is_crowd in zip(
            corner.tolist(), size.tolist(), labels.tolist(), crowd.tolist(), strict=True
        ):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": place + 1, "category_id": label + 1, "area": width * height}
                | {"bbox": [left, top, width, height], "iscrowd": int(is_crowd)}
            )
        more = rng.uniform(0, SIDE - 60, (NUM_FOUND - count, 2))
        boxes = np.concatenate(
            [
                np.concatenate([corner, corner + size], 1) + rng.normal(0, 4, (count, 4)),
                np.concatenate([more, more + rng.uniform(5, 60, (NUM_FOUND - count, 2))], 1),
            ]
        )
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        given = np.concatenate([labels, rng.integers(0, NUM_CLASSES, NUM_FOUND - count)])
        detections.append((boxes, rng.random(NUM_FOUND), given))
    fields = {
        "info": {},
        "images": [
            {"id": place + 1, "file_name": f"{place}.jpg", "width": SIDE, "height": SIDE}
            for place in range(NUM_PICTURES)
        ],
        "categories": [{"id": label + 1, "name": f"class {label}"} for label in range(NUM_CLASSES)],
        "annotations": annotations,
    }
    path = folder / f"{number}.json"
    path.write_text(json.dumps(fields), "utf-8")
    return Case(path, detections)
