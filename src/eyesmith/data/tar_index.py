"""Where the members of a tar file lie, from its headers alone.

`tarfile` builds an object of two dozen fields for every member and gives up at the first damage; random access needs
a name, an offset and a size, and whatever stands before the damage.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from eyesmith.errors import DataError

_BLOCK = 512
_REGULAR = (b"0", b"\0", b"7")  # 7: contiguous file, read as a regular one
_MAX_NAME_BYTES = 1 << 20  # a longer name or pax header is damage, not a name


@dataclass(frozen=True, slots=True)
class Member:
    """One regular file inside a tar: name, first byte, length in bytes."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class TarIndex:
    """Usable members in file order; `damage` says where and how reading stopped early, or is None."""

    members: list[Member]
    damage: str | None
    file_size: int
    modified_ns: int


class _DamageError(Exception):
    pass


def index_tar(path: str | os.PathLike[str]) -> TarIndex:
    """Read the headers of an uncompressed tar (ustar, GNU and pax names and sizes).

    A member whose bytes run past the end of the file is left out and reported in `damage`, and so is a damaged header,
    a missing end mark and anything after the end mark. Raises DataError when the file cannot be read, is compressed, or
    does not start like a tar.
    """
    members: list[Member] = []
    damage = None
    try:
        with open(path, "rb") as stream:
            facts = os.fstat(stream.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise DataError(f"{path}: expected a tar file, this is a folder or a device")
            _refuse_other_formats(path, stream)
            try:
                for member in _members(stream, facts.st_size):
                    members.append(member)
            except _DamageError as error:
                damage = str(error)
    except OSError as error:
        raise DataError(f"{path}: cannot read this shard: {error.strerror or error}") from error
    if damage is not None and damage.startswith("header") and not members:
        raise DataError(f"{path}: not a tar file ({damage})")
    return TarIndex(members, damage, facts.st_size, facts.st_mtime_ns)


def _members(stream: BinaryIO, file_size: int) -> Iterator[Member]:
    position = 0
    long_name: str | None = None
    pax: dict[str, str] = {}
    while True:
        stream.seek(position)
        header = stream.read(_BLOCK)
        if len(header) < _BLOCK:
            cut = f"in the header at byte {position:,}" if header else f"at byte {position:,}, before its end mark"
            raise _DamageError(f"cut {cut}")
        if not any(header):
            _check_end(stream, position)
            return
        if not _is_checksum_right(header):
            raise _DamageError(f"header at byte {position:,} is damaged")
        kind = header[156:157]
        size = int(pax["size"]) if "size" in pax and pax["size"].isdigit() else _number(header[124:136], position)
        data = position + _BLOCK
        position = data + (size + _BLOCK - 1) // _BLOCK * _BLOCK
        if kind in b"LKxg":
            if size > _MAX_NAME_BYTES or data + size > file_size:
                raise _DamageError(f"name header at byte {data - _BLOCK:,} is damaged or cut")
            extra = stream.read(size)
            if kind == b"L":
                long_name = _text(extra)
            elif kind == b"x":
                pax = _pax_records(extra)
            continue
        name = pax.get("path") or long_name or _header_name(header)
        long_name, pax = None, {}
        if kind not in _REGULAR:
            continue
        if data + size > file_size:
            raise _DamageError(f"cut inside {name} (needs {data + size:,} bytes, the file has {file_size:,})")
        yield Member(name, data, size)


def _refuse_other_formats(path: str | os.PathLike[str], stream: BinaryIO) -> None:
    start = stream.read(8)
    for magic, form in ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")):
        if start.startswith(magic):
            raise DataError(f"{path}: a {form} file has no random access; unpack it to a plain .tar first")
    if start.startswith(b"PK\x03\x04"):
        raise DataError(f"{path}: this is a zip file; unpack it and give the folder")
    if start.startswith(b"version "):
        raise DataError(f"{path}: this is a Git LFS pointer, not the shard itself; fetch it with `git lfs pull`")
    if not start:
        raise DataError(f"{path}: the shard is empty (0 bytes)")


def _check_end(stream: BinaryIO, position: int) -> None:
    while chunk := stream.read(1 << 20):
        if any(chunk):
            raise _DamageError(f"data after the end mark at byte {position:,} (tar files joined end to end?)")


def _is_checksum_right(header: bytes) -> bool:
    field = header[148:156].split(b"\0", 1)[0].strip()
    try:
        stored = int(field or b"0", 8)
    except ValueError:
        return False
    return stored == sum(header) - sum(header[148:156]) + 8 * 32  # the field itself counts as eight blanks


def _number(field: bytes, position: int) -> int:
    if field[0] & 0x80:  # GNU: base 256 for sizes past 8 GiB
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip()
    try:
        return int(digits or b"0", 8)
    except ValueError as error:
        raise _DamageError(f"header at byte {position:,} has no size") from error


def _header_name(header: bytes) -> str:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""  # GNU keeps times there, not a prefix
    return f"{prefix}/{name}" if prefix else name


def _pax_records(content: bytes) -> dict[str, str]:
    records: dict[str, str] = {}
    position = 0
    while position < len(content):
        length, _, _ = content[position : position + 20].partition(b" ")
        if not length.isdigit() or int(length) < 5:
            break
        keyword, _, value = content[position + len(length) + 1 : position + int(length) - 1].partition(b"=")
        records[keyword.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        position += int(length)
    return records


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")
