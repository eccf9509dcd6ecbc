"""Samples of one shard as they lie in it: the members of each, and what its json says its uid is."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from eyesmith.data.sample import IMAGE_EXTENSIONS
from eyesmith.data.tar_index import Member, TarIndex, index_tar
from eyesmith.data.tar_samples import shard_samples
from eyesmith.errors import DataError
from eyesmith.files import load_json


@dataclass(frozen=True, slots=True)
class RawSample:
    """One sample of a shard. members: by extension, in file order; uid: of its json, "" when it says none."""

    shard: "ShardSamples"
    key: str
    members: dict[str, Member]
    uid: str

    @property
    def has_image(self) -> bool:
        """Whether one of its members is a picture by its extension."""
        return any(name in self.members for name in IMAGE_EXTENSIONS)

    def content(self, extension: str) -> bytes:
        """Bytes of one member. Raises DataError when the shard was cut meanwhile."""
        return self.shard.content(self.members[extension])

    def image(self) -> bytes | None:
        """The encoded picture, None when it has none."""
        return next((self.content(name) for name in IMAGE_EXTENSIONS if name in self.members), None)


class ShardSamples:
    """The samples of a local tar, in the order of their first members; a context manager.

    num_repeated: members left out because one of that key and extension stood before them.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.tar: TarIndex = index_tar(self.path)
        found = shard_samples(self.tar)
        self.num_repeated = sum(kind == "duplicate_key" for kind, _, _ in found.faults)
        self._groups = list(found.samples.items())
        self._stream: BinaryIO = self.path.open("rb")

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[RawSample]:
        return map(self.sample, range(len(self)))

    def sample(self, row: int) -> RawSample:
        """A sample by its place, 0 or more. Raises DataError when the shard was cut meanwhile."""
        key, members = self._groups[row]
        return RawSample(self, key, members, _uid(self.content(members["json"])) if "json" in members else "")

    def content(self, member: Member) -> bytes:
        """Bytes of one member. Raises DataError when they are not all there any more."""
        self._stream.seek(member.offset)
        content = self._stream.read(member.size)
        if len(content) != member.size:
            raise DataError(f"{self.path}: {member.name} is cut; the shard changed while in use")
        return content

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> "ShardSamples":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _uid(content: bytes) -> str:
    try:
        value = load_json(content)
    except (ValueError, RecursionError):
        return ""
    uid = value.get("uid") if isinstance(value, dict) else None
    return uid if isinstance(uid, str) else ""
