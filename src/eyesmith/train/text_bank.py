"""All captions of a run as features, for a locked text tower."""

from collections.abc import Sequence

from torch import Tensor

from eyesmith.models.clip import Clip
from eyesmith.models.text.cache import TextCache


class TextBank:
    """Unit features of every distinct caption; `num_encoded` counts those that no earlier run had encoded."""

    def __init__(self, clip: Clip, texts: Sequence[str]) -> None:
        distinct = list(dict.fromkeys(texts))
        cache = TextCache(clip.text, clip.encode_text)
        self._features = cache(distinct)  # [T, D]
        self._rows = {text: row for row, text in enumerate(distinct)}
        self.num_encoded = cache.num_encoded

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """[B, D] fp32 on the CPU."""
        return self._features[[self._rows[text] for text in texts]]
