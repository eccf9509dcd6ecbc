"""Files of results, opened by those who read such files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eyesmith.data.annotations import open_annotations
from eyesmith.dense.result import ClassMap, FoundObjects
from eyesmith.dense.write import FoundIn, coco_results, distinct_stems, write_coco, write_png_masks, write_png_objects
from eyesmith.errors import DataError


def found(names: tuple[str, ...] = ("cat", "dog"), *, with_masks: bool = True) -> FoundObjects:
    masks = torch.zeros(2, 8, 10, dtype=torch.bool)
    masks[0, 1:4, 2:7] = True
    masks[0, 2, 3] = False  # a hole
    masks[1, 5:8, 0:2] = True
    return FoundObjects(
        boxes_px=torch.tensor([[2.0, 1, 7, 4], [0.5, 5.25, 2, 8]]),
        scores=torch.tensor([0.75, 0.5]),
        labels=torch.tensor([1, 0]),
        names=names,
        size=(8, 10),
        masks=masks if with_masks else None,
    )


def test_coco_json_is_read_back_with_boxes_masks_and_scores(tmp_path: Path) -> None:
    empty = found()[:0]
    path = tmp_path / "found.json"
    write_coco(path, [FoundIn("a.png", found()), FoundIn("b.png", empty)])
    content = json.loads(path.read_text())
    assert [one["score"] for one in content["annotations"]] == [0.75, 0.5]
    Image.new("RGB", (10, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (10, 8)).save(tmp_path / "b.png")
    read = open_annotations(path)
    assert read.names == ("cat", "dog")
    objects, nothing = list(read)
    assert objects.labels.tolist() == [1, 0]
    assert objects.xywh.tolist() == [[2, 1, 5, 3], [0.5, 5.25, 1.5, 2.75]]
    assert np.array_equal(objects.masks, found().masks_px().numpy())
    assert objects.area.tolist() == [14, 6]
    assert len(nothing) == 0


def test_cocos_scorer_takes_the_results(tmp_path: Path) -> None:
    truth = {
        "images": [{"id": 1, "width": 10, "height": 8, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 2, "bbox": [2, 1, 5, 3], "area": 15, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [0.5, 5.25, 1.5, 2.75], "area": 4, "iscrowd": 0},
        ],
    }
    faster = pytest.importorskip("faster_coco_eval")
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    results = coco_results([FoundIn("a.png", found())])
    assert set(results[0]) == {"image_id", "category_id", "bbox", "score", "segmentation"}
    assert "segmentation" not in coco_results([FoundIn("a.png", found(with_masks=False))])[0]
    coco = faster.COCO(str(tmp_path / "truth.json"))
    scorer = faster.COCOeval_faster(coco, coco.loadRes(results), "bbox")
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()
    assert scorer.stats[0] == pytest.approx(1.0)


def test_masks_as_png(tmp_path: Path) -> None:
    labels = torch.tensor([[0, 1, -1], [2, 2, 0]])
    write_png_masks(tmp_path / "a.png", ClassMap(labels=labels, scores=torch.ones(2, 3), names=("a", "b", "c")))
    image = Image.open(tmp_path / "a.png")
    assert np.asarray(image).tolist() == [[0, 1, 255], [2, 2, 0]]
    assert image.mode == "P"
    assert image.convert("RGB").getpixel((2, 0)) == (255, 255, 255)
    paths = write_png_objects(tmp_path, "scene", found(("a cat", "dog/puppy")))
    assert [path.name for path in paths] == ["scene-001-dog_puppy.png", "scene-002-a_cat.png"]
    assert np.array_equal(np.asarray(Image.open(paths[0])) > 0, found().masks_px()[0].numpy())
    assert write_png_objects(tmp_path, "scene", found(with_masks=False)) == []


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="different classes"):
        write_coco(tmp_path / "a.json", [FoundIn("a.png", found()), FoundIn("b.png", found(("cat", "cow")))])
    many = ClassMap(labels=torch.zeros(1, 1).long(), scores=torch.ones(1, 1), names=tuple(map(str, range(256))))
    with pytest.raises(DataError, match="256 classes, a PNG"):
        write_png_masks(tmp_path / "a.png", many)


def test_results_of_files_with_equal_names_are_numbered() -> None:
    assert distinct_stems(["a/x.png", "b/x.jpg", "x-2.png", "y"]) == ["x", "x-2", "x-2-2", "y"]
