"""CLIP's tokenizer: text to the ids OpenCLIP gives, several times faster.

What makes it fast: plain text needs none of the cleaning; the ids of a word are remembered, whole words with their
punctuation; and a batch becomes one array, not one tensor a text.
"""

import os
import struct
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from eyesmith.errors import ConfigError, DataError
from eyesmith.tokenizer.clean import pieces, words
from eyesmith.tokenizer.vocabulary import Vocabulary, byte_symbols, find_vocabulary, read_vocabulary, write_vocabulary

MAX_REMEMBERED = 1 << 17  # words; about 20 MB. Past it all are forgotten: the frequent ones are back at once
MAX_REMEMBERED_LEN = 40  # characters; longer words hardly come twice
_ID = np.dtype(np.uint16)  # ids are kept as 16-bit numbers, which hold every id of the vocabulary


class ClipTokenizer:
    """Text to CLIP's token ids: start token, byte pairs of the cleaned lower-case text, end token.

    Equal to open_clip 3.3's SimpleTokenizer for every text. `context_len` is the longest row in tokens; a longer text
    is cut and its last id is the end token.
    """

    def __init__(self, vocabulary: Vocabulary, *, context_len: int = 77) -> None:
        if context_len < 2:
            raise ConfigError(f"context_len: expected at least 2 (start and end token), got {context_len}")
        self.vocabulary = vocabulary
        self.context_len = context_len
        self._words = _Words(vocabulary)

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, *, context_len: int = 77) -> Self:
        """The tokenizer from a file that `save` wrote, or a CLIP's merges.txt; without a path, as `find_vocabulary`."""
        return cls(read_vocabulary(find_vocabulary() if path is None else path), context_len=context_len)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary to one file (gzip, about 250 kB)."""
        write_vocabulary(self.vocabulary, path)

    def forget(self) -> None:
        """Drop the remembered words; ids stay the same."""
        self._words = _Words(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        """Ids of one text from the start token to the end token, at most `context_len` of them."""
        return self([text], cut=True)[0].tolist()

    def __call__(self, texts: str | Sequence[str], *, cut: bool = False) -> Tensor:
        """int64 [T, context_len] ids, zero after the end token. With `cut`, only as many columns as the longest needs.

        Raises DataError when an entry is no text.
        """
        texts = [texts] if isinstance(texts, str) else texts
        most = _ID.itemsize * (self.context_len - 2)
        ids_of = self._words.__getitem__
        rows = []
        for text in texts:
            if not isinstance(text, str):
                raise DataError(f"texts[{len(rows)}]: expected a text, got {type(text).__name__}")
            row = b"".join(map(ids_of, words(text)))
            rows.append(row if len(row) <= most else row[:most])
        return self._pack(rows, cut=cut)

    def _pack(self, rows: list[bytes], *, cut: bool) -> Tensor:
        """Rows of 16-bit ids between a start and an end token, as one zero-padded int64 array."""
        end = np.fromiter(map(len, rows), np.int64, len(rows)) // _ID.itemsize + 1  # [T] column of the end token
        columns = int(end.max(initial=1)) + 1 if cut else self.context_len
        ids = np.zeros((len(rows), columns), np.int64)
        inside = np.arange(columns) < end[:, None]  # [T, L]
        inside[:, 0] = False
        ids[inside] = np.frombuffer(b"".join(rows), _ID)
        ids[:, 0] = self.vocabulary.start_id
        ids[np.arange(len(rows)), end] = self.vocabulary.end_id
        return torch.from_numpy(ids)


class _Words(dict[str, bytes]):
    """The ids of each word met so far, as bytes of 16-bit numbers; an unknown word is worked out and remembered."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self._pieces = _Pieces(vocabulary)

    def __missing__(self, word: str) -> bytes:
        ids = b"".join(map(self._pieces.__getitem__, pieces(word)))
        if len(word) <= MAX_REMEMBERED_LEN:
            if len(self) >= MAX_REMEMBERED:
                self.clear()
            self[word] = ids
        return ids


class _Pieces(dict[str, bytes]):
    """The same for the pieces that words are cut into; those that are one token are known from the start."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._known = {piece: struct.pack("H", index) for piece, index in vocabulary.whole_pieces().items()}
        super().__init__(self._known)
        self._model = vocabulary.model()
        self._symbols = byte_symbols()

    def __missing__(self, piece: str) -> bytes:
        # printable ASCII characters are their own symbols
        is_plain = piece.isascii() and piece.isprintable()
        symbols = piece if is_plain else piece.encode().decode("latin-1").translate(self._symbols)
        tokens = self._model.tokenize(symbols)
        ids = struct.pack(f"{len(tokens)}H", *[token.id for token in tokens])
        if len(piece) <= MAX_REMEMBERED_LEN:
            if len(self) >= len(self._known) + MAX_REMEMBERED:
                self.clear()
                self.update(self._known)
            self[piece] = ids
        return ids
