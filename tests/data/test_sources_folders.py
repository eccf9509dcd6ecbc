import os
from pathlib import Path

import pytest
from PIL import Image

from eyesmith.data.class_folders import open_image_folder
from eyesmith.data.evaluation import open_evaluation_set
from eyesmith.data.labelled import open_labelled
from eyesmith.data.sources import Source, open_source
from eyesmith.errors import DataError
from eyesmith.images import collect_images
from eyesmith.images.collect import IMAGE_EXTENSIONS


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


def test_a_model_given_as_data_is_called_one(tmp_path):
    for name in ("config.json", "model.safetensors", "log.jsonl"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="is a model .* data are expected"):
        open_source(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
@pytest.mark.parametrize("what", ["pipe", "device"])
def test_what_is_no_file_is_not_waited_for(tmp_path, what):
    folder = tmp_path / "set"
    for name in ("a/0.png", "a/1.png", "b/0.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"7")
    (folder / "a" / "1.png").unlink()
    if what == "pipe":
        os.mkfifo(folder / "a" / "1.png")
    else:
        (folder / "a" / "1.png").symlink_to("/dev/zero")
    (tmp_path / "t.csv").write_text(f"image,caption\n{folder / 'b/0.png'},x\n{folder / 'a/1.png'},y\n")
    for source in (open_source(folder), open_source(tmp_path / "t.csv")):
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


def _picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 6), "red").save(path)
    return path


def test_a_linked_class_folder_is_a_class_and_a_loop_ends(tmp_path: Path) -> None:
    _picture(tmp_path / "photos" / "cat" / "1.png")
    _picture(tmp_path / "elsewhere" / "2.png")
    (tmp_path / "photos" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "cat" / "again").symlink_to(tmp_path / "photos")
    found = open_image_folder(tmp_path / "photos", require_text=False)
    assert (found.classes, found.keys) == (("cat", "dog"), ["cat/1.png", "dog/2.png"])
    (problem,) = found.problems
    assert (problem.kind, problem.severity, problem.where) == ("duplicate_folder", "warning", "cat/again/")


def test_a_link_whose_target_is_gone_is_named(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        _picture(tmp_path / name / "1.png")
    (tmp_path / "dog" / "2.png").symlink_to(tmp_path / "nothing.png")
    (problem,) = open_image_folder(tmp_path, require_text=False).problems
    assert (problem.kind, problem.severity, problem.key) == ("missing_image", "error", "dog/2.png")


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cat", "dog"):
        _picture(tmp_path / name / "1.png")
    scan = os.scandir

    def refuse(path: str) -> object:  # the tests may run as root, whom no mode stops
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="dog: this folder cannot be read"):
        open_image_folder(tmp_path, require_text=False)


def test_names_may_start_with_a_byte_order_mark(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        _picture(tmp_path / name / "1.png")
    (tmp_path / "classnames.txt").write_bytes("\ufefftabby\nhound\n".encode())
    assert open_image_folder(tmp_path, require_text=False).classes == ("tabby", "hound")


@pytest.mark.parametrize("extension", IMAGE_EXTENSIONS)
def test_every_name_of_an_image_counts_everywhere(tmp_path: Path, extension: str) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"1.{extension.upper()}").write_bytes(_picture(tmp_path / "a.png").read_bytes())
    (tmp_path / "a.png").unlink()
    assert len(open_image_folder(tmp_path, require_text=False)) == len(collect_images(tmp_path)) == 2


@pytest.mark.parametrize("name", ["captions.csv", "images/captions.tsv", "metadata.jsonl", "../beside.csv"])
def test_folders_whose_images_a_table_names_are_no_classes(tmp_path, picture, name):
    folder = tmp_path / "set"
    for inside in ("images", "others"):
        (folder / inside).mkdir(parents=True)
        (folder / inside / "0.png").write_bytes(picture(len(inside)))
    table = folder / name
    image = "set/images/0.png" if ".." in name else "images/0.png"
    if name.endswith("jsonl"):
        table.write_text(f'{{"file": "{image}", "caption": "thing"}}\n')
    else:
        table.write_text("image\tcaption\n".replace("\t", "," if ".csv" in name else "\t") + f"{image},thing\n")
        if name.endswith("tsv"):
            table.write_text(f"image\tcaption\n{image}\tthing\n")
    for require_text in (True, False):
        with pytest.raises(DataError, match=Path(name).name):
            open_source(folder, require_text=require_text)
    table.write_text("index,name\n0,cat\n1,dog\n" if name.endswith("csv") else '{"index": 0}\n')
    assert open_source(folder).classes == ("images", "others")  # a table of something else


