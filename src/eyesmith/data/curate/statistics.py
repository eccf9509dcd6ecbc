"""What captions look like: how long they are, and how many there are, counted in one pass and added over files."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import polars

_MAX_WORDS, _MAX_CHARS = 256, 1024  # longer ones are counted with these
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_WORD = r"[^\s\x1c-\x1f]+"


class CaptionCounts:
    """Histograms of captions by number of words (0 to 256 and more) and of characters (0 to 1024 and more)."""

    def __init__(self, counts: Mapping[str, Any] | None = None) -> None:
        self.words = np.zeros(_MAX_WORDS + 1, dtype=np.int64)
        self.chars = np.zeros(_MAX_CHARS + 1, dtype=np.int64)
        if counts:
            self.words[: len(counts["words"])] = counts["words"]
            self.chars[: len(counts["chars"])] = counts["chars"]

    def add(self, texts: "polars.Series") -> None:
        """Count a column of strings without nulls."""
        words = np.minimum(texts.str.count_matches(_WORD).to_numpy(), _MAX_WORDS)
        chars = np.minimum(texts.str.len_chars().to_numpy(), _MAX_CHARS)
        self.words += np.bincount(words, minlength=_MAX_WORDS + 1)
        self.chars += np.bincount(chars, minlength=_MAX_CHARS + 1)

    def merge(self, other: "CaptionCounts") -> None:
        """Add the counts of other captions."""
        self.words += other.words
        self.chars += other.chars

    def as_dict(self) -> dict[str, list[int]]:
        """The histograms as lists, zeros at the end left out."""
        return {"words": np.trim_zeros(self.words, "b").tolist(), "chars": np.trim_zeros(self.chars, "b").tolist()}

    def summary(self) -> dict[str, Any]:
        """Number of captions, share of empty ones, and mean and quantiles of words and characters."""
        count = int(self.words.sum())
        facts: dict[str, Any] = {"captions": count, "empty_frac": int(self.chars[0]) / count if count else 0.0}
        for name, histogram in (("words", self.words), ("chars", self.chars)):
            steps = np.cumsum(histogram)
            facts[name] = {"mean": float(histogram @ np.arange(len(histogram))) / count if count else 0.0}
            for share in _QUANTILES:
                # the smallest value that at least this share of the captions does not exceed
                place = int(np.searchsorted(steps, max(1, np.ceil(share * count))))
                facts[name][f"p{share * 100:.0f}"] = min(place, len(histogram) - 1) if count else 0
        return facts
