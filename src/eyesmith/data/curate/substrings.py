"""Which of half a million strings occur in each of many captions, as MetaCLIP matches them.

A caption gets a space at both ends and around each of , . ; : ? ! `; tab, newline and carriage return become spaces;
nothing else is changed. An entry matches when it occurs with a space on both sides. So an entry is a sequence of
words between single spaces, and the automaton runs over words: a trie whose nodes are numbers, walked for all places
of all captions of a batch at once. Source: MetaCLIP (arXiv 2309.16671), sec. 3, and its published code.
"""

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eyesmith.errors import DataError, MissingDependencyError

_SPACE = 32
_MARKS = ",.;:?!`"
_REPEATS = np.ones(256, dtype=np.uint8)
_REPEATS[[ord(mark) for mark in _MARKS]] = 3
_BYTES = np.arange(256, dtype=np.uint8)
_BYTES[[ord(blank) for blank in "\t\n\r"]] = _SPACE
_FILTER_BITS = 23
_BATCH_TEXTS = 1 << 15
_OPEN_SCRIPTS = ("CJK ", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO ", "MYANMAR", "KHMER", "TIBETAN")
Boundaries = Literal["spaces", "scripts"]


@dataclass(frozen=True, slots=True)
class Matches:
    """Entries found in texts, once for each text and entry, by text and then by entry.

    texts, entries: int64 [M], indices; num_texts: how many texts were looked at.
    """

    texts: NDArray[np.int64]
    entries: NDArray[np.int64]
    num_texts: int

    def sets(self) -> list[list[int]]:
        """The entries of each text."""
        if not self.num_texts:
            return []
        ends = np.searchsorted(self.texts, np.arange(1, self.num_texts))
        return [part.tolist() for part in np.split(self.entries, ends)]


def spaced(text: str) -> str:
    """A caption with the spaces that entries are looked for between."""
    text = f" {text} "
    for mark in _MARKS:
        text = text.replace(mark, f" {mark} ")
    return text.translate({ord(blank): " " for blank in "\t\n\r"})


class SubstringMatcher:
    """Finds all entries of a list in captions; overlapping ones too, each at most once a caption.

    entries: distinct, not empty, case-sensitive. boundaries: "spaces" asks for a space on both sides; "scripts" asks
    for none on a side that ends in a character of a script written without spaces, or in punctuation (MetaCLIP 2);
    such entries are found by pyahocorasick. Raises DataError for a repeated or empty entry.
    """

    def __init__(self, entries: Sequence[str], *, boundaries: Boundaries = "spaces") -> None:
        seen: set[str] = set()
        for entry in entries:
            if not isinstance(entry, str) or not entry or entry in seen:
                what = "is not a string with something in it" if entry not in seen else "stands twice"
                raise DataError(f"entry {entry!r} {what}; entries are distinct strings")
            seen.add(entry)
        self.num_entries = len(entries)
        self.hashes = np.array([_hash(entry) for entry in entries], dtype=np.uint64)  # [entries], whatever their order
        is_open = [boundaries == "scripts" and any(_open_sides(entry)) for entry in entries]
        self._automaton = _open_automaton([(i, e) for i, e in enumerate(entries) if is_open[i]])
        self._words: dict[bytes, int] = {}
        self._build([(i, e) for i, e in enumerate(entries) if not is_open[i]])

    def match(self, texts: Any) -> Matches:
        """Entries of `texts`: a sequence of strings, or a polars or Arrow column of them (null is an empty text)."""
        import pyarrow as pa
        import pyarrow.compute as pc

        column = texts.to_arrow() if hasattr(texts, "to_arrow") else texts
        if not isinstance(column, pa.Array):
            column = pa.array(list(column), type=pa.large_string())
        column = pc.fill_null(column.cast(pa.large_string()), "")
        parts = [self._match_batch(column.slice(i, _BATCH_TEXTS)) + i * self.num_entries
                 for i in range(0, len(column), _BATCH_TEXTS)]  # fmt: skip
        found = np.concatenate(parts) if parts else np.empty(0, np.int64)
        if self._automaton is not None:
            found = _distinct(np.concatenate([found, self._match_open(column.to_pylist())]))
        return Matches(*np.divmod(found, max(self.num_entries, 1)), len(column))

    def _build(self, entries: list[tuple[int, str]]) -> None:
        words, terminal = self._words, [-1]
        children: dict[tuple[int, int], int] = {}
        for number, entry in entries:
            node = 0
            for word in entry.encode().split(b" "):
                key = (node, words.setdefault(word + b" ", len(words)))
                node = children.setdefault(key, len(terminal))
                if node == len(terminal):
                    terminal.append(-1)
            terminal[node] = number
        self._terminal = np.array(terminal, dtype=np.int64)  # [nodes], the entry that ends there
        self._first = np.zeros(len(words) + 1, dtype=np.int64)  # [words + 1], node behind the root; the last is "none"
        for (node, word), child in children.items():
            if node == 0:
                self._first[word] = child
        deeper = [(node * len(words) + word, child) for (node, word), child in children.items() if node]
        deeper.sort()
        self._keys = np.array([key for key, _ in deeper], dtype=np.int64)
        self._children = np.array([child for _, child in deeper], dtype=np.int64)
        self._has_children = np.zeros(len(terminal), dtype=bool)
        self._has_children[self._keys // max(len(words), 1)] = True
        self._may_be = np.zeros(1 << _FILTER_BITS, dtype=bool)  # nearly all pairs of words are no node: said at once
        self._may_be[_slots(self._keys)] = True

    def _match_batch(self, column: Any) -> NDArray[np.int64]:
        """Sorted text * num_entries + entry, once each."""
        words, is_last, ends = self._word_ids(column)
        places = np.flatnonzero(nodes := self._first[words])
        nodes = nodes[places]
        found_places, found_entries = [], []
        starts = places
        while len(places):
            entries = self._terminal[nodes]
            is_end = entries >= 0
            found_places.append(starts[is_end])
            found_entries.append(entries[is_end])
            goes_on = self._has_children[nodes] & ~is_last[places]
            nodes, places, starts = nodes[goes_on], places[goes_on] + 1, starts[goes_on]
            following = words[places]
            keys = nodes * len(self._words) + following
            may_be = (following < len(self._words)) & self._may_be[_slots(keys)]
            keys, places, starts = keys[may_be], places[may_be], starts[may_be]
            slots = np.minimum(np.searchsorted(self._keys, keys), max(len(self._keys) - 1, 0))
            is_node = self._keys[slots] == keys if len(self._keys) else np.zeros(0, dtype=bool)
            nodes, places, starts = self._children[slots[is_node]], places[is_node], starts[is_node]
        if not found_places:
            return np.empty(0, np.int64)
        texts = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))[np.concatenate(found_places)]
        return _distinct(texts * self.num_entries + np.concatenate(found_entries))

    def _word_ids(self, column: Any) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
        """Word numbers of all texts in a row, whether each is the last of its text, and the end of each text."""
        import pyarrow as pa
        import pyarrow.compute as pc

        space, nothing = (pa.scalar(value, pa.large_string()) for value in (" ", ""))
        column = pc.call_function("binary_join_element_wise", [column, space, nothing])  # a space behind each text
        offsets = np.frombuffer(column.buffers()[1], dtype=np.int64)[column.offset :][: len(column) + 1]
        data = np.frombuffer(column.buffers()[2], dtype=np.uint8)[offsets[0] : offsets[-1]]
        offsets = offsets - offsets[0]
        repeats = _REPEATS[data]
        marks = np.flatnonzero(repeats == 3)
        data = np.repeat(data, repeats)
        text_ends = offsets[1:] + 2 * np.searchsorted(marks, offsets[1:])  # in the longer buffer
        marks += 2 * np.arange(len(marks))
        data[marks] = data[marks + 2] = _SPACE
        data = _BYTES[data]
        breaks = np.append(0, np.flatnonzero(data == _SPACE) + 1)
        buffers = [None, pa.py_buffer(breaks), pa.py_buffer(data)]
        tokens = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(breaks) - 1, buffers).dictionary_encode()
        missing, lookup = len(self._words), self._words.get
        known = np.fromiter(map(lookup, tokens.dictionary.to_pylist(), repeat(missing)), dtype=np.int64)
        words = known[tokens.indices.to_numpy()]  # [tokens]
        ends = np.searchsorted(breaks[1:], text_ends, side="right")  # [texts]
        is_last = np.zeros(len(words), dtype=bool)
        is_last[ends - 1] = True
        return words, is_last, ends

    def _match_open(self, texts: list[str]) -> NDArray[np.int64]:
        found = [
            number * self.num_entries + entry
            for number, text in enumerate(texts)
            for _, entry in self._automaton.iter(spaced(text))
        ]
        return np.array(found, dtype=np.int64)