def test_one_folder_of_images_gives_no_captions(tmp_path, picture):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes(picture(0))
    with pytest.raises(DataError, match="the one folder images, whose name would be the caption of each"):
        open_source(tmp_path)
    assert len(open_source(tmp_path, require_text=False)) == 1


def test_a_folder_with_metadata_is_read_by_it(tmp_path, picture):
    for split in ("train", "validation"):
        (tmp_path / split).mkdir()
        for number in range(2):
            (tmp_path / split / f"{number}.png").write_bytes(picture(number))
        (tmp_path / split / "metadata.csv").write_text("file_name,text\n0.png,a fox\n1.png,a hound\n")
    assert [open_source(tmp_path, split="train").texts(index) for index in range(2)] == [("a fox",), ("a hound",)]
    assert open_source(tmp_path / "validation").texts(0) == ("a fox",)
    with pytest.raises(DataError, match="the folders train, validation are splits"):
        open_source(tmp_path)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "train/1.png", "caption": "one", "kind": "x"}\n')
    whole = open_source(tmp_path, label_column="kind")
    assert (list(whole.keys), whole.texts(0), whole.classes) == (["train/1.png"], ("one",), ("x",))


@pytest.mark.parametrize("splits", [("train", "val"), ("Train", "Test"), ("train2017", "val2017"), ("fold1", "fold2")])
@pytest.mark.parametrize("inside", ["cat/", ""])
def test_splits_one_level_down_are_no_classes(tmp_path, picture, splits, inside):
    for split in splits:
        (tmp_path / split / inside).mkdir(parents=True)
        (tmp_path / split / inside / "0.png").write_bytes(picture(0))
    for require_text in (True, False):
        with pytest.raises(DataError, match="are splits.*give one of them"):
            open_source(tmp_path, require_text=require_text)
    with pytest.raises(DataError, match="are splits"):
        open_evaluation_set(tmp_path, split="none")


def test_a_class_may_be_called_as_a_split_is(tmp_path, picture):
    for name in ("bus", "train"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(picture(0))
    assert open_source(tmp_path).classes == ("bus", "train")


def test_names_that_are_no_utf8(tmp_path, picture):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number, file in enumerate((b"caf\xe9.png", b"caf\xe8.PNG", b"x.png")):
            (tmp_path / name / os.fsdecode(file)).write_bytes(picture(number, seed=len(name)))
    source = open_source(tmp_path)
    assert list(source.keys)[:3] == ["a/caf\\xe8.PNG", "a/caf\\xe9.png", "a/x.png"]
    assert source.image_bytes(1) == picture(0, seed=1)
    assert len(source.fingerprint()) == 64
    sets = open_labelled(tmp_path, val_frac=0.3)
    assert len(sets.train) == 4
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    (tmp_path / os.fsdecode(b"caf\xe9") / "0.png").write_bytes(picture(0))
    with pytest.raises(DataError, match=r"class folder caf\\xe9 is not UTF-8"):
        open_source(tmp_path)


def test_names_of_classes_that_are_numbers_go_by_value(tmp_path, picture):
    for number in range(11):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "0.png").write_bytes(picture(number))
    (tmp_path / "classnames.txt").write_bytes(b"\xef\xbb\xbf" + "".join(f"n{i}\r\n" for i in range(11)).encode())
    source = open_source(tmp_path)
    assert {key: source.texts(index)[0] for index, key in enumerate(source.keys)} == {
        f"{number}/0.png": f"n{number}" for number in range(11)
    }
    assert [source.classes[label] for label in source.labels] == [
        source.texts(index)[0] for index in range(len(source))
    ]
    (tmp_path / "classnames.txt").write_bytes(b"caf\xe9\n" * 11)
    with pytest.raises(DataError, match=r"classnames\.txt: line 1: byte 3 is not UTF-8"):
        open_source(tmp_path)


def test_files_of_unknown_kinds_are_named(classes, picture):
    for name in ("cat/a.heic", "cat/b.heic", "red_fox/c.jxl", "cat/readme.txt", "cat/Thumbs.db"):
        (classes / name).write_bytes(picture(0))
    found = [(one.kind, one.severity, one.where) for one in open_source(classes).problems]
    assert found == [("unknown_extension", "warning", "cat/a.heic"), ("unknown_extension", "warning", "red_fox/c.jxl")]
