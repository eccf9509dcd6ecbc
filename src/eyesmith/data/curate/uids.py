"""Sample ids of a pool and the subset files made of them: 128 bits as two unsigned 64-bit numbers.

Source: the subset file of DataComp's filtering track: a NumPy array of dtype "u8,u8" (high half, low half), sorted,
where a repeated row means that the sample is repeated.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eyesmith.errors import DataError
from eyesmith.files import atomic_path

UID = np.dtype("u8,u8")  # fields f0 (high) and f1 (low), as the track's own tools name them
_HEX_LEN = 32
_BLOCK = 1 << 20
_DIGIT = np.full(256, 255, dtype=np.uint8)
for _value, _digit in enumerate("0123456789abcdef"):
    _DIGIT[[ord(_digit), ord(_digit.upper())]] = _value


def try_uids(texts: Sequence[str] | NDArray[np.bytes_]) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
    """Structured "u8,u8" [N] of ids, and whether each is one: 32 hexadecimal characters. bool [N]."""
    try:
        raw = np.asarray(texts, dtype=f"S{_HEX_LEN + 1}") if len(texts) else np.zeros(0, f"S{_HEX_LEN + 1}")
    except UnicodeEncodeError:
        raw = np.array([str(text).encode("ascii", "replace") for text in texts], dtype=f"S{_HEX_LEN + 1}")
    letters = raw.view(np.uint8).reshape(len(raw), _HEX_LEN + 1)
    digits = _DIGIT[letters[:, :_HEX_LEN]]  # [N, 32]
    is_uid = (digits != 255).all(axis=1) & (letters[:, _HEX_LEN] == 0)
    packed = (digits[:, 0::2] << 4 | digits[:, 1::2]).reshape(-1, 2, 8)  # [N, half, byte], the highest byte first
    halves = np.ascontiguousarray(packed).view(">u8")[..., 0]  # [N, 2]
    return join_uids(halves[:, 0], halves[:, 1]), is_uid


def parse_uids(texts: Sequence[str] | NDArray[np.bytes_]) -> NDArray[np.void]:
    """Structured "u8,u8" [N] of ids of 32 hexadecimal characters. Raises DataError naming the first wrong one."""
    uids, is_uid = try_uids(texts)
    if not is_uid.all():
        row = int(is_uid.argmin())
        raise DataError(f"row {row}: uid {str(texts[row])[:60]!r}: expected 32 hexadecimal characters")
    return uids


def join_uids(high: NDArray[np.integer], low: NDArray[np.integer]) -> NDArray[np.void]:
    """Structured "u8,u8" [N] of two uint64 [N]."""
    uids = np.empty(len(high), dtype=UID)
    uids["f0"], uids["f1"] = high, low
    return uids


def format_uids(uids: NDArray[np.void]) -> list[str]:
    """The 32 hexadecimal characters of each id."""
    return [f"{high:016x}{low:016x}" for high, low in zip(uids["f0"].tolist(), uids["f1"].tolist(), strict=True)]


def sort_uids(uids: NDArray[np.void]) -> NDArray[np.void]:
    """The ids in lexicographic order of (high, low), repeated ones kept."""
    return uids[np.lexsort((uids["f1"], uids["f0"]))]


def write_subset(path: str | os.PathLike[str], uids: NDArray[np.void]) -> None:
    """Write a subset file (.npy), sorted; an id that stands twice is a sample that is shown twice."""
    ordered = np.asarray(uids, dtype=UID)
    if _first_fall(ordered) is not None:
        ordered = sort_uids(ordered)
    with atomic_path(path) as part, part.open("wb") as stream:
        np.save(stream, ordered)


def read_subset(path: str | os.PathLike[str], *, is_checked: bool = False) -> NDArray[np.void]:
    """A subset file, mapped into memory: .npy, or the raw rows without a header.

    Raises DataError when it is no array of dtype "u8,u8" or is not sorted, because copies are found by bisection. The
    order is a pass over the whole file: is_checked leaves it out where the same work has made it before.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            is_npy = stream.read(6) == b"\x93NUMPY"
        if is_npy:
            uids = np.load(file, mmap_mode="r", allow_pickle=False)
        else:
            size = file.stat().st_size
            if size % UID.itemsize:
                raise DataError(f"{file}: {size:,} bytes are no whole number of ids of 16 bytes; is the file cut?")
            uids = np.memmap(file, dtype=UID, mode="r") if size else np.empty(0, UID)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: cannot be read as a subset file (.npy of dtype u8,u8): {error}") from error
    if uids.dtype != UID or uids.ndim != 1:
        raise DataError(f"{file}: expected dtype u8,u8 and one axis, got {uids.dtype} {uids.shape}")
    if not is_checked and (row := _first_fall(uids)) is not None:
        raise DataError(f"{file}: row {row} is smaller than the one before it; sort it")
    return uids


def find_uids(ordered: NDArray[np.void], uids: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each of `uids` [N] stands first in sorted ids, and how often: int64 [N] each, 0 times where it does not.

    Reads only the rows that the bisection touches, so that a mapped file of billions of rows stays on disk.
    """
    place = _place(ordered, uids, after_equal=False)
    counts = np.zeros(len(uids), dtype=np.int64)
    if len(ordered):
        found = np.flatnonzero(np.array(ordered[np.minimum(place, len(ordered) - 1)]) == uids)
        counts[found] = _place(ordered, uids[found], after_equal=True) - place[found]
    return place, counts


def _first_fall(uids: NDArray[np.void]) -> int | None:
    """The first row that is smaller than the one before it."""
    for start in range(0, len(uids) - 1, _BLOCK):
        block = np.array(uids[start : start + _BLOCK + 1])
        falls = (block["f0"][1:] < block["f0"][:-1]) | (
            (block["f0"][1:] == block["f0"][:-1]) & (block["f1"][1:] < block["f1"][:-1])
        )
        if falls.any():
            return start + int(falls.argmax()) + 1
    return None


def _place(subset: NDArray[np.void], uids: NDArray[np.void], *, after_equal: bool) -> NDArray[np.int64]:
    low = np.zeros(len(uids), dtype=np.int64)
    high = np.full(len(uids), len(subset), dtype=np.int64)
    while (is_open := low < high).any():
        middle = (low + high) // 2
        rows = np.array(subset[np.minimum(middle, len(subset) - 1)])
        is_equal = rows["f0"] == uids["f0"]
        if after_equal:
            is_before = (rows["f0"] < uids["f0"]) | (is_equal & (rows["f1"] <= uids["f1"]))
        else:
            is_before = (rows["f0"] < uids["f0"]) | (is_equal & (rows["f1"] < uids["f1"]))
        low = np.where(is_open & is_before, middle + 1, low)
        high = np.where(is_open & ~is_before, middle, high)
    return low
