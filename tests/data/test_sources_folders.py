import os

import pytest

from eyesmith.data.sources import Source, open_source
from eyesmith.errors import DataError


@pytest.fixture
def classes(tmp_path, picture):
    folder = tmp_path / "animals"
    for number, name in enumerate(["red_fox/b.png", "red_fox/a.PNG", "cat/deep/c.png", "cat/.hidden.png"]):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))
    return folder


def test_class_folders(classes, picture):
    source = open_source(classes)
    assert isinstance(source, Source)
    assert list(source.keys) == ["cat/deep/c.png", "red_fox/a.PNG", "red_fox/b.png"]
    assert source.classes == ("cat", "red fox")
    assert source.labels == [0, 1, 1]
    assert source.texts(1) == ("red fox",)
    assert source[2].image == picture(0)
    assert source[2].meta == {"label": "red fox"}


def test_class_names_from_a_file(classes):
    (classes / "classnames.txt").write_text("a house cat\na fox\n")
    source = open_source(classes)
    assert source.classes == ("a house cat", "a fox")
    assert source.texts(0) == ("a house cat",)
    (classes / "classnames.txt").write_text("only one\n")
    with pytest.raises(DataError, match="1 names for 2 class folders"):
        open_source(classes)


def test_split_of_class_folders(tmp_path, classes):
    (tmp_path / "set").mkdir()
    classes.rename(tmp_path / "set" / "train")
    (tmp_path / "set" / "classnames.txt").write_text("cats\nfoxes\n")
    assert open_source(tmp_path / "set", split="train").classes == ("cats", "foxes")
    with pytest.raises(DataError, match=r"no split 'test'; it has: train"):
        open_source(tmp_path / "set", split="test")


def test_images_with_captions(tmp_path, picture):
    for number, name in enumerate(["b", "a", "sub/c"]):
        file = tmp_path / f"{name}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(picture(number))
        (tmp_path / f"{name}.txt").write_text(f"picture {name}\nanother line\n", encoding="utf-8")
    (tmp_path / "blank.png").write_bytes(picture(7))
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "bare.png").write_bytes(picture(8))
    (tmp_path / "lonely.txt").write_text("no image")
    (tmp_path / "latin.jpg").write_bytes(picture(9, form="jpeg"))
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    source = open_source(tmp_path)
    assert list(source.keys) == ["a.png", "b.png", "latin.jpg", "sub/c.png"]
    assert source.texts(3) == ("picture sub/c", "another line")
    assert source.labels is None
    found = {(problem.kind, problem.key) for problem in source.problems}
    assert found == {
        ("missing_member", "bare.png"),
        ("missing_member", "lonely"),
        ("empty_caption", "blank.png"),
        ("not_utf8", "latin.jpg"),
    }
    assert len(open_source(tmp_path, require_text=False)) == 6


def test_two_images_that_share_a_caption(tmp_path, picture):
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).write_bytes(picture(1))
    (tmp_path / "a.txt").write_text("one caption")
    source = open_source(tmp_path)
    assert len(source) == 2
    assert [(problem.kind, problem.severity) for problem in source.problems] == [("duplicate_key", "warning")]


def test_images_without_any_text(tmp_path, picture):
    (tmp_path / "a.png").write_bytes(picture(1))
    with pytest.raises(DataError, match="1 images without text"):
        open_source(tmp_path)
    (tmp_path / "pairs.csv").write_text("image,caption\na.png,x\n")
    with pytest.raises(DataError, match=r"to use its table, give .*pairs\.csv"):
        open_source(tmp_path)
    assert open_source(tmp_path, require_text=False).texts(0) == ()


def test_folder_without_images(tmp_path):
    (tmp_path / "notes.md").touch()
    with pytest.raises(DataError, match=r"no images .* and no \.tar"):
        open_source(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
@pytest.mark.parametrize("what", ["pipe", "device", "nothing"])
def test_what_is_no_file_is_not_waited_for(tmp_path, what):
    folder = tmp_path / "set"
    for name in ("a/0.png", "a/1.png", "b/0.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"7")
    (folder / "a" / "1.png").unlink()
    if what == "pipe":
        os.mkfifo(folder / "a" / "1.png")
    else:
        (folder / "a" / "1.png").symlink_to("/dev/zero" if what == "device" else folder / "gone")
    (tmp_path / "t.csv").write_text(f"image,caption\n{folder / 'b/0.png'},x\n{folder / 'a/1.png'},y\n")
    for source in (open_source(folder), *([open_source(tmp_path / "t.csv")] if what != "nothing" else [])):
        assert source.image_bytes(0) == b"7"
        with pytest.raises(DataError, match=r"1\.png: cannot read the image"):
            source.image_bytes(1)
    for stem in "ab":
        (folder / stem / "0.txt").write_text("caption")
    if what == "pipe":
        os.mkfifo(folder / "a" / "1.txt")
    else:
        (folder / "a" / "1.txt").symlink_to("/dev/zero")
    assert len(open_source(folder)) == 2
