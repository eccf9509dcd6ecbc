"""The first meaning of a word in WordNet, from its database files, as the text-based filter of DataComp asks for it."""

import os
from collections.abc import Iterator
from pathlib import Path

from eyesmith.errors import DataError

_PARTS = ("noun", "verb", "adj", "adv")  # the order in which meanings are listed
_ENDINGS = {
    "noun": (("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
             ("men", "man"), ("ies", "y")),
    "verb": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}  # fmt: skip


class WordNet:
    """Offsets of first synsets by word. folder: WordNet's `dict` folder (index.noun ..., noun.exc ...).

    ImageNet's ids are offsets of WordNet 3.0; another release gives other numbers. Raises DataError when an index is
    missing. Irregular forms (*.exc) are used where they are there.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        place = Path(folder)
        self._first: dict[str, dict[str, int]] = {}
        self._exceptions: dict[str, dict[str, list[str]]] = {}
        for part in _PARTS:
            path = place / f"index.{part}"
            if not path.is_file():
                raise DataError(
                    f"{path}: not there; expected the `dict` folder of WordNet 3.0 (index.noun, noun.exc ...)"
                )
            self._first[part] = dict(_read_index(path))
            forms = place / f"{part}.exc"
            lines = forms.read_text("utf-8").splitlines() if forms.is_file() else []
            self._exceptions[part] = {words[0]: words[1:] for words in map(str.split, lines) if words}
        self._known: dict[str, int] = {}

    def first_offset(self, word: str) -> int:
        """Offset of the first synset of a word in any of its base forms, -1 for none.

        Nouns before verbs before adjectives before adverbs, the word itself before its base forms, case ignored.
        """
        offset = self._known.get(word)
        if offset is None:
            offset = self._known[word] = self._look_up(word.lower())
        return offset

    def _look_up(self, word: str) -> int:
        for part in _PARTS:
            index = self._first[part]
            for form in self._forms(word, part):
                if form in index:
                    return index[form]
        return -1

    def _forms(self, word: str, part: str) -> Iterator[str]:
        """The word, then its base forms: those listed for an irregular one, else what one ending taken off leaves.

        As in NLTK since endings are taken off only once there.
        """
        yield word
        yield from self._exceptions[part].get(word) or _shorter(word, part)


def read_synset_ids(path: str | os.PathLike[str]) -> frozenset[int]:
    """Offsets of a list of ids such as n02084071 or 02084071, one a line. Raises DataError for another line."""
    ids = set()
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of ids: {error}") from error
    for number, line in enumerate(lines, start=1):
        word = line.split()[0] if line.strip() else ""
        digits = word[1:] if word[:1].isalpha() else word
        if not word:
            continue
        if not digits.isdigit():
            raise DataError(f"{path}, line {number}: expected an id such as n02084071, got {line[:40]!r}")
        ids.add(int(digits))
    if not ids:
        raise DataError(f"{path}: holds no ids; expected one a line, such as n02084071")
    return frozenset(ids)


def _shorter(word: str, part: str) -> list[str]:
    return [word[: len(word) - len(old)] + new for old, new in _ENDINGS[part] if word.endswith(old)]


def _read_index(path: Path) -> Iterator[tuple[str, int]]:
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if line.startswith(" ") or not line:  # the licence
            continue
        fields = line.split()
        try:
            # lemma, part, synsets, pointer kinds and as many of them, senses, tagged senses, offsets
            yield fields[0], int(fields[6 + int(fields[3])])
        except (IndexError, ValueError) as error:
            raise DataError(f"{path}, line {number}: not a line of a WordNet index: {line[:60]!r}") from error
