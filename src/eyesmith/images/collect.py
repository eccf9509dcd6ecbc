"""Which image files a user means: files, folders and patterns."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from eyesmith.errors import InputError

# the order in which a sample with several image members is read (facts of the CLIP_benchmark tar layout first)
IMAGE_EXTENSIONS = (
    "webp",
    "png",
    "jpg",
    "jpeg",
    "gif",
    "bmp",
    "tif",
    "tiff",
    "ppm",
    "pgm",
    "jfif",
    "jpe",
    "jp2",
    "avif",
)
"""What images are called, everywhere: in folders, beside captions, in tars."""
IMAGE_SUFFIXES = frozenset(f".{extension}" for extension in IMAGE_EXTENSIONS)


def collect_images(paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str]) -> list[Path]:
    """The image files that `paths` name, each once, in the order given; what a folder or pattern holds is sorted.

    A file counts whatever its name. A folder is searched with all folders in it for the names of IMAGE_SUFFIXES; names
    with a leading dot are left out; linked folders are entered, each real folder once. Anything else is a pattern
    (`*`, `?`, `[..]`, `**` for any depth), matched against files and folders. No file is opened.
    Raises InputError: a path that does not exist, a folder without images or that cannot be read, a pattern without a
    match, no path at all.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not given:
        raise InputError("expected at least one image file, folder or pattern, got none")
    found: dict[Path, None] = {}
    for path in given:
        found.update(dict.fromkeys(_images_of(os.fspath(path))))
    return list(found)


def _images_of(path: str) -> list[Path]:
    if "\0" in path:
        raise InputError(f"{path!r}: a path cannot hold a NUL character")
    if "://" in path:
        raise InputError(f"{path}: is an address, and nothing is fetched here; give files, folders or patterns")
    if os.path.isfile(path):  # first: a file may be called "a[1].png"
        return [Path(path)]
    if os.path.isdir(path):
        images = _images_in(path)
        if not images:
            known = " ".join(sorted(IMAGE_SUFFIXES))
            raise InputError(f"{path}: no image in this folder or the folders in it; looked for {known}")
        return images
    if not glob.has_magic(path):
        raise InputError(f"{path}: no such file or folder")
    images = []
    for match in sorted(glob.glob(path, recursive=True)):
        if os.path.isdir(match):
            images += _images_in(match)
        elif Path(match).suffix.lower() in IMAGE_SUFFIXES:
            images.append(Path(match))
    if not images:
        raise InputError(f"{path}: this pattern matches no image")
    return images


def _images_in(folder: str) -> list[Path]:
    images = []
    entered = {os.path.realpath(folder)}

    def refuse(error: OSError) -> None:
        raise InputError(
            f"{error.filename}: this folder cannot be read ({error.strerror}); its images would be missing"
        )

    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = {name: os.path.realpath(os.path.join(parent, name)) for name in sorted(folders) if name[0] != "."}
        folders.clear()
        for name, place in real.items():
            if place not in entered:
                entered.add(place)
                folders.append(name)
        names = (name for name in sorted(names) if not name.startswith("."))
        images += [Path(parent, name) for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]
    return images
