import csv
import json
import os
import pickle
import sys

import pytest

from eyesmith.data.sources import Source, open_source
from eyesmith.errors import DataError, MissingDependencyError

LONG = "word " * 2000 + "end"


@pytest.fixture
def images(tmp_path, picture):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").write_bytes(picture(number))
    return folder


def write_csv(path, rows, delimiter=","):
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(rows)
    return path


@pytest.mark.parametrize(("extension", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_csv(tmp_path, images, picture, extension, delimiter):
    captions = ['a "quoted", fox', "two\nlines", "a 🦊", LONG]
    rows = [["image", "caption", "licence"]] + [[f"images/{i}.png", captions[i], "CC0"] for i in range(4)]
    source = open_source(write_csv(tmp_path / f"pairs.{extension}", rows, delimiter))
    assert isinstance(source, Source)
    assert [source.texts(index) for index in range(4)] == [(caption,) for caption in captions]
    sample = source[2]
    assert (sample.key, sample.image, sample.meta) == ("images/2.png", picture(2), {"licence": "CC0"})
    assert source.labels is None
    assert source.classes is None
    assert pickle.loads(pickle.dumps(source))[3] == source[3]


def test_csv_with_byte_order_mark_and_nul(tmp_path, images):
    (tmp_path / "p.csv").write_bytes(b"\xef\xbb\xbfimage,caption\nimages/0.png,be\0fore\n")
    assert open_source(tmp_path / "p.csv").texts(0) == ("be\0fore",)


def test_wrong_column_names_those_there_and_the_closest(tmp_path, images):
    path = write_csv(tmp_path / "p.csv", [["image", "captions"], ["images/0.png", "x"]])
    with pytest.raises(DataError, match=r"no column 'caption'; it has: 'image', 'captions' - did you mean 'captions'"):
        open_source(path)
    assert open_source(path, text_column="captions").texts(0) == ("x",)
    (tmp_path / "p.jsonl").write_text('{"image": "images/0.png", "title": "x"}\n')
    with pytest.raises(DataError, match=r"no column 'caption'; it has: 'image', 'title'"):
        open_source(tmp_path / "p.jsonl")


def test_rows_of_one_image_and_several_columns_are_one_sample(tmp_path, images):
    rows = [
        ["image", "short", "long"],
        ["images/0.png", "a", "aa"],
        ["images/1.png", "b", ""],
        ["images/0.png", "c", "a"],
    ]
    source = open_source(write_csv(tmp_path / "p.csv", rows), text_column=["short", "long"])
    assert [source.texts(index) for index in range(len(source))] == [("a", "aa", "c"), ("b",)]
    assert source.problems == []


def test_labels(tmp_path, images):
    rows = [["image", "caption", "kind"], ["images/0.png", "x", "fox"], ["images/1.png", "y", "cat"]]
    rows += [["images/2.png", "z", " "], ["images/0.png", "w", "cat"]]
    source = open_source(write_csv(tmp_path / "p.csv", rows), label_column="kind")
    assert source.classes == ("cat", "fox")
    assert source.labels == [1, 0]
    assert [(problem.kind, problem.where) for problem in source.problems] == [
        ("bad_label", "line 4"),
        ("bad_label", "line 5"),
    ]


def test_unusable_rows_are_named_and_left_out(tmp_path, images):
    (tmp_path / "p.csv").write_bytes(
        b"image,caption\nimages/0.png,good\nimages/9.png,no such image\nimages/1.png,  \nimages/2.png,caf\xe9\n"
        b"images/3.png\n,no image\nhttp://x.org/a.png,far away\n\nimages/3.png,also good\n"
    )
    source = open_source(tmp_path / "p.csv")
    assert list(source.keys) == ["images/0.png", "images/3.png"]
    found = {problem.where: problem.kind for problem in source.problems}
    assert found == {
        "line 3": "missing_image",
        "line 4": "empty_caption",
        "line 5": "not_utf8",
        "line 6": "bad_row",
        "line 7": "bad_row",
        "line 8": "missing_image",
    }
    assert list(open_source(tmp_path / "p.csv", require_text=False).keys)[1] == "images/1.png"


def test_tables_without_a_usable_row(tmp_path):
    write_csv(tmp_path / "p.csv", [["image", "caption"], ["nowhere/1.png", "x"]])
    with pytest.raises(DataError, match=r"no usable sample; line 2: no such image: nowhere/1\.png"):
        open_source(tmp_path / "p.csv")
    write_csv(tmp_path / "p.csv", [["image", "caption"]])
    with pytest.raises(DataError, match="no rows"):
        open_source(tmp_path / "p.csv")
    for name in ("p.csv", "p.jsonl"):
        (tmp_path / name).write_text("")
        with pytest.raises(DataError, match=r"is empty|no rows"):
            open_source(tmp_path / name)


def test_paths_may_leave_the_folder_of_the_table(tmp_path, images, picture):
    (tmp_path / "tables").mkdir()
    rows = [["image", "caption"], ["../images/0.png", "up"], [str(images / "1.png"), "absolute"], ["bad\0name", "x"]]
    source = open_source(write_csv(tmp_path / "tables" / "p.csv", rows))
    assert [source.image_bytes(index) for index in range(2)] == [picture(0), picture(1)]
    assert [problem.kind for problem in source.problems] == ["missing_image"]


def test_jsonl(tmp_path, images):
    lines = [
        json.dumps({"image": "images/0.png", "caption": ["one", " ", "two", "one"], "split": "a"}),
        json.dumps({"image": "images/1.png", "caption": "be\0fore 🦊"}),
        "{broken",
        "[1]",
        json.dumps({"image": "images/2.png"}),
        json.dumps({"image": "images/2.png", "caption": 7}),
        "",
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(lines), encoding="utf-8")
    source = open_source(tmp_path / "p.jsonl")
    assert source.texts(0) == ("one", "two")
    assert source.texts(1) == ("be\0fore 🦊",)
    assert source[0].meta == {"split": "a"}
    assert {problem.where for problem in source.problems} == {"line 3", "line 4", "line 5", "line 6"}
    assert {problem.kind for problem in source.problems} == {"bad_row"}


def test_image_that_vanishes_later(tmp_path, images):
    source = open_source(write_csv(tmp_path / "p.csv", [["image", "caption"], ["images/0.png", "x"]]))
    (images / "0.png").unlink()
    with pytest.raises(DataError, match=r"0\.png: cannot read the image of line 2"):
        source[0]


def test_fingerprint(tmp_path, images):
    rows = [["image", "caption"], ["images/0.png", "x"], ["images/1.png", "y"]]
    before = open_source(write_csv(tmp_path / "p.csv", rows)).fingerprint()
    assert open_source(write_csv(tmp_path / "q.csv", rows)).fingerprint() == before
    rows[2][1] = "z"
    assert open_source(write_csv(tmp_path / "p.csv", rows)).fingerprint() != before


def test_parquet_of_paths_and_of_embedded_images(tmp_path, images, picture):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    paths = {"image": ["images/0.png", "images/1.png"], "caption": [["a", "b"], ["c"]], "n": [1, 2]}
    parquet.write_table(arrow.table(paths), tmp_path / "paths.parquet")
    source = open_source(tmp_path / "paths.parquet")
    assert source.texts(0) == ("a", "b")
    assert source[1].meta == {"n": 2}
    inside = [{"bytes": picture(0), "path": "x.png"}, {"bytes": picture(1), "path": None}]
    parquet.write_table(arrow.table({"image": inside, "caption": ["a", "b"]}), tmp_path / "inside.parquet")
    source = open_source(tmp_path / "inside.parquet")
    assert [source.image_bytes(index) for index in range(2)] == [picture(0), picture(1)]
    assert list(source.keys) == ["x.png", "row 2"]
    with pytest.raises(DataError, match="did you mean 'caption'"):
        open_source(tmp_path / "inside.parquet", text_column="captions")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "inside.parquet").read_bytes()[:-20])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        open_source(tmp_path / "cut.parquet")


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "p.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'eyesmith\[parquet\]'"):
        open_source(tmp_path / "p.parquet")


