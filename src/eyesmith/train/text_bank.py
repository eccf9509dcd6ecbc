"""Captions as features, for a locked text tower: all of a run kept, or those of a batch as it passes."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from eyesmith.data.loader import on_device
from eyesmith.models.clip import Clip, evaluating
from eyesmith.models.text.cache import TextCache
from eyesmith.train.config import WantedPrecision
from eyesmith.train.precision import autocast, choose_precision

_BATCH = 256  # texts that a tower sees at a time


class TextBank:
    """Unit features of every distinct caption; `num_encoded` counts those that no earlier run had encoded."""

    def __init__(self, clip: Clip, texts: Sequence[str], precision: WantedPrecision = "fp32") -> None:
        device = clip.logit_scale.device
        chosen = choose_precision(precision, device)

        def encode(some: Sequence[str]) -> Tensor:
            with autocast(chosen, device):
                return clip.encode_text(some)

        distinct = list(dict.fromkeys(texts))
        cache = TextCache(clip.text, encode, precision=chosen)
        self._features = cache(distinct)  # [T, D]
        self._rows = {text: row for row, text in enumerate(distinct)}
        self.num_encoded = cache.num_encoded

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """[B, D] fp32 on the CPU."""
        return self._features[[self._rows[text] for text in texts]]


class ClassTexts:
    """A caption of every class that a data set holds, drawn anew each step: what images are told apart by.

    `places`: int64 [C], the row of each class index of the data set, -1 for one without a sample.
    """

    def __init__(self, bank: TextBank, captions: Mapping[int, Sequence[str]], *, num_classes: int, seed: int) -> None:
        """captions: of each class index, all in the bank; num_classes: C."""
        self._bank, self._seed = bank, seed
        self._captions = [tuple(dict.fromkeys(captions[label])) for label in sorted(captions)]
        self.places = torch.full((num_classes,), -1)
        self.places[sorted(captions)] = torch.arange(len(captions))

    def __len__(self) -> int:
        return len(self._captions)

    def __call__(self, step: int) -> Tensor:
        """Unit features [K, D] fp32 on the CPU, class by class in the order of `places`."""
        draws = np.random.default_rng([self._seed, step, 1]).random(len(self._captions))
        return self._bank([some[int(len(some) * draw)] for some, draw in zip(self._captions, draws, strict=True)])


class PassingTexts:
    """Unit features of a batch's captions, each distinct one encoded once; nothing is kept.

    For sets so large that every caption passes once, or that their features fit nowhere. What a batch gets depends on
    its own captions alone, so a resumed run gets the same bits.
    """

    def __init__(self, clip: Clip, precision: WantedPrecision) -> None:
        self._clip = clip
        self._precision: WantedPrecision = precision
        self.num_encoded = 0

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """[B, D] fp32 on the model's device, which is not waited for."""
        clip, device = self._clip, self._clip.logit_scale.device
        distinct = list(dict.fromkeys(texts))
        rows = {text: row for row, text in enumerate(distinct)}
        found = []
        with evaluating(clip), torch.no_grad(), autocast(choose_precision(self._precision, device), device):
            for start in range(0, len(distinct), _BATCH):
                ids = clip.text.tokenize(distinct[start : start + _BATCH])
                found.append(clip.text_features(on_device(ids, device)))
        self.num_encoded += len(distinct)
        places = torch.tensor([rows[text] for text in texts])
        return torch.cat(found)[on_device(places, device)]


Texts = TextBank | PassingTexts
"""Unit features of captions, without gradient."""
