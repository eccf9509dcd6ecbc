"""Drawings found by their names: whole names against those of the emojis, one to one, what is doubtful left out."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

REFUSED_FILE = Path(__file__).with_name("refused.json")
_WORD_MARKS = str.maketrans({"’": "", "'": "", "“": "", "”": "", "&": "and", "ñ": "n", "é": "e"})


def slug(name: str) -> str:
    """A name as icon sets write it: lower case, words joined by hyphens."""
    return re.sub(r"[^a-z0-9+]+", "-", name.lower().translate(_WORD_MARKS)).strip("-")


@cache
def refused_names() -> dict[str, dict[str, str]]:
    """Style to names of drawings that are not taken, each with its reason.

    They were found by looking at every matched drawing beside noto's ("wrong", "damaged"), and, as twins, by comparing
    thumbnails as `data check` does with a wider limit: one drawing under two names, or in two sets.
    """
    kinds = json.loads(REFUSED_FILE.read_text(encoding="utf-8"))
    found: dict[str, dict[str, str]] = {}
    for style, names in kinds["wrong"].items():
        found.setdefault(style, {}).update(names)
    for style, names in kinds["twins"].items():
        found.setdefault(style, {}).update({name: f"the same picture as {twin}" for name, twin in names.items()})
    return found


class NameMatcher:
    """Names of drawings to concepts.

    Kinds of names are asked in the order given, and the first kind that knows a name decides; a name that means several
    concepts there, and a concept that several names of one kind claim, are doubtful.
    """

    def __init__(self, kinds: Sequence[Mapping[str, Iterable[str]]]) -> None:
        """kinds: hexcode to names, the most trustworthy kind first."""
        self._kinds: list[dict[str, set[str]]] = []
        for kind in kinds:
            meant: dict[str, set[str]] = {}
            for code, names in kind.items():
                for name in names:
                    meant.setdefault(slug(name), set()).add(code)
            self._kinds.append(meant)
        self._joined = [_joined(meant) for meant in self._kinds]

    def match(
        self, names: Iterable[str], *, refused: Iterable[str] = (), is_joined: bool = False
    ) -> tuple[dict[str, str], dict[str, int]]:
        """Hexcode to name, and how many names were left out as refused, unknown or doubtful.

        is_joined: the names have no hyphens between words.
        """
        left_out = {"refused": 0, "unknown": 0, "doubtful": 0}
        claims: dict[str, list[tuple[int, str]]] = {}
        unwanted = frozenset(refused)
        for name in names:
            if name in unwanted:
                left_out["refused"] += 1
                continue
            kinds = self._joined if is_joined else self._kinds
            rank, codes = next(((rank, meant[name]) for rank, meant in enumerate(kinds) if name in meant), (0, set()))
            if len(codes) == 1:
                claims.setdefault(next(iter(codes)), []).append((rank, name))
            else:
                left_out["doubtful" if codes else "unknown"] += 1
        found: dict[str, str] = {}
        for code, claimed in claims.items():
            best = min(rank for rank, _ in claimed)
            first = [name for rank, name in claimed if rank == best]
            if len(first) == 1:
                found[code] = first[0]
            left_out["doubtful"] += len(claimed) - (len(first) == 1)
        return found, left_out


def _joined(meant: Mapping[str, set[str]]) -> dict[str, set[str]]:
    joined: dict[str, set[str]] = {}
    for name, codes in meant.items():
        joined.setdefault(name.replace("-", ""), set()).update(codes)
    return joined
