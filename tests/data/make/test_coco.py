"""COCO json of made scenes, read by pycocotools."""

import contextlib
import io
import json

import numpy as np
import pytest

from eyesmith.data.make.coco import CocoScene, categories, write_coco
from eyesmith.data.make.shapes import mask_to_box, mask_to_rle


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, of its own arrays
def test_pycocotools_reads_the_same_masks(tmp_path):
    mask_tools = pytest.importorskip("pycocotools.mask")
    coco_tools = pytest.importorskip("pycocotools.coco")
    rng = np.random.default_rng(0)
    masks = [rng.random((12, 12)) < 0.3, np.eye(12, dtype=bool)]
    objects = [{"cls": cls, "box_px": mask_to_box(m), "mask_rle": mask_to_rle(m)} for cls, m in enumerate(masks)]
    scene = CocoScene(number=3, file_name="a.jpg", size_px=12, objects=objects)
    write_coco(
        tmp_path,
        "test",
        name="toy",
        categories=categories(["cat", "dog"], ["mammal", "mammal"], ["dog"]),
        images=[json.dumps(scene.image())],
        annotations=[json.dumps(one) for one in scene.annotations()],
        licences=["CC0-1.0"],
    )
    with contextlib.redirect_stdout(io.StringIO()):
        read = coco_tools.COCO(str(tmp_path / "annotations" / "test.json"))
    assert [one["split"] for one in read.loadCats(read.getCatIds())] == ["base", "novel"]
    annotations = read.loadAnns(read.getAnnIds(imgIds=[4]))
    assert [one["category_id"] for one in annotations] == [1, 2]
    for one, mask in zip(annotations, masks, strict=True):
        np.testing.assert_array_equal(read.annToMask(one).astype(bool), mask)
        assert one["area"] == mask.sum()
        box = mask_tools.toBbox(mask_tools.encode(np.asfortranarray(mask.astype(np.uint8))))
        assert one["bbox"] == box.tolist()
