"""Average precision: pycocotools' numbers in all digits, LVIS's rules against a slow reading of them."""

import contextlib
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from eyesmith.data.annotations import Annotations
from eyesmith.data.annotations.masks import encoded
from eyesmith.errors import DataError, ShapeError
from eyesmith.eval.located import Found, average_precision, found

Make = Callable[..., tuple[Annotations, list[Found]]]


def peer(truth: Annotations, detections: Sequence[Found], kind: str, per_image: int = 100) -> COCOeval:
    """pycocotools on the same, through its own loader of results."""
    annotations, results = [], []
    for place, (objects, one) in enumerate(zip(truth, detections, strict=True)):
        for row in range(len(objects)):
            fields = {"id": len(annotations) + 1, "image_id": place + 1, "category_id": int(objects.labels[row]) + 1}
            fields |= {"bbox": objects.xywh[row].tolist(), "area": float(objects.area[row])}
            fields |= {"iscrowd": int(objects.crowd[row])}
            if kind == "segm":
                fields["segmentation"] = encoded(objects.shapes[row], objects.height, objects.width)  # pyright: ignore
            annotations.append(fields)
        for row in range(len(one)):
            x0, y0, x1, y1 = one.boxes[row].tolist()
            fields = {"image_id": place + 1, "category_id": int(one.labels[row]) + 1, "score": float(one.scores[row])}
            fields |= {"segmentation": one.masks[row]} if kind == "segm" else {"bbox": [x0, y0, x1 - x0, y1 - y0]}  # pyright: ignore
            results.append(fields)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        gt = COCO()
        gt.dataset = {
            "images": [{"id": i + 1, "height": p.height, "width": p.width} for i, p in enumerate(truth.pictures)],
            "categories": [{"id": i + 1, "name": one.name} for i, one in enumerate(truth.categories)],
            "annotations": annotations,
            "info": {},
        }
        gt.createIndex()
        run = COCOeval(gt, gt.loadRes(results), kind)
        run.params.maxDets = [1, 10, 100] if per_image == 100 else [1, per_image]
        run.evaluate()
        run.accumulate()
    return run


def same(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-15)  # a mean's last bit depends on the order of its sum


def assert_equal(truth: Annotations, detections: Sequence[Found], kind: str, per_image: int = 100) -> None:
    ours = average_precision(truth, detections, region="mask" if kind == "segm" else "box", per_image=per_image)
    run = peer(truth, detections, kind, per_image)
    table = np.where(run.eval["precision"] == -1, np.nan, run.eval["precision"])[..., -1]  # [T, R, K, A]
    same(ours.ap, table[:, :, :, 0].mean(1).mean(0))
    same(ours.ap50, table[0, :, :, 0].mean(0))
    same(ours.ap75, table[5, :, :, 0].mean(0))
    for column, name in enumerate(("small", "medium", "large"), 1):
        same(ours.by_area[name], table[:, :, :, column].mean(1).mean(0))
    recall = np.where(run.eval["recall"] == -1, np.nan, run.eval["recall"])[:, :, 0, -1]
    same(ours.recall, recall.mean(0))
    with contextlib.redirect_stdout(io.StringIO()):
        if per_image == 100:
            run.summarize()
            stats = {"ap": 0, "ap50": 1, "ap75": 2, "small": 3, "medium": 4, "large": 5, "recall": 8}
            for name, place in stats.items():
                value = -1.0 if np.isnan(ours.mean(name)) else ours.mean(name)
                assert value == pytest.approx(run.stats[place], abs=1e-15)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_equal_to_pycocotools(make_found: Make, seed: int, kind: str) -> None:
    assert_equal(*make_found(seed, masks=kind == "segm", pictures=8 if kind == "segm" else 15), kind)


def test_equal_with_one_class_and_without_crowds(make_found: Make) -> None:
    assert_equal(*make_found(5, classes=1, crowds=False), "bbox")


def test_equal_with_more_detections_than_count(make_found: Make) -> None:
    truth, detections = make_found(6, extra=150, classes=2)
    assert_equal(truth, detections, "bbox")
    assert_equal(truth, detections, "bbox", per_image=7)


