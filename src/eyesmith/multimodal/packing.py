"""Dialogues as the rows of token ids that a language model learns from, those of one picture packed into one row.

A packed row holds what all dialogues of a picture begin with, picture included, once, and then each of them as a branch
that sees the beginning and itself only. It computes what the dialogues one by one would, at the cost of one picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from eyesmith.data.conversations import IMAGE_WORD, Turn
from eyesmith.errors import DataError
from eyesmith.multimodal.template import Template

NOT_LEARNT = -100  # in labels
_START = 1  # segment of what the branches share; 0 is padding, branches count from 2


class Row(NamedTuple):
    """One packed picture; int64 [L] each.

    labels: the id that this place shall foretell, NOT_LEARNT where nothing is; segments: 0 padding, 1 the shared
    beginning, 2 ... one a branch; positions: of the token in its own dialogue.
    """

    ids: np.ndarray
    labels: np.ndarray
    segments: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True, kw_only=True)
class ChatEncoder:
    """Dialogues to ids. tokenizer: of Hugging Face, fast, with `<image>` among its tokens; num_image_tokens: that a
    picture becomes; max_tokens: longest dialogue, the picture included; what is longer is cut at its end.
    """

    tokenizer: Any
    template: Template
    num_image_tokens: int
    max_tokens: int

    @property
    def image_id(self) -> int:
        return self.tokenizer.convert_tokens_to_ids(IMAGE_WORD)

    def expand(self, text: str) -> str:
        """The text with as many image words as a picture has tokens."""
        return text.replace(IMAGE_WORD, IMAGE_WORD * self.num_image_tokens)

    def dialogue(self, turns: Sequence[Turn], *, has_image: bool) -> tuple[np.ndarray, np.ndarray]:
        """ids and whether each is learnt, [L] both. Raises DataError where nothing learnt is left after cutting."""
        whole, turn_of = self._whole(turns, has_image=has_image)
        ids, learnt = whole[: self.max_tokens], turn_of[: self.max_tokens] > 0
        if np.count_nonzero(ids == self.image_id) > self.num_image_tokens * has_image:
            raise DataError(f"says {IMAGE_WORD}, which stands for a picture; write it otherwise")
        if not learnt.any():
            raise DataError(f"is {len(whole):,} tokens long, and of the first {self.max_tokens:,} none is an answer's")
        return ids, learnt

    def last_answer(self, turns: Sequence[Turn], *, has_image: bool) -> tuple[int, bool]:
        """How many of what `dialogue` learns are the last answer's, and whether that is there to its end."""
        _, turn_of = self._whole(turns, has_image=has_image)
        is_last = turn_of == len(turns)
        return int(is_last[: self.max_tokens].sum()), not is_last[self.max_tokens :].any()

    def _whole(self, turns: Sequence[Turn], *, has_image: bool) -> tuple[np.ndarray, np.ndarray]:
        """ids of a dialogue before it is cut, and of each the turn, from 1, whose answer it is part of, else 0."""
        rendered = self.template.render(turns, has_image=has_image)
        extra = (self.num_image_tokens - 1) * len(IMAGE_WORD) if has_image else 0
        found = self.tokenizer(self.expand(rendered.text), return_offsets_mapping=True)
        starts = np.asarray([start for start, _ in found["offset_mapping"]]) - extra
        ends = np.asarray([end for _, end in found["offset_mapping"]]) - extra
        turn_of = np.zeros(len(starts), dtype=np.int64)
        for turn, (start, end) in enumerate(rendered.learnt, 1):
            turn_of[(starts >= start) & (starts < end) & (ends > start)] = turn
        return np.asarray(found["input_ids"]), turn_of

    def prompt(self, turns: Sequence[Turn], question: str, *, has_image: bool) -> list[int]:
        """ids of what is read before the answer."""
        return self.tokenizer(self.expand(self.template.prompt(turns, question, has_image=has_image)))["input_ids"]

    def row(self, branches: Sequence[Sequence[Turn]], *, has_image: bool) -> Row:
        """All branches of a picture as one row."""
        parts = [self.dialogue(branch, has_image=has_image) for branch in branches]
        shared = self._shared([ids for ids, _ in parts], has_image=has_image and len(parts) > 1)
        return packed(parts, shared)

    def _shared(self, dialogues: Sequence[np.ndarray], *, has_image: bool) -> int:
        """How many ids all dialogues begin with: up to the end of the picture."""
        if not has_image:
            return 0
        return int(np.flatnonzero(dialogues[0] == self.image_id)[-1]) + 1


def packed(parts: Sequence[tuple[np.ndarray, np.ndarray]], shared: int) -> Row:
    """Dialogues, (ids, learnt) each, whose first `shared` ids are equal and not learnt, as one row."""
    ids, learnt = parts[0]
    rows = [(ids[:shared], np.full(shared, NOT_LEARNT), np.full(shared, _START), np.arange(shared))]
    for number, (ids, learnt) in enumerate(parts):
        assert not learnt[: shared + 1].any(), "nothing before it foretells it"
        labels = np.append(np.where(learnt[1:], ids[1:], NOT_LEARNT), NOT_LEARNT)
        own = slice(shared, None)
        segment = np.full(len(ids) - shared, _START + 1 + number)
        rows.append((ids[own], labels[own], segment, np.arange(shared, len(ids))))
    return Row(*(np.concatenate(column).astype(np.int64) for column in zip(*rows, strict=True)))


def padded(rows: Sequence[Row], pad_id: int) -> dict[str, Tensor]:
    """ids, labels, segments, positions: int64 [b, L] each, L the longest row's, padding at the end."""
    length = max(len(row.ids) for row in rows)

    def column(values: Sequence[np.ndarray], fill: int) -> Tensor:
        out = np.full((len(values), length), fill, dtype=np.int64)
        for place, value in zip(out, values, strict=True):
            place[: len(value)] = value
        return torch.from_numpy(out)

    fills = {"ids": pad_id, "labels": NOT_LEARNT, "segments": 0, "positions": 0}
    return {name: column([getattr(row, name) for row in rows], fill) for name, fill in fills.items()}


def may_see(segments: Tensor) -> Tensor:
    """Which places each place sees: bool [b, 1, L, L], row the one that looks. segments: int64 [b, L].

    A place sees what comes before it in its own branch and in the shared beginning. Padding sees itself, so that no row
    of the attention is empty.
    """
    places = torch.arange(segments.shape[1], device=segments.device)
    looks, seen = segments[:, :, None], segments[:, None, :]
    before = places[None, :, None] >= places[None, None, :]
    return (before & ((looks == seen) | ((seen == _START) & (looks > 0))))[:, None]
