import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyesmith.data.evaluation import open_evaluation_set
from eyesmith.data.make import make_miniatures
from eyesmith.errors import ConfigError
from eyesmith.eval.sets import TASKS


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    return make_miniatures(tmp_path_factory.mktemp("sets"))


def test_there_is_one_of_every_task(made):
    shared = {task.key for task in TASKS.values() if task.key.endswith("-official")}  # they read another task's folder
    assert set(made) == set(TASKS) - shared
    assert {key: folder.name for key, folder in made.items()} == {key: TASKS[key].folder for key in made}


def test_all_open_with_the_layout_and_columns_of_their_task(made):
    for key, folder in made.items():
        task = TASKS[key]
        found = open_evaluation_set(folder)
        assert found.layout == task.layout, key
        assert not found.problems, key
        if found.metadata is not None:
            assert found.metadata.shape == (len(found), len(task.metadata)), key
        if task.metadata and task.metadata[-1] == "y":
            assert found.metadata[:, -1].tolist() == found.labels.tolist(), key
        if found.labels is not None:
            assert set(found.labels.tolist()) == set(range(len(found.classes))), key


def test_members_are_those_of_the_hub(made):
    with tarfile.open(made["wilds/fmow"] / "test" / "1.tar") as tar:
        names = tar.getnames()
        assert names[:3] == ["s0000016.jpg", "s0000016.cls", "s0000016.npy"]
        row = np.load(io.BytesIO(tar.extractfile(names[2]).read()))
        assert (row.shape, row.dtype) == ((3,), np.int64)
        assert tar.extractfile(names[1]).read() == str(row[2]).encode()
    assert (made["wilds/fmow"] / "test" / "nshards.txt").read_text() == "3\n"
    with tarfile.open(made["vtab/dtd"] / "test" / "0.tar") as tar:
        assert tar.extractfile("s0000000.webp").read()[:4] == b"RIFF"
    assert (made["voc2007_multilabel"] / "dataset_type.txt").read_text() == "multilabel\n"
    assert not (made["fairness/fairface"] / "dataset_type.txt").exists()


def test_the_traps_of_the_real_sets_are_there(made):
    distance = open_evaluation_set(made["vtab/clevr_closest_object_distance"])
    assert distance.classes[3] == ""
    names = open_evaluation_set(made["imagenet1k"]).classes
    assert len(names) - len(set(names)) == 2
    regions = open_evaluation_set(made["wilds/fmow"]).metadata[:, 0]
    assert np.bincount(regions.astype(int)).tolist()[5] == 1  # the region of four images is as rare
    flickr = open_evaluation_set(made["retrieval/flickr_1k_test_image_text_retrieval"])
    assert {len(flickr.captions(index)) for index in range(len(flickr))} == {5, 6, 7}
    counts = {len(one.candidates) for one in open_evaluation_set(made["misc/winogavil"]).instances}
    assert counts == {5, 6, 10, 12}


def test_pictures_are_small_and_differ(made):
    found = open_evaluation_set(made["imagenet1k"])
    contents = [found.source.image_bytes(index) for index in range(len(found))]
    assert len(set(contents)) == len(contents)
    assert max(map(len, contents)) < 8_000
    sizes = {Image.open(io.BytesIO(content)).size for content in contents}
    assert sizes == {(96, 72), (72, 96)}


def test_equal_arguments_give_equal_bytes(tmp_path):
    keys = ["wilds/iwildcam", "misc/winogavil", "video/ucf101"]

    def digest(place: Path, seed: int) -> dict[str, str]:
        make_miniatures(place, keys, seed=seed)
        files = sorted(file for file in place.rglob("*") if file.is_file())
        return {str(file.relative_to(place)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    first = digest(tmp_path / "a", 0)
    assert digest(tmp_path / "b", 0) == first
    assert digest(tmp_path / "c", 1) != first


def test_an_unknown_key_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="did you mean vtab/dtd"):
        make_miniatures(tmp_path, ["vtab/dtdd"])
    assert not any(tmp_path.iterdir())


def test_instances_are_json_lines(made):
    lines = (made["misc/winogavil"] / "test" / "instances.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert all(set(row["associations"]) < set(row["candidates"]) for row in rows)
