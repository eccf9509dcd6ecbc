from pathlib import Path

import pytest

from eyesmith.files import atomic_path, sha256_file, write_atomic, write_json


def test_a_failed_write_leaves_what_stood_there(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_atomic(target, "before")
    with pytest.raises(OSError, match="disk"), atomic_path(target) as part:
        part.write_text("half")
        raise OSError(28, "no space left on the disk")
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]  # no temporary file is left


def test_folders_are_made_and_the_content_is_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "er" / "x.json", {"name": "é"})
    assert (tmp_path / "deep" / "er" / "x.json").read_text(encoding="utf-8") == '{\n  "name": "é"\n}\n'


def test_sha256_of_a_known_content(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
