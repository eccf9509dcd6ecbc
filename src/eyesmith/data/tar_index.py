"""Where the members of a tar file lie, from its headers alone.

`tarfile` builds an object of two dozen fields for every member and gives up at the first damage; random access needs
a name, an offset and a size, and whatever stands before the damage.
"""

import os
import posixpath
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from eyesmith.data.text import member_name
from eyesmith.errors import DataError

_BLOCK = 512
_REGULAR = (b"0", b"\0", b"7")  # 7: contiguous file, read as a regular one
_NAMES = (b"L", b"K", b"x", b"g")  # what follows is about the next member, or about all
_EMPTY = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders: nothing follows, whatever size they state
_HARD_LINK, _SYMBOLIC_LINK = b"1", b"2"
_MAX_LINKS = 16  # that lead from one to the next
_MAX_NAME_BYTES = 1 << 20  # a longer name or pax header is damage, not a name
_MAX_SIZE = 1 << 62  # far above any file, far below what an offset of 64 bits can hold
_OCTAL = re.compile(rb"[0-7]+")
_DECIMAL = re.compile("[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Member:
    """One regular file inside a tar: name, first byte, length in bytes."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class TarIndex:
    """Usable members in file order; `damage` says where and how reading stopped early, or is None.

    left_out: names of files whose bytes are not to be had, and why.
    """

    members: list[Member]
    damage: str | None
    file_size: int
    modified_ns: int
    left_out: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Link:
    """A member that has the bytes of another. target: that one's name as the tar calls it."""

    name: str
    target: str


@dataclass(frozen=True, slots=True)
class _Sparse:
    name: str


class _DamageError(Exception):
    pass


def index_tar(path: str | os.PathLike[str]) -> TarIndex:
    """Read the headers of an uncompressed tar (ustar, GNU and pax names and sizes).

    A member whose bytes run past the end of the file is left out and reported in `damage`, and so is a damaged header,
    a size that is negative or none at all, a missing end mark and anything after the end mark. A link, hard or
    symbolic, to another member has the bytes of that one. Sparse files (their bytes are not in one piece) and links
    that lead nowhere are in `left_out`. Every header leads further into the file, so that reading ends. Raises
    DataError when the file cannot be read, is compressed, or does not start like a tar.
    """
    found: list[Member | _Link | _Sparse] = []
    damage = None
    try:
        with open(path, "rb") as stream:
            facts = os.fstat(stream.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise DataError(f"{path}: expected a tar file, this is a folder or a device")
            _refuse_other_formats(path, stream)
            try:
                for member in _members(stream, facts.st_size):
                    found.append(member)
            except _DamageError as error:
                damage = str(error)
    except OSError as error:
        raise DataError(f"{path}: cannot read this shard: {error.strerror or error}") from error
    if damage is not None and damage.startswith("header") and not found:
        raise DataError(f"{path}: not a tar file ({damage})")
    members, left_out = _resolved(found)
    return TarIndex(members, damage, facts.st_size, facts.st_mtime_ns, left_out)


def _resolved(found: Sequence[Member | _Link | _Sparse]) -> tuple[list[Member], list[tuple[str, str]]]:
    """Members in file order, links among them with the bytes they lead to; and names that have none, and why."""
    if all(isinstance(one, Member) for one in found):
        return [one for one in found if isinstance(one, Member)], []
    by_name = {posixpath.normpath(one.name): one for one in found}
    members: list[Member] = []
    left_out: list[tuple[str, str]] = []
    for one in found:
        target: Member | _Link | _Sparse | None = one
        for _ in range(_MAX_LINKS):
            if not isinstance(target, _Link):
                break
            target = by_name.get(posixpath.normpath(target.target))
        if isinstance(target, Member):
            members.append(Member(one.name, target.offset, target.size))
        elif isinstance(one, _Link):
            left_out.append((one.name, f"is a link to {one.target}, which has no bytes in this tar"))
        else:
            left_out.append((one.name, "is a sparse file, its bytes are not in one piece; write the tar without them"))
    return members, left_out


def _members(stream: BinaryIO, file_size: int) -> Iterator[Member | _Link | _Sparse]:
    position = 0
    long_name: str | None = None
    long_target: str | None = None
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
        size = 0 if kind in _EMPTY else _size(header, pax, position)
        data = position + _BLOCK
        if kind == b"S" and header[482]:  # old GNU sparse: the rest of its map stands between header and bytes
            data = _after_sparse_map(stream, data)
        position = data + (size + _BLOCK - 1) // _BLOCK * _BLOCK
        if kind in _NAMES:
            if size > _MAX_NAME_BYTES or data + size > file_size:
                raise _DamageError(f"name header at byte {data - _BLOCK:,} is damaged or cut")
            extra = stream.read(size)
            if kind == b"L":
                long_name = member_name(extra)
            elif kind == b"K":
                long_target = member_name(extra)
            elif kind == b"x":
                pax = _pax_records(extra)
            continue
        name = long_name or _header_name(header)
        if pax:
            name = (pax.get("GNU.sparse.name") or pax.get("path", "")).partition("\0")[0] or name
        target = ""
        if kind in (_HARD_LINK, _SYMBOLIC_LINK):
            target = pax.get("linkpath", "").partition("\0")[0] or long_target or member_name(header[157:257])
        is_sparse = kind == b"S" or any(keyword.startswith("GNU.sparse.") for keyword in pax)
        long_name, long_target, pax = None, None, {}
        if data + size > file_size:
            raise _DamageError(f"cut inside {name} (needs {data + size:,} bytes, the file has {file_size:,})")
        if target:
            # a hard link names a member as the tar does, a symbolic one a place beside itself
            yield _Link(name, target if kind == _HARD_LINK else posixpath.join(posixpath.dirname(name), target))
        elif is_sparse:
            yield _Sparse(name)
        elif kind in _REGULAR:
            yield Member(name, data, size)


def _size(header: bytes, pax: dict[str, str], position: int) -> int:
    """Bytes that follow a header, 0 or more: every reader of sizes in tars goes through here."""
    field = header[124:136]
    stated = pax.get("size")
    if stated is not None and header[156:157] not in _NAMES:
        size = int(stated) if _DECIMAL.fullmatch(stated) else -1
    elif field[0] == 0x80:  # GNU: base 256 for sizes past 8 GiB; 0xFF would begin a negative number
        size = int.from_bytes(field[1:], "big")
    else:
        digits = field.split(b"\0", 1)[0].strip(b" ")
        size = 0 if not digits else int(digits, 8) if _OCTAL.fullmatch(digits) else -1
    if not 0 <= size <= _MAX_SIZE:
        raise _DamageError(f"header at byte {position:,} has no size, or one that cannot be")
    return size


def _after_sparse_map(stream: BinaryIO, position: int) -> int:
    while True:
        stream.seek(position)
        block = stream.read(_BLOCK)
        if len(block) < _BLOCK:
            raise _DamageError(f"cut in a sparse map at byte {position:,}")
        position += _BLOCK
        if not block[504]:
            return position


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
    stored = int(field, 8) if _OCTAL.fullmatch(field) else 0
    return stored == sum(header) - sum(header[148:156]) + 8 * 32  # the field itself counts as eight blanks


def _header_name(header: bytes) -> str:
    name = member_name(header[:100])
    prefix = (
        member_name(header[345:500]) if header[257:263] == b"ustar\0" else ""
    )  # GNU keeps times there, not a prefix
    return f"{prefix}/{name}" if prefix else name


def _pax_records(content: bytes) -> dict[str, str]:
    records: dict[str, str] = {}
    position = 0
    while position < len(content):
        length, _, _ = content[position : position + 20].partition(b" ")
        if not length.isdigit() or int(length) < 5:
            break
        keyword, _, value = content[position + len(length) + 1 : position + int(length) - 1].partition(b"=")
        records[keyword.decode("utf-8", "replace")] = value.decode("utf-8", "backslashreplace")
        position += int(length)
    return records
