"""How often a chat model gives the very answer, and what the numbers are worth."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eyesmith.data.conversations import Conversation, Turn
from eyesmith.eval.results.rows import ResultRow
from eyesmith.eval.statistics.bootstrap import Interval, bounded, mean
from eyesmith.multimodal.model import ChatModel, Read
from eyesmith.multimodal.packing import NOT_LEARNT, ChatEncoder, padded

TASK, METRIC, MACRO = "chat", "exact_match", "macro"
_REPLICATES = 2000


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One question, what the model says, and whether that is the answer. picture: whose questions are alike."""

    picture: int
    kind: str
    question: str
    answer: str
    said: str
    is_right: bool


@torch.no_grad()
def score(
    model: ChatModel,
    encoder: ChatEncoder,
    items: Sequence[Conversation],
    seen: Tensor,
    *,
    batch_size: int = 32,
) -> list[Scored]:
    """Every last turn of every branch of `items`, in order, by one pass over the answers instead of generation.

    A greedy model says an answer if and only if each of its tokens, its end included, is the likeliest after those
    before it, so the one pass decides what generating would, wherever words have one spelling in tokens. Turns before
    the last one are read as they were answered. What cannot be said counts as wrong: an answer that does not fit into
    the encoder's `max_tokens`, or with a word that the tokenizer does not know. seen: the eye's tokens [n, N, C], a row
    for each item.
    """
    # of a dialogue that is cut before its last answer begins there is nothing to ask
    is_asked = [
        [encoder.last_answer(turns, has_image=item.picture is not None)[0] > 0 for turns in item.branches]
        for item in items
    ]
    kept = [row for row, asked in enumerate(is_asked) if any(asked)]
    answered = _answered(
        model,
        encoder,
        [replace(items[row], branches=tuple(compress(items[row].branches, is_asked[row]))) for row in kept],
        seen[kept],
        batch_size=batch_size,
    )
    return [
        next(answered) if is_said else _scored(item, turns, said="", is_right=False)
        for item, asked in zip(items, is_asked, strict=True)
        for turns, is_said in zip(item.branches, asked, strict=True)
    ]


def _answered(
    model: ChatModel, encoder: ChatEncoder, items: Sequence[Conversation], seen: Tensor, *, batch_size: int
) -> Iterator[Scored]:
    """As `score`, of items whose last answers all begin within `max_tokens`."""
    device = next(model.projector.parameters()).device
    unknown = -1 if encoder.tokenizer.unk_token_id is None else encoder.tokenizer.unk_token_id
    for start in range(0, len(items), batch_size):
        some = items[start : start + batch_size]
        rows = [encoder.row(item.branches, has_image=item.picture is not None) for item in some]
        made = {name: value.to(device) for name, value in padded(rows, encoder.tokenizer.pad_token_id).items()}
        read = Read(made["ids"], made["segments"], made["positions"], seen[start : start + batch_size].to(device))
        places = (made["labels"].flatten() != NOT_LEARNT).nonzero()[:, 0]
        said = model(read, places).argmax(-1).cpu().numpy()
        wanted = made["labels"].flatten()[places].cpu().numpy()
        segments = made["segments"].flatten()[places].cpu().numpy()
        where = (places // made["ids"].shape[1]).cpu().numpy()
        for number, item in enumerate(some):
            for branch, turns in enumerate(item.branches):
                count, is_whole = encoder.last_answer(turns, has_image=item.picture is not None)
                own = np.flatnonzero((where == number) & (segments == 2 + branch))
                own = own[len(own) - count :]
                is_right = is_whole and bool(((said == wanted) & (wanted != unknown))[own].all())
                words = encoder.tokenizer.decode(said[own], skip_special_tokens=True)
                yield _scored(item, turns, said=words, is_right=is_right)


def _scored(item: Conversation, turns: Sequence[Turn], *, said: str, is_right: bool) -> Scored:
    return Scored(
        picture=-1 if item.picture is None else item.picture,
        kind=turns[-1].kind,
        question=turns[-1].question,
        answer=turns[-1].answer,
        said=said,
        is_right=is_right,
    )


def rows_of(
    scored: Sequence[Scored], *, model: str, prefix: str = "", run: dict[str, Any] | None = None
) -> list[ResultRow]:
    """A row for each kind of question and one for the mean over kinds; intervals by drawing pictures anew.

    chance: what the commonest answer of each kind reaches. Answers of no kind are one kind, `all`.
    """
    kinds = sorted({one.kind or "all" for one in scored})
    pictures = {picture: i for i, picture in enumerate(dict.fromkeys(one.picture for one in scored))}
    hits, asked = (np.zeros((len(kinds), len(pictures))) for _ in range(2))
    for one in scored:
        place = kinds.index(one.kind or "all"), pictures[one.picture]
        hits[place] += one.is_right
        asked[place] += 1
    draws = np.random.default_rng(0).multinomial(len(pictures), np.full(len(pictures), 1 / len(pictures)), _REPLICATES)
    with np.errstate(invalid="ignore"):
        drawn = (draws @ hits.T) / (draws @ asked.T)  # [R, K]
    values = hits.sum(1) / asked.sum(1)
    commonest = [
        Counter(one.answer for one in scored if (one.kind or "all") == kind).most_common(1)[0][1] for kind in kinds
    ]
    chances = np.asarray(commonest) / asked.sum(1)
    columns = [(kind, values[i], drawn[:, i], int(asked[i].sum()), chances[i]) for i, kind in enumerate(kinds)]
    columns.append((MACRO, values.mean(), np.nanmean(drawn, axis=1), len(scored), chances.mean()))
    rows = []
    counted = [float((row > 0).sum()) for row in asked]  # pictures of each kind, then what the mean over kinds is of
    counted.append(min(len(pictures), len(kinds) ** 2 / sum(1 / count for count in counted)))
    for (kind, value, samples, n, chance), trials in zip(columns, counted, strict=True):
        drawn_span = Interval(float(value), *map(float, np.nanpercentile(samples, [2.5, 97.5])))
        low, high = bounded(drawn_span, mean, trials)
        rows.append(
            ResultRow(
                model=model,
                task=TASK,
                split=prefix + kind,
                metric=METRIC,
                value=float(value),
                low=float(low),
                high=float(high),
                n=n,
                chance=float(chance),
                run=run,
            )
        )
    return rows