def test_no_detections_are_a_precision_of_0(make_found: Make) -> None:
    truth, _ = make_found(7)
    ours = average_precision(truth, [found([], [], [])] * len(truth))
    assert np.nanmax(ours.ap) == 0
    assert ours.mean() == 0


def test_a_class_without_objects_counts_in_no_mean(make_found: Make) -> None:
    truth, detections = make_found(8, classes=3)
    wider = replace(truth, categories=(*truth.categories, replace(truth.categories[0], id=9, name="absent")))
    ours, plain = average_precision(wider, detections), average_precision(truth, detections)
    assert np.isnan(ours.ap[3])
    assert ours.mean("ap50") == plain.mean("ap50")
    assert np.isnan(ours.mean("ap50", np.array([False, False, False, True])))


def test_base_and_novel_are_means_of_their_classes(make_found: Make) -> None:
    truth, detections = make_found(9, classes=5)
    ours = average_precision(truth, detections)
    assert ours.mean("ap50", truth.novel) == pytest.approx(np.nanmean(ours.ap50[[1, 4]]))
    assert ours.mean("ap50", ~truth.novel) == pytest.approx(np.nanmean(ours.ap50[[0, 2, 3]]))


def test_agnostic_takes_all_classes_for_one(make_found: Make) -> None:
    truth, detections = make_found(10)
    ours = average_precision(truth, detections, agnostic=True)

    class OneClass:
        def __call__(self, index: int) -> object:
            return replace(truth.objects(index), labels=np.zeros_like(truth.objects(index).labels))

    single = replace(truth, categories=truth.categories[:1], read=OneClass())  # pyright: ignore
    run = peer(single, [replace(one, labels=np.zeros_like(one.labels)) for one in detections], "bbox")
    same(ours.ap50, run.eval["precision"][0, :, :, 0, -1].mean(0))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - both)


def lvis_by_hand(truth: Annotations, detections: Sequence[Found], threshold: float, label: int) -> float:
    """AP of one class by LVIS's rules, read plainly: sort all, match greedily in each picture, interpolate."""
    rows, num_objects = [], 0
    for picture, objects, one in zip(truth.pictures, truth, detections, strict=True):
        boxes = objects.boxes.astype(float)
        boxes = np.concatenate([objects.xywh[:, :2], objects.xywh[:, :2] + objects.xywh[:, 2:]], 1)
        mine = boxes[objects.labels == label]
        num_objects += len(mine)
        best = sorted(range(len(one)), key=lambda row: -one.scores[row])[:300]
        best = [row for row in best if one.labels[row] == label]
        if label not in objects.labels and label not in (picture.absent or ()):
            continue  # nobody said whether this class is in the picture
        taken: set[int] = set()
        for row in best:
            ious = [(iou(one.boxes[row], box), place) for place, box in enumerate(mine) if place not in taken]
            value, place = max(ious, default=(0.0, -1))
            if value >= threshold:
                taken.add(place)
                rows.append((one.scores[row], True))
            elif label not in picture.not_exhaustive:
                rows.append((one.scores[row], False))
    if not num_objects:
        return float("nan")
    rows.sort(key=lambda row: -row[0])
    hits = np.cumsum([hit for _, hit in rows]) if rows else np.zeros(0)
    points = [(hit / num_objects, hit / place) for place, hit in enumerate(hits, 1)]
    return float(np.mean([max([p for r, p in points if r >= level], default=0.0) for level in np.linspace(0, 1, 101)]))


