import hashlib
import shutil
from pathlib import Path

import pytest
from PIL import Image

from eyesmith.data.evaluation.imagenet import published_classes
from eyesmith.data.labelled import held_out, known_part, open_labelled
from eyesmith.data.sources import open_source
from eyesmith.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders of 10, 4 and 1 images."""
    for name, count in (("b_two", 10), ("a", 4), ("c", 1)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "set" / name / f"{number}.png")
    return tmp_path / "set"


def test_a_part_of_each_class_is_held_out_by_its_names_alone(folder: Path) -> None:
    sets = open_labelled(folder, val_frac=0.2)
    assert sets.classes == ("a", "b two", "c")
    val = sets.tests["val"]
    assert len(sets.train) + len(val) == 15
    assert not set(sets.train.keys) & set(val.keys)
    for name, count in (("b_two", 2), ("a", 1)):
        keys = [f"{name}/{number}.png" for number in range({"b_two": 10, "a": 4}[name])]
        wanted = sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest())[:count]
        assert {key for key in val.keys if key.startswith(f"{name}/")} == set(wanted)
    assert [sets.classes[label] for label in val.labels or []] == [
        key.split("/")[0].replace("_", " ") for key in val.keys
    ]
    assert "one image only" in sets.notes[0]
    assert "c" in sets.notes[0]


def test_the_rule_depends_on_neither_order_nor_place(folder: Path, tmp_path: Path) -> None:
    keys, labels = [f"{n}.jpg" for n in range(20)], [n % 2 for n in range(20)]
    one = {keys[place] for place in held_out(keys, labels, 0.3)}
    other = {keys[::-1][place] for place in held_out(keys[::-1], labels[::-1], 0.3)}
    assert one == other
    assert len(one) == 6
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert open_labelled(tmp_path / "elsewhere").train.keys == open_labelled(folder).train.keys


def test_no_share_holds_nothing_out_and_a_class_is_never_emptied(folder: Path) -> None:
    assert not open_labelled(folder, val_frac=0.0).tests
    assert set(open_labelled(folder, val_frac=0.99).train.labels or []) == {0, 1, 2}


def test_train_and_val_folders_are_taken_as_they_are(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "split"
    shutil.copytree(folder, place / "train")
    shutil.copytree(folder, place / "val")
    shutil.rmtree(place / "val" / "a")
    (place / "val" / "new").mkdir()
    Image.new("RGB", (8, 8)).save(place / "val" / "new" / "0.png")
    sets = open_labelled(place)
    assert len(sets.train) == 15
    val = sets.tests["val"]
    assert len(val) == 11
    assert {sets.classes[label] for label in val.labels or []} == {"b two", "c"}  # by name: "b two" is 0 there, 1 here
    assert "1 images of 1 classes" in sets.notes[0]
    assert "new" in sets.notes[0]


def test_a_table_with_labels_is_cut_too(folder: Path) -> None:
    lines = [f"{name}/{n}.png,{name}" for name in ("b_two", "a") for n in range(4)]
    (folder / "t.csv").write_text("\n".join(["image,label", *lines]))
    sets = open_labelled(folder / "t.csv", val_frac=0.25)
    assert sets.classes == ("a", "b_two")
    assert (len(sets.train), len(sets.tests["val"])) == (6, 2)


def test_a_part_reads_its_own_images(folder: Path) -> None:
    sets = open_labelled(folder)
    for index, key in enumerate(sets.train.keys):
        assert sets.train.image_bytes(index) == (folder / key).read_bytes()
        assert sets.train.where(index) == key
    assert sets.train.fingerprint() != open_labelled(folder, val_frac=0.4).train.fingerprint()


def test_what_cannot_be_trained_on_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no splits"):
        open_labelled(folder, split="train")
    with pytest.raises(ConfigError, match="val_frac"):
        open_labelled(folder, val_frac=1.0)
    (tmp_path / "one" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "one" / "cat" / "0.png")
    with pytest.raises(DataError, match="only one class"):
        open_labelled(tmp_path / "one")
    Image.new("RGB", (8, 8)).save(tmp_path / "loose.png")
    shutil.rmtree(tmp_path / "one")
    shutil.rmtree(folder)
    with pytest.raises(DataError, match="no labels"):
        open_labelled(tmp_path)


def test_folders_of_wordnet_ids_are_a_published_classifier_s_classes(tmp_path: Path) -> None:
    for name in ("n15075141", "n01440764", "n99999999"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    source = open_source(tmp_path, require_text=False)
    notes: list[str] = []
    part = known_part(source, published_classes(1000), notes)
    assert part is not None
    assert (part.labels, len(part)) == ([0, 999], 2)  # tench and toilet paper
    assert "n99999999" in notes[0]
    assert known_part(source, ("tench", "toilet paper"), []) is None
