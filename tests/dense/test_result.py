"""Results against small pictures drawn by hand."""

import sys
import types

import numpy as np
import pytest
import torch

from eyesmith.dense.result import ClassMap, FoundObjects
from eyesmith.errors import MissingDependencyError, ShapeError


def objects(count: int = 3) -> FoundObjects:
    masks = torch.zeros(count, 4, 6, dtype=torch.bool)
    for row in range(count):
        masks[row, row : row + 2, 1:4] = True
    return FoundObjects(
        boxes_px=torch.tensor([[1.0, row, 4, row + 2] for row in range(count)]).view(-1, 4),
        scores=torch.tensor([0.2, 0.9, 0.5])[:count],
        labels=torch.tensor([0, 1, 0])[:count],
        names=("cat", "dog"),
        size=(4, 6),
        masks=masks,
    )


def test_columns_stay_together() -> None:
    found = objects()
    assert len(found) == 3
    assert found.best(2).scores.tolist() == pytest.approx([0.9, 0.5])
    assert found.best(2).boxes_px[:, 1].tolist() == [1, 2]
    cats = found[found.labels == 0]
    assert cats.masks_px()[:, :, 2].tolist() == [[True, True, False, False], [False, False, True, True]]
    assert found.xyxy is found.boxes_px
    assert found.mask is found.masks
    assert (found.confidence is found.scores, found.class_id is found.labels) == (True, True)
    assert len(found[:0]) == 0
    transformers = found.to_hugging_face()
    assert set(transformers) == {"scores", "labels", "boxes", "masks"}


def test_supervision_gets_its_own_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    class Detections:
        def __init__(self, **columns: object) -> None:
            self.columns = columns

    module = types.ModuleType("supervision")
    module.Detections = Detections  # pyright: ignore
    monkeypatch.setitem(sys.modules, "supervision", module)
    columns = objects().to_supervision().columns
    assert columns["data"]["class_name"] == ["cat", "dog", "cat"]
    assert columns["xyxy"].shape == (3, 4)
    assert columns["mask"].dtype == np.bool_
    assert columns["confidence"].dtype == np.float32
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingDependencyError, match="pip install supervision"):
        objects().to_supervision()


def test_what_does_not_fit_is_refused() -> None:
    good = objects()
    for wrong, message in (
        ({"scores": torch.zeros(2)}, r"scores: expected \[3\]"),
        ({"masks": torch.zeros(3, 6, 4, dtype=torch.bool)}, r"masks: expected \[3, 4, 6\]"),
        ({"labels": torch.tensor([0, 1, 2])}, "places among 2 names"),
    ):
        columns = {name: getattr(good, name) for name in ("boxes_px", "scores", "labels", "names", "size", "masks")}
        with pytest.raises(ShapeError, match=message):
            FoundObjects(**{**columns, **wrong})
    with pytest.raises(ShapeError, match="boxes only"):
        FoundObjects(
            boxes_px=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0).long(), names=(), size=(1, 1)
        ).masks_px()


def test_regions_of_a_class_map_are_objects() -> None:
    labels = torch.tensor(
        [
            [0, 0, -1, 1, 1],
            [0, 0, -1, 1, 1],
            [-1, -1, -1, -1, -1],
            [1, 0, 0, -1, 0],
        ]
    )
    scores = torch.where(labels == 1, 0.9, 0.6)
    scores[3, 1:3] = 0.7
    found = ClassMap(labels=labels, scores=scores, names=("sky", "tree"))
    torch.testing.assert_close(found.fractions(), torch.tensor([7 / 20, 5 / 20]))
    regions = found.objects()
    assert regions.boxes_px.tolist() == [[3, 0, 5, 2], [0, 3, 1, 4], [1, 3, 3, 4], [0, 0, 2, 2], [4, 3, 5, 4]]
    assert regions.labels.tolist() == [1, 1, 0, 0, 0]
    assert regions.scores.tolist() == pytest.approx([0.9, 0.9, 0.7, 0.6, 0.6])
    assert regions.masks_px().sum((1, 2)).tolist() == [4, 1, 2, 4, 1]
    assert bool((regions.masks_px().any(0) == (labels != -1)).all())
    assert len(found.objects(min_px=2)) == 3
    assert len(found.objects(limit=1)) == 1
    empty = ClassMap(labels=torch.full((2, 2), -1), scores=torch.zeros(2, 2), names=("sky",))
    assert len(empty.objects()) == 0
    told = found.to_hugging_face()
    assert [one["label_id"] for one in told["segments_info"]] == [0, 1]
    assert told["segmentation"].unique().tolist() == [0, 1, 2]
    assert told["segments_info"][1]["score"] == pytest.approx(0.9)
