import json
from pathlib import Path

import pytest

KEYS = ("vtab/dtd", "wilds/fmow")


@pytest.fixture
def sets(eyesmith, tmp_path: Path) -> Path:
    status, out, err = eyesmith("data", "make", "evaluation", tmp_path / "sets", *KEYS)
    assert status == 0, err
    assert all(key in out for key in KEYS)
    return tmp_path / "sets"


def test_check_takes_one_set_or_a_folder_of_them(eyesmith, sets: Path) -> None:
    status, out, _ = eyesmith("data", "check", sets)
    assert status == 1  # miniatures are smaller than the sets of these names
    assert "16 images are usable, the task has 1,880" in out
    assert "2 sets, 56 usable samples" in out
    status, out, _ = eyesmith("data", "check", sets / "wds_vtab-dtd_test", "--json")
    found = json.loads(out)["wds_vtab-dtd_test"]
    assert {one["kind"] for one in found["findings"]} == {"wrong_size", "wrong_classes"}
    (sets / "wds_vtab-dtd_test").rename(sets / "own")
    assert eyesmith("data", "check", sets / "own")[0] == 0


def test_check_says_what_is_wrong_with_own_class_folders(eyesmith, tmp_path: Path, photos: Path) -> None:
    (tmp_path / "set" / "cat").mkdir(parents=True)
    picture = next(file for file in sorted(photos.rglob("*")) if file.suffix in (".png", ".jpg"))
    (tmp_path / "set" / "cat" / picture.name).write_bytes(picture.read_bytes())
    status, _, err = eyesmith("data", "check", tmp_path / "set", "--evaluation")
    assert status == 2
    assert "only one class, 'cat'" in err


def test_a_set_that_cannot_be_opened_does_not_hide_the_others(eyesmith, sets: Path) -> None:
    (sets / "wds_vtab-dtd_test" / "test" / "nshards.txt").unlink()
    status, out, _ = eyesmith("data", "check", sets, "--json")
    assert status == 1
    findings = json.loads(out)["wds_vtab-dtd_test"]["findings"]
    assert [one["kind"] for one in findings] == ["unusable"]
    assert "nshards.txt: not there" in findings[0]["detail"]
    status, _, err = eyesmith("data", "check", sets / "wds_vtab-dtd_test")
    assert status == 2
    assert "nshards.txt: not there" in err


def test_fetch_names_the_closest_and_what_is_to_be_done_by_hand(eyesmith, tmp_path: Path) -> None:
    status, _, err = eyesmith("data", "fetch", "datacmp", "--to", tmp_path)
    assert status == 2
    assert "'datacmp' is neither a task nor a suite; did you mean datacomp" in err
    status, out, err = eyesmith("data", "fetch", "video", "--to", tmp_path)
    assert status == 1
    assert "by hand" in out
    assert "videos in class folders" in err
    assert eyesmith("data", "fetch", "--to", tmp_path)[0] == 2


def test_an_unknown_miniature_is_refused(eyesmith, tmp_path: Path) -> None:
    status, _, err = eyesmith("data", "make", "evaluation", tmp_path / "sets", "vtab/dtdd")
    assert status == 2
    assert "did you mean vtab/dtd" in err