@pytest.mark.parametrize("seed", range(3))
def test_lvis_rules(make_found: Make, with_pictures: Callable[..., Annotations], seed: int) -> None:
    truth, detections = make_found(seed, classes=6, crowds=False, frequency="rrccff", extra=40)
    rng = np.random.default_rng(seed)
    # scores all differ: the order of equal ones is the reader's choice
    detections = [
        replace(one, scores=rng.permutation(len(one)) / 997 + place / 1e5) for place, one in enumerate(detections)
    ]
    pictures = []
    for picture, objects in zip(truth.pictures, truth, strict=True):
        others = sorted(set(range(6)) - set(objects.labels.tolist()))
        absent = frozenset(label for label in others if rng.random() < 0.5)
        partial = frozenset(label for label in set(objects.labels.tolist()) if rng.random() < 0.4)
        pictures.append(replace(picture, absent=absent, not_exhaustive=partial))
    truth = with_pictures(truth, pictures)
    ours = average_precision(truth, detections)
    assert ours.per_image == 300
    expected = np.array(
        [[lvis_by_hand(truth, detections, level, label) for label in range(6)] for level in np.linspace(0.5, 0.95, 10)]
    )
    np.testing.assert_allclose(ours.ap, expected.mean(0), atol=1e-12)
    np.testing.assert_allclose(ours.ap50, expected[0], atol=1e-12)
    for letter, labels in (("r", [0, 1]), ("c", [2, 3]), ("f", [4, 5])):
        assert ours.by_frequency(letter) == pytest.approx(np.nanmean(expected.mean(0)[labels]), abs=1e-12)
    plain = average_precision(truth, detections, lvis=False)
    assert plain.mean() < ours.mean()  # what nobody annotated counts as wrong there


def test_lvis_counts_300_detections_of_all_classes(make_found: Make, with_pictures: Callable[..., Annotations]) -> None:
    truth, detections = make_found(1, classes=3, crowds=False, frequency="rcf", pictures=1)
    truth = with_pictures(truth, [replace(one, absent=frozenset(range(3))) for one in truth.pictures])
    flood = found(np.tile([[0.0, 0, 1, 1]], (300, 1)), np.full(300, 2.0), np.full(300, 0))
    both = [
        found(
            np.concatenate([flood.boxes, one.boxes]),
            np.concatenate([flood.scores, one.scores]),
            np.concatenate([flood.labels, one.labels]),
        )
        for one in detections
    ]
    assert average_precision(truth, detections).mean("ap50") > 0
    assert average_precision(truth, both).mean("ap50") == 0


def test_ten_thousand_boxes_and_boxes_of_one_pixel(make_found: Make) -> None:
    truth, _ = make_found(2, pictures=3)
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 119, (10_000, 2)).astype(float)
    many = found(np.concatenate([corner, corner + 1], 1), rng.random(10_000), rng.integers(0, 4, 10_000))
    flat = found([[5.0, 5, 5, 5]], [0.5], [0])
    assert_equal(truth, [many, flat, many], "bbox")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[0, 0, 1, 1]], [float("nan")], [0]), DataError, "scores: detection 0 is not finite: nan"),
        (([[0, 0, 1, float("inf")]], [0.5], [0]), DataError, "boxes: detection 0 is not finite"),
        (([[5, 0, 1, 1]], [0.5], [0]), DataError, "expected left, top, right, bottom; detection 0 is"),
        (([[0, 0, 1, 1]], [0.5, 0.5], [0]), ShapeError, r"boxes: expected shape \[2, 4\], got \[1, 4\]"),
        (([[0, 0, 1, 1]], [0.5], [0.5]), ShapeError, "labels: expected integers"),
        (([[0, 0, 1, 1]], [0.5], [-1]), DataError, "labels: expected 0 and more, got -1"),
        (([[0, 0, 1, 1]], [[0.5]], [0]), ShapeError, r"boxes: expected shape \['N', 4\]"),
        (([[0, 0, 1, 1]], [0.5], [0], []), ShapeError, "masks: expected 1, got 0"),
    ],
)
def test_bad_detections_are_refused(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        found(*arguments)


def test_what_does_not_fit_the_set_is_refused(make_found: Make) -> None:
    truth, detections = make_found(3)
    with pytest.raises(DataError, match="12 pictures, detections of 11"):
        average_precision(truth, detections[:-1])
    bad = [*detections[:-1], found([[0, 0, 1, 1]], [0.5], [4])]
    with pytest.raises(DataError, match=r"11\.png: label 4; made has 4 categories"):
        average_precision(truth, bad)
    with pytest.raises(DataError, match=r"0\.png: detections without masks"):
        average_precision(truth, detections, region="mask")
    with_masks = make_found(3, masks=True)[1]
    with pytest.raises(DataError, match=r"0\.png: made has objects without masks"):
        average_precision(truth, with_masks, region="mask")
    with pytest.raises(DataError, match="LVIS's rules need the frequency"):
        average_precision(truth, detections, lvis=True)
