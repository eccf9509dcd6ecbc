"""A unigram model of SentencePiece out of its file: text to ids, as SentencePiece 0.2 gives them.

The file is a protocol buffer; of its fields the pieces, and of the trainer's and normaliser's settings those that
change ids, are read. The `tokenizers` library is close and not the same: it replaces characters by grapheme, and sums
scores in fp64, so that of two ways of equal score it takes another.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from eyesmith.errors import CheckpointError

SPACE = "\u2581"  # stands for a space inside pieces
_UNIGRAM = 1
_UNKNOWN_PENALTY = 10.0  # of an unknown character below the least likely piece
_NORMAL, _UNKNOWN, _USER_DEFINED, _BYTE = 1, 2, 4, 6  # types of pieces; 3 is a control token, 5 unused


@dataclass(frozen=True)
class PieceFile:
    """What a .model file says. pieces: text, score and type by id. charsmap: the replacements, b"" for none."""

    pieces: list[tuple[str, float, int]]
    charsmap: bytes
    adds_prefix: bool
    removes_spaces: bool


class Pieces:
    """Text to the ids of a unigram model, without special tokens."""

    def __init__(self, content: bytes, where: str) -> None:
        """content: of the .model file. Raises CheckpointError for another kind of file or model."""
        self.file = read_pieces(content, where)
        pieces = self.file.pieces
        self.unknown_id = next(i for i, (_, _, kind) in enumerate(pieces) if kind == _UNKNOWN)
        self.ids = {piece: i for i, (piece, _, _) in enumerate(pieces)}
        normal = [score for _, score, kind in pieces if kind == _NORMAL]
        most = max(normal, default=0.0)
        # what is no text, a control token, is not found in one; a piece that a user defined wins over all others
        self._scores = {
            piece: (i, score if kind == _NORMAL else len(piece.encode()) * most - 0.1)
            for i, (piece, score, kind) in enumerate(pieces)
            if kind in (_NORMAL, _USER_DEFINED)
        }
        self._longest = max(map(len, self._scores), default=1)
        self._unknown_score = _float(min(normal, default=0.0) - _UNKNOWN_PENALTY)
        self._table = _Table(self.file.charsmap) if self.file.charsmap else None

    def __call__(self, text: str) -> list[int]:
        """The ids of a text, before which a space is put where the file says so; neighbours that are unknown are one.

        The path of the best sum of scores, summed in fp32 from left to right as SentencePiece does: among equals its
        rounding decides.
        """
        normal = self._normalize(text)
        sums, starts, ids = [0.0], [0], [0]  # of the best path to each place: its sum, last piece's start, and id
        scores, unknown, longest = self._scores, self._unknown_score, self._longest
        size = len(normal)
        for values, empty in ((sums, 0.0), (starts, -1), (ids, 0)):
            values += [empty] * size
        for start in range(size):
            before, has_one = sums[start], False
            for end in range(start + 1, min(start + longest, size) + 1):
                found = scores.get(normal[start:end])
                if found is None:
                    continue
                has_one |= end == start + 1
                total = _float(found[1] + before)
                if starts[end] < 0 or total > sums[end]:
                    sums[end], starts[end], ids[end] = total, start, found[0]
            if not has_one and (starts[start + 1] < 0 or _float(unknown + before) > sums[start + 1]):
                sums[start + 1], starts[start + 1], ids[start + 1] = _float(unknown + before), start, self.unknown_id
        path: list[int] = []
        while size:
            if not (ids[size] == self.unknown_id and path and path[-1] == self.unknown_id):
                path.append(ids[size])
            size = starts[size]
        return path[::-1]

    def _normalize(self, text: str) -> str:
        data = text.encode("utf-8", "replace")  # a lone surrogate is "?" there too
        if self._table is None:
            parts: Iterator[str] = iter(text)
        else:
            parts = self._table.replaced(data)
        removes = self.file.removes_spaces
        is_after_space, found = removes, []
        for part in parts:
            if is_after_space:
                part = part.lstrip(" ")
            if part:
                found.append(part.replace(" ", SPACE))
                is_after_space = removes and part.endswith(" ")
        normal = (SPACE if self.file.adds_prefix and found else "") + "".join(found)
        return normal.rstrip(SPACE) if removes else normal


class _Table:
    """Replacements of the longest beginnings of a text: a double array (Darts) over UTF-8, and what they become."""

    def __init__(self, blob: bytes) -> None:
        (size,) = struct.unpack("<I", blob[:4])
        self._units = np.frombuffer(blob, "<u4", size // 4, 4).tolist()
        self._texts = blob[4 + size :]
        self._known: dict[bytes, str] = {}

    def replaced(self, data: bytes) -> Iterator[str]:
        """What stands for one beginning after the other."""
        start = 0
        while start < len(data):
            length, value = self._longest(data, start)
            if length:
                yield self._texts[value : self._texts.index(b"\0", value)].decode()
                start += length
                continue
            first = data[start]
            length = 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
            yield data[start : start + length].decode()
            start += length

    def _longest(self, data: bytes, start: int) -> tuple[int, int]:
        """Length in bytes of the longest beginning at `start` that is replaced, 0 for none, and where its text is."""
        units = self._units
        length = value = 0
        place = _offset(units[0])
        for end in range(start, len(data)):
            place ^= data[end]
            unit = units[place] if place < len(units) else 0
            if unit & 0x800000FF != data[end]:
                break
            place ^= _offset(unit)
            if unit >> 8 & 1:
                length, value = end + 1 - start, units[place] & 0x7FFFFFFF
        return length, value


def _float(value: float) -> float:
    """Rounded to fp32."""
    return struct.unpack("f", struct.pack("f", value))[0]


def _offset(unit: int) -> int:
    return unit >> 10 << ((unit & 1 << 9) >> 6)


def read_pieces(content: bytes, where: str) -> PieceFile:
    """The parts of a .model file. Raises CheckpointError for a damaged one, and for a model that is no unigram."""
    pieces: list[tuple[str, float, int]] = []
    kind, charsmap, adds_prefix, removes_spaces = _UNIGRAM, b"", True, True
    try:
        for number, value in _fields(content):
            if number == 1:
                one = dict(_fields(value))
                pieces.append((one[1].decode(), struct.unpack("<f", one.get(2, b"\0\0\0\0"))[0], one.get(3, _NORMAL)))
            elif number == 2:
                kind = dict(_fields(value)).get(3, _UNIGRAM)
            elif number == 3:
                spec = dict(_fields(value))
                charsmap, adds_prefix, removes_spaces = spec.get(2, b""), bool(spec.get(3, 1)), bool(spec.get(4, 1))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, struct.error) as error:
        raise CheckpointError(f"{where}: expected a SentencePiece model, got another or a damaged file") from error
    if kind != _UNIGRAM or not any(piece[2] == _UNKNOWN for piece in pieces):
        raise CheckpointError(f"{where}: expected a unigram model of SentencePiece; this one is of another kind")
    if any(piece[2] == _BYTE for piece in pieces):
        raise CheckpointError(f"{where}: a model that falls back to bytes; its tokenizer.json is needed")
    return PieceFile(pieces, charsmap, adds_prefix, removes_spaces)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value, bytes or int, of each field of a protocol buffer's message."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        wire = tag & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield tag >> 3, value
            continue
        if wire == 2:
            length, place = _varint(data, place)
        else:
            length = {1: 8, 5: 4}[wire]
        if place + length > len(data):
            raise ValueError("cut off")
        yield tag >> 3, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