def test_different_pictures_of_one_name_stay_different(tmp_path, picture):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    inside = [{"bytes": picture(number), "path": "0.png"} for number in (0, 1, 0)]
    parquet.write_table(arrow.table({"image": inside, "caption": ["a", "b", "c"]}), tmp_path / "same.parquet")
    source = open_source(tmp_path / "same.parquet")
    assert [source.texts(index) for index in range(len(source))] == [("a", "c"), ("b",)]
    assert list(source.keys) == ["0.png", "0.png (row 2)"]
    assert source.image_bytes(1) == picture(1)


def test_windows_paths_and_names_that_are_no_utf8(tmp_path, images, picture):
    (images / os.fsdecode(b"caf\xe9.png")).write_bytes(picture(9))
    (tmp_path / "p.csv").write_bytes(b"image,caption\nimages\\0.png,a\nimages/caf\xe9.png,b\nimages\\9.png,c\n")
    source = open_source(tmp_path / "p.csv")
    assert list(source.keys) == ["images/0.png", "images/caf\\xe9.png"]
    assert source.image_bytes(1) == picture(9)
    assert [(one.kind, one.where) for one in source.problems] == [("missing_image", "line 4")]
    assert len(source.fingerprint()) == 64


def test_a_label_that_is_no_utf8_is_refused_by_its_row(tmp_path, images):
    (tmp_path / "p.csv").write_bytes(b"image,label\nimages/0.png,b\nimages/1.png,caf\xe9\n")
    with pytest.raises(DataError, match=r"p\.csv: line 3: label: caf\\xe9 is not UTF-8"):
        open_source(tmp_path / "p.csv", label_column="label", require_text=False)


