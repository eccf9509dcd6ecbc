from pathlib import Path

import pytest

from eyesmith.errors import InputError
from eyesmith.images.collect import collect_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = (
        "b.png",
        "a.JPG",
        "notes.txt",
        ".hidden.png",
        "deep/er/c.webp",
        "deep/d.jpeg",
        ".cache/e.png",
        "odd[1].png",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def _names(paths: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def test_a_folder_gives_its_images_in_order(folder: Path) -> None:
    expected = ["a.JPG", "b.png", "odd[1].png", "deep/d.jpeg", "deep/er/c.webp"]
    assert _names(collect_images(folder), folder) == expected
    assert _names(collect_images([str(folder)]), folder) == expected


def test_a_named_file_counts_whatever_its_name(folder: Path) -> None:
    names = ["notes.txt", "odd[1].png", ".hidden.png"]
    assert _names(collect_images([folder / name for name in names]), folder) == names


def test_patterns_match_images_and_folders(folder: Path) -> None:
    assert _names(collect_images(f"{folder}/*.png"), folder) == ["b.png", "odd[1].png"]
    assert _names(collect_images(f"{folder}/**/*.webp"), folder) == ["deep/er/c.webp"]
    assert _names(collect_images(f"{folder}/d*"), folder) == ["deep/d.jpeg", "deep/er/c.webp"]


def test_an_image_named_twice_comes_once_in_the_order_given(folder: Path) -> None:
    found = collect_images([folder / "deep" / "d.jpeg", folder / "b.png", folder])
    assert _names(found, folder) == ["deep/d.jpeg", "b.png", "a.JPG", "odd[1].png", "deep/er/c.webp"]


def test_linked_folders_are_entered_once(folder: Path, tmp_path: Path) -> None:
    (folder / "deep" / "loop").symlink_to(folder, target_is_directory=True)
    assert len(collect_images(folder)) == 5
    other = tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    other.mkdir()
    (other / "z.png").write_bytes(b"")
    for name in ("one", "two"):
        (folder / name).symlink_to(other, target_is_directory=True)
    assert _names(collect_images(folder), folder)[-1] == "one/z.png"
    assert len(collect_images(folder)) == 6


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.png", r"missing\.png: no such file or folder"),
        ("empty", "no image in this folder"),
        ("*.bmp", "matches no image"),
        ("*.txt", "matches no image"),
        ("a\0b.png", "NUL"),
    ],
)
def test_a_path_without_images_is_named(folder: Path, name: str, message: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        collect_images([folder / "b.png", f"{folder}/{name}"])


def test_no_path_at_all_is_an_error() -> None:
    with pytest.raises(InputError, match="at least one"):
        collect_images([])