def _open_automaton(entries: list[tuple[int, str]]) -> Any:
    if not entries:
        return None
    try:
        import ahocorasick
    except ImportError as error:
        raise MissingDependencyError(
            "entries of scripts without spaces are found by pyahocorasick: pip install 'eyesmith[curate]'"
        ) from error
    automaton = ahocorasick.Automaton()
    for number, entry in entries:
        left, right = _open_sides(entry)
        automaton.add_word(f"{'' if left else ' '}{entry}{'' if right else ' '}", number)
    automaton.make_automaton()
    return automaton


def _open_sides(entry: str) -> tuple[bool, bool]:
    return _is_open(entry[0]), _is_open(entry[-1])


def _is_open(character: str) -> bool:
    name = unicodedata.name(character, "")
    return name.startswith(_OPEN_SCRIPTS) or unicodedata.category(character)[0] == "P"


def _distinct(values: NDArray[np.int64]) -> NDArray[np.int64]:
    values = np.sort(values)
    return values[np.append(True, values[1:] != values[:-1])] if len(values) else values


def _slots(keys: NDArray[np.int64]) -> NDArray[np.uint64]:
    return (keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _FILTER_BITS)


def _hash(entry: str) -> int:
    return int.from_bytes(hashlib.blake2b(entry.encode(), digest_size=8).digest(), "little")