def test_parquet_texts_that_are_bytes_and_labels_with_gaps(tmp_path, images):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {
        "image": [f"images/{number}.png" for number in range(4)],
        "caption": [b"one", "zw\u00f6lf".encode(), b"caf\xe9", b"four"],
        "label": [0.0, 1.0, 0.0, None],
    }
    parquet.write_table(arrow.table(columns), tmp_path / "p.parquet")
    source = open_source(tmp_path / "p.parquet", label_column="label")
    assert [source.texts(index)[0] for index in range(len(source))] == ["one", "zwölf"]
    assert (source.classes, source.labels) == (("0", "1"), [0, 1])
    assert {(one.kind, one.where) for one in source.problems} == {("not_utf8", "row 3"), ("bad_label", "row 4")}
    bad = arrow.Array.from_buffers(arrow.string(), 2, arrow.array([b"ok", b"\xe9"]).buffers())
    parquet.write_table(
        arrow.table({"image": ["images/0.png", "images/1.png"], "caption": bad}), tmp_path / "q.parquet"
    )
    assert [one.where for one in open_source(tmp_path / "q.parquet").problems] == ["row 2"]


def test_embedded_pictures_are_one_sample_where_name_and_bytes_are_equal(tmp_path, picture):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    numbers = [0, 1, 1, 0, 2]
    inside = [{"bytes": picture(number), "path": "0.png"} for number in numbers]
    parquet.write_table(arrow.table({"image": inside, "caption": list("abcde")}), tmp_path / "p.parquet")
    source = open_source(tmp_path / "p.parquet")
    assert [source.texts(index) for index in range(len(source))] == [("a", "d"), ("b", "c"), ("e",)]
    assert [source.image_bytes(index) for index in range(3)] == [picture(0), picture(1), picture(2)]
