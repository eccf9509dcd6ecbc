"""Pictures as an eye sees them: only those that their boxes fit."""

import json
from pathlib import Path

from PIL import Image

from eyesmith.data.annotations import open_annotations
from eyesmith.dense.rows import squares
from eyesmith.images import OPENAI_MEAN


def test_pictures_of_another_size_than_their_boxes_are_left_out(tmp_path: Path) -> None:
    for number, side in enumerate((40, 20), 1):
        Image.new("RGB", (side, 40)).save(tmp_path / f"{number}.png")
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 40, "height": 40} for n in (1, 2, 3)],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [],
    }
    (tmp_path / "set.json").write_text(json.dumps(content))
    data = open_annotations(tmp_path / "set.json")
    assert [places for places, _, _ in squares(data, range(3), 32, OPENAI_MEAN)] == [[0]]
