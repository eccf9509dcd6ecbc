"""A unigram model of SentencePiece out of its file, run by the `tokenizers` library: text to ids as SentencePiece does.

The file is a protocol buffer; of its fields the pieces, and of the trainer's and normaliser's settings those that
change ids, are read here. Unigram's search is the library's; what comes before it (the table of character
replacements, spaces) is done here as SentencePiece 0.2 does it, since the library replaces by grapheme.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tokenizers.models import Unigram

from eyesmith.errors import CheckpointError

SPACE = "\u2581"  # stands for a space inside pieces
_UNIGRAM = 1
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
        self.content = content
        self.unknown_id = next(i for i, (_, _, kind) in enumerate(self.file.pieces) if kind == _UNKNOWN)
        self.ids = {piece: i for i, (piece, _, _) in enumerate(self.file.pieces)}
        # what is no text must not be found in one
        vocab = [
            (piece if kind in (_NORMAL, _USER_DEFINED) else f"\0{i}", score)
            for i, (piece, score, kind) in enumerate(self.file.pieces)
        ]
        self._model = Unigram(vocab, self.unknown_id, False)
        self._table = _Table(self.file.charsmap) if self.file.charsmap else None

    def __call__(self, text: str) -> list[int]:
        """The ids of a text to which no space is put before."""
        normal = self._normalize(text)
        return [token.id for token in self._model.tokenize(normal)] if normal else []

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
        normal = "".join(found)
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


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:  # pyright: ignore[reportReturnType]
    """Number and value of each field of a protocol buffer's message."""
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
