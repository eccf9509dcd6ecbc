from pathlib import Path

import numpy as np
from PIL import Image

from eyesmith.data.evaluation import open_evaluation_set
from eyesmith.data.make import make_miniatures
from eyesmith.eval.sets import TASKS
from eyesmith.eval.sets.part import part_of


def test_a_part_of_a_sorted_set_has_all_of_its_classes(tmp_path: Path) -> None:
    for name, count in (("cat", 12), ("dog", 6), ("owl", 6)):
        for number in range(count):
            file = tmp_path / name / f"{number:02}.png"
            file.parent.mkdir(exist_ok=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(file)
    found = open_evaluation_set(tmp_path)
    part = part_of(found, 8)
    assert part.labels is not None
    assert np.bincount(part.labels).tolist() == [4, 2, 2]
    assert part.source.labels == part.labels.tolist()
    assert part.source.keys == sorted(part.source.keys)
    assert part.source.image_bytes(3) == found.source.image_bytes(found.source.keys.index(part.source.keys[3]))
    assert part.source.fingerprint() not in (found.source.fingerprint(), part_of(found, 7).source.fingerprint())
    assert len(part_of(found, 100)) == 24


def test_instances_take_along_the_images_they_need(tmp_path: Path) -> None:
    make_miniatures(tmp_path, ["misc/winogavil"])
    found = open_evaluation_set(tmp_path / TASKS["misc/winogavil"].folder, layout="winogavil")
    part = part_of(found, 2)
    assert len(part.instances) == 2
    for one in part.instances:
        whole = next(other for other in found.instances if (other.cue, other.gold) == (one.cue, one.gold))
        keys = [found.source.keys[index] for index in whole.candidates]
        assert [part.source.keys[index] for index in one.candidates] == keys
