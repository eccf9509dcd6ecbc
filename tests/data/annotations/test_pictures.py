"""Which file a name in the annotations means."""

from pathlib import Path

import pytest

from eyesmith.data.annotations.pictures import FolderPictures
from eyesmith.errors import DataError


def test_a_whole_name_goes_before_a_last_part_in_any_folder(tmp_path: Path) -> None:
    for name in ("val/1.jpg", "images/b/1.jpg", "images/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    files = FolderPictures((tmp_path / "val", tmp_path / "images"))
    assert files.content("b/1.jpg") == b"images/b/1.jpg"
    assert files.content("1.jpg") == b"val/1.jpg"
    assert files.content("elsewhere/2.jpg") == b"images/2.jpg"
    with pytest.raises(DataError, match="no such picture"):
        files.content("3.jpg")
