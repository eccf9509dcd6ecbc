import os

import pytest

from eyesmith.data.text import decoded, file_key, member_name, mended, mended_inside, parse_json, read_lines
from eyesmith.errors import DataError


def test_bytes_of_a_sample_are_read_and_what_is_wrong_is_told() -> None:
    assert decoded("\ufeffcafé 🦊".encode()) == ("café 🦊", "")
    text, fault = decoded(b"caf\xe9 noir")
    assert text == "caf\ufffd noir"
    assert "byte 3 is not UTF-8" in fault


def test_half_a_pair_becomes_a_replacement_character() -> None:
    assert mended("ok 🦊") == ("ok 🦊", "")
    assert mended("nice \ud83d")[0] == "nice \ufffd"
    value, fault = mended_inside({"a\udc00": ["x", {"b": "\ud83d"}], "n": 1, "none": None})
    assert value == {"a\ufffd": ["x", {"b": "\ufffd"}], "n": 1, "none": None}
    assert "half of a pair" in fault


def test_json_keeps_whole_emoji_and_mends_halves() -> None:
    assert parse_json('{"a": "ok \\ud83e\\udd8a"}') == ({"a": "ok 🦊"}, "")
    value, fault = parse_json('["nice \\uD83D", "ok"]')
    assert (value, fault != "") == (["nice \ufffd", "ok"], True)


def test_names_that_are_no_utf8_stay_different_and_can_be_written() -> None:
    one, other = os.fsdecode(b"a/caf\xe9.png"), os.fsdecode(b"a/caf\xe8.png")
    assert (file_key(one), file_key(other)) == ("a/caf\\xe9.png", "a/caf\\xe8.png")
    assert file_key("smörgås.png") == "smörgås.png"
    assert member_name(b"caf\xe9.png\0junk") == "caf\\xe9.png"


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_lines_of_a_names_file(tmp_path, ends) -> None:
    (tmp_path / "n.txt").write_bytes(b"\xef\xbb\xbf" + f"a cat{ends}{ends} a dog {ends}".encode())
    assert read_lines(tmp_path / "n.txt") == ("a cat", "", "a dog")


def test_a_names_file_that_is_not_utf8_is_refused_by_line_and_byte(tmp_path) -> None:
    (tmp_path / "n.txt").write_bytes(b"a cat\na caf\xe9\n")
    with pytest.raises(DataError, match=r"n\.txt: line 2: byte 11 is not UTF-8"):
        read_lines(tmp_path / "n.txt")
    (tmp_path / "n.txt").write_text("a cat\n", encoding="utf-16")
    with pytest.raises(DataError, match="UTF-16"):
        read_lines(tmp_path / "n.txt")
    with pytest.raises(DataError, match="cannot be read"):
        read_lines(tmp_path / "none.txt")
