"""Where the pictures of annotated sets lie: in a folder, or in the tars of a made data set."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol

from PIL import Image

from eyesmith.data.sample import Source
from eyesmith.errors import DataError
from eyesmith.images.decode import open_image, to_rgb


class PictureFiles(Protocol):
    """The pictures' files by their name in the annotations."""

    def content(self, file: str) -> bytes:
        """The encoded file. Raises DataError when there is none."""
        ...

    def image(self, file: str) -> Image.Image:
        """Its pixels, RGB, as stored. Raises DataError when there is no such file, ImageError when it is damaged."""
        ...


@dataclass(frozen=True)
class FolderPictures:
    """Files in the first of some folders that has them: by their whole name in any of them, else by its last part."""

    folders: tuple[Path, ...]

    def path(self, file: str) -> Path:
        """Where a file is. Raises DataError, naming the folders looked into."""
        for name in dict.fromkeys((file, PurePosixPath(file).name)):
            for folder in self.folders:
                place = folder / name
                if place.is_file():
                    return place
        looked = ", ".join(str(folder) for folder in self.folders) or "no folder"
        raise DataError(f"{file}: no such picture in {looked}; say images=FOLDER")

    def content(self, file: str) -> bytes:
        return self.path(file).read_bytes()

    def image(self, file: str) -> Image.Image:
        return to_rgb(open_image(self.path(file)))


@dataclass(frozen=True)
class SourcePictures:
    """Pictures of an open source of samples; a file is called by its sample's key."""

    source: Source

    @cached_property
    def _place(self) -> dict[str, int]:
        return {key: index for index, key in enumerate(self.source.keys)}

    def content(self, file: str) -> bytes:
        key = os.path.splitext(file)[0]
        if key not in self._place:
            raise DataError(f"{file}: no sample {key} in {self.source.name}")
        return self.source.image_bytes(self._place[key])

    def image(self, file: str) -> Image.Image:
        return to_rgb(open_image(self.content(file), where=file))


def folders_beside(annotations: Path, names: Iterable[str] = ()) -> FolderPictures:
    """Where pictures usually lie for a file such as ROOT/annotations/instances_val2017.json, those that exist.

    names: folders that go first, below the annotations' folder or the one above it.
    """
    split = annotations.stem.rpartition("_")[2]
    inner = [*names, split, f"images/{split}", "images", "."]
    roots = (annotations.parent, annotations.parent.parent)
    places = [root / name for root in roots for name in inner]
    return FolderPictures(tuple(dict.fromkeys(place for place in places if place.is_dir())))


def write_file(path: Path, content: bytes | str) -> None:
    """Write one of many files: whole or not at all, but not synced, which would cost most of the time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
