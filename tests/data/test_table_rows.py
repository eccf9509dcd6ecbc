import csv
import os
import random

import pytest

from eyesmith.data.sample import Finding
from eyesmith.data.sources import open_source
from eyesmith.data.table_rows import read_columns, read_rows
from eyesmith.errors import DataError


@pytest.fixture
def images(tmp_path, picture):
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    return tmp_path


def rows_of(path, content: bytes):
    path.write_bytes(content)
    problems: list[Finding] = []
    columns, rows = read_rows(path, problems)
    return columns, [list(row.values()) for _, row in rows], [(one.where, one.detail) for one in problems]


@pytest.mark.parametrize(("extension", "separator"), [("csv", ","), ("csv", ";"), ("tsv", "\t"), ("csv", "\t")])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_what_a_writer_of_csv_writes_is_read_back(tmp_path, extension, separator, ends) -> None:
    rng = random.Random(0)
    pieces = ["a", 'b "c" d', 'say "hi"', "two\nlines", "x,y", "p;q", "", " ", "🦊", "e\u2028f", "g\x0ch", "5 inch"]
    rows = [["image", "caption", "note"]]
    rows += [[f"{number}.png", rng.choice(pieces), rng.choice(pieces)] for number in range(300)]
    path = tmp_path / f"t.{extension}"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter=separator, lineterminator=ends).writerows(rows)
    columns, found, problems = rows_of(path, path.read_bytes())
    assert (columns, found, problems) == (rows[0], rows[1:], [])


def test_a_quote_that_never_closes_costs_its_own_row(images) -> None:
    (images / "p.csv").write_text('image,caption\n0.png,"First\n1.png,second\n2.png,"whole, one"\n3.png,fourth\n')
    source = open_source(images / "p.csv")
    assert [source.texts(index)[0] for index in range(len(source))] == ["second", "whole, one", "fourth"]
    assert [(one.kind, one.where) for one in source.problems] == [("bad_row", "line 2")]
    assert "quote" in source.problems[0].detail


def test_a_quote_closed_in_another_row_takes_in_no_rows(images) -> None:
    (images / "p.csv").write_text('image,caption\n0.png,"5 inch\n1.png,a nail of 6"\n2.png,c\n3.png,"two\nlines"\n')
    source = open_source(images / "p.csv")
    assert [source.texts(index)[0] for index in range(len(source))] == ['a nail of 6"', "c", "two\nlines"]
    assert [one.where for one in source.problems] == ["line 2"]
    (images / "p.csv").write_text('image,caption\n0.png,"open\n1.png,"also open\n2.png,c\n')
    assert list(open_source(images / "p.csv").keys) == ["2.png"]


@pytest.mark.parametrize(
    ("lines", "captions"),
    [
        (['0.png\t"First', "1.png\tsecond", "2.png\tthird"], ['"First', "second", "third"]),
        (["0.png\ta", '1.png\t"b', '2.png\tc"', "3.png\td"], ["a", '"b', 'c"', "d"]),
        (['0.png\t"said"', '1.png\ta "b" c'], ['"said"', 'a "b" c']),
        (
            ['0.png\t"say ""hi"""', '1.png\t"tab\there"', '2.png\t"two', 'lines"'],
            ['say "hi"', "tab\there", "two\nlines"],
        ),
    ],
)
def test_quotes_of_tsv_belong_to_the_text(images, lines, captions) -> None:
    (images / "p.tsv").write_text("\n".join(["image\tcaption", *lines]) + "\n")
    source = open_source(images / "p.tsv")
    assert [source.texts(index)[0] for index in range(len(source))] == captions
    assert source.problems == []


def test_cells_of_any_length_are_read(images) -> None:
    long = "word " * 40_000
    (images / "p.csv").write_text(f'image,caption\n0.png,{long}\n1.png,"{long},"\n2.png,short\n')
    source = open_source(images / "p.csv")
    assert [len(source.texts(index)[0]) for index in range(3)] == [len(long), len(long) + 1, 5]


def test_separators_of_spreadsheets(tmp_path) -> None:
    assert rows_of(tmp_path / "t.csv", b"image;caption\n0.png;a, b\n")[:2] == (
        ["image", "caption"],
        [["0.png", "a, b"]],
    )
    stated = b'sep=;\r\nimage;caption\r\n0.png;"a;b"\r\n'
    assert rows_of(tmp_path / "t.csv", stated)[:2] == (["image", "caption"], [["0.png", "a;b"]])
    assert rows_of(tmp_path / "t.tsv", b"image,caption\n0.png,a\n")[1] == [["0.png", "a"]]
    assert read_columns(tmp_path / "t.tsv") == ["image", "caption"]


def test_files_that_are_no_tables(tmp_path) -> None:
    (tmp_path / "t.csv").write_text("image,caption\n0.png,a\n", encoding="utf-16")
    with pytest.raises(DataError, match="UTF-16"):
        read_columns(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("image,caption,caption\n0.png,a,b\n")
    with pytest.raises(DataError, match="two columns are called 'caption'"):
        read_columns(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text('image,"caption\n0.png,a\n')
    with pytest.raises(DataError, match="line 1: a quote"):
        read_columns(tmp_path / "t.csv")


def test_json_lines_that_are_not_utf8_or_hold_half_an_emoji(images, picture) -> None:
    name = b"caf\xe9.png"
    (images / os.fsdecode(name)).write_bytes(picture(9))
    lines = [
        b'\xef\xbb\xbf{"image": "0.png", "caption": "nice \\ud83d"}',
        b'{"image": "1.png", "caption": "caf\xe9"}',
        b'{"image": "' + name + b'", "caption": "of a file whose name is Latin-1"}',
        b'{"image": "2.png", "caption": "ok \\ud83d\\ude00", "note": "\\udfff"}',
    ]
    (images / "p.jsonl").write_bytes(b"\n".join(lines))
    source = open_source(images / "p.jsonl")
    texts = {key: source.texts(index)[0] for index, key in enumerate(source.keys)}
    assert texts == {
        "0.png": "nice \ufffd",
        "caf\\xe9.png": "of a file whose name is Latin-1",
        "2.png": "ok 😀",
    }
    assert [(one.kind, one.where) for one in source.problems] == [
        ("not_utf8", "line 1"),
        ("not_utf8", "line 2"),
        ("not_utf8", "line 4"),
    ]
    assert source[2].meta == {"note": "\ufffd"}
    assert source.image_bytes(1) == picture(9)
    assert len(source.fingerprint()) == 64
