import json
import tarfile

import pytest

from eyesmith.data.evaluation.convert import convert_rows, fetch_rows, read_parquet
from eyesmith.errors import DataError


def test_captions_become_lines(tmp_path, picture):
    rows = [
        {
            "image": {"bytes": picture(0, "JPEG"), "path": None},
            "caption": ["a fox", "a\nfox", "on\u2028two", "\x85"],
            "img_id": "0",
        },
        {"image": picture(1), "caption": ["one", "two", "three"]},
    ]
    found = convert_rows(rows, tmp_path / "set", "retrieval")
    assert (found.layout, len(found)) == ("retrieval", 2)
    assert (found.captions(0), found.captions(1)) == (
        ("a fox", "a\nfox", "on\u2028two", "\x85"),
        ("one", "two", "three"),
    )
    assert found.source.image_bytes(0) == picture(0, "JPEG")
    with tarfile.open(tmp_path / "set" / "test" / "0.tar") as tar:
        names = ["s0000000.jpg", "s0000000.txt", "s0000000.json", "s0000001.png", "s0000001.txt"]
        assert tar.getnames() == names


def _row(picture, cue, names, gold):
    pictures = [{"bytes": picture(ord(name), "JPEG")} for name in names]
    return {"cue": cue, "candidates": list(names), "candidate_images": pictures, "associations": gold}


def test_every_image_of_winogavil_is_stored_once(tmp_path, picture):
    rows = [_row(picture, "Egg", "abc", ["a", "c"]), _row(picture, "sea", "cdb", ["b"])]
    rows[1]["associations"] = "['b']"  # as tables made from CSV have it
    found = convert_rows(rows, tmp_path / "set", "winogavil")
    assert len(found) == 4
    assert [(one.cue, one.candidates, one.gold) for one in found.instances] == [
        ("Egg", (0, 1, 2), (True, False, True)),
        ("sea", (2, 3, 1), (False, False, True)),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"caption": "text"}, "row 1: caption: expected a list"),
        ({"caption": []}, "row 1: caption: expected a list"),
        ({"image": None}, "row 1: expected an encoded image"),
        ({"image": b"GIF89a"}, "image 1: neither JPEG"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_and_leaves_no_set(tmp_path, picture, change, message):
    rows = [{"image": picture(n), "caption": ["x"]} for n in range(2)]
    rows[1] |= change
    with pytest.raises(DataError, match=message):
        convert_rows(rows, tmp_path / "set", "retrieval")
    assert not (tmp_path / "set" / "test" / "nshards.txt").exists()


def test_two_pictures_of_one_name_are_refused(tmp_path, picture):
    rows = [_row(picture, "x", "ab", ["a"]), _row(picture, "y", "ab", ["a"])]
    rows[1]["candidate_images"][0] = {"bytes": picture(3) + b"more"}
    with pytest.raises(DataError, match="row 1: another picture than before has the name 'a'"):
        convert_rows(rows, tmp_path / "set", "winogavil")


def test_parquet_files_of_a_repository(tmp_path, picture, monkeypatch):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"image": {"bytes": picture(n), "path": f"{n}.png"}, "caption": [f"number {n}", "x"]} for n in range(5)]
    contents = {}
    for number, part in enumerate((rows[:3], rows[3:])):
        file = tmp_path / f"{number}.parquet"
        parquet.write_table(arrow.Table.from_pylist(part), file)
        contents[f"/files/{number}.parquet"] = file.read_bytes()
    assert [row["caption"][0] for row in read_parquet(sorted(tmp_path.glob("*.parquet")))][4] == "number 4"

    from eyesmith.data.evaluation import convert

    listing = {"TEST": {"test": list(contents)}}
    monkeypatch.setattr(convert, "get", lambda hub, url, limit: json.dumps(listing).encode())
    asked = []

    def fetch_file(hub, url, target, size, digest, on_bytes=None):
        asked.append(url)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(contents[url])
        return len(contents[url])

    monkeypatch.setattr(convert, "fetch_file", fetch_file)
    found = fetch_rows("owner/pairs", tmp_path / "set", "retrieval")
    assert [found.captions(index)[0] for index in range(5)] == [f"number {n}" for n in range(5)]
    assert not list((tmp_path / "set").glob(".*.parquet"))
    assert len(fetch_rows("owner/pairs", tmp_path / "set", "retrieval")) == 5
    assert len(asked) == 2  # nothing the second time


def test_a_damaged_parquet_file_is_named(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        list(read_parquet([tmp_path / "x.parquet"]))


@pytest.mark.parametrize("listing", ['{"a": {"test": "file:///etc/x"}}', '{"a": {"test": [1]}}', "[" * 100_000, "5"])
def test_a_listing_that_is_none_is_named(tmp_path, monkeypatch, listing):
    from eyesmith.data.evaluation import convert

    monkeypatch.setattr(convert, "get", lambda hub, url, limit: listing.encode())
    with pytest.raises(DataError, match="lists no Parquet files"):
        fetch_rows("owner/pairs", tmp_path / "set", "retrieval")


def test_a_list_of_absurd_depth_is_named(tmp_path, picture):
    rows = [{"image": picture(0), "caption": "[" * 100_000}]
    with pytest.raises(DataError, match="row 0: caption is no list"):
        convert_rows(rows, tmp_path / "set", "retrieval")
