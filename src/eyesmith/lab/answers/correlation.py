"""How far the small benchmark may be trusted: its order of encoders beside the paper's."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from eyesmith.lab.answers.answer import Answer, Label, listed
from eyesmith.lab.answers.published import SAMPLES, SCORES, Score, published_models
from eyesmith.lab.answers.ranks import Correlation, correlate, correlate_within
from eyesmith.lab.answers.spread import Point

Over = Literal["all", "within", "block", "families"]
LEAST_PAIRS = 3  # two pairs agree or not by a coin


@dataclass(frozen=True, kw_only=True)
class PairRow(Label):
    """One of our settings and the published model it stands for; fractions."""

    level: int
    samples: int
    value: float
    low: float
    high: float
    paper: str
    published_samples: int
    imagenet: float
    average: float


@dataclass(frozen=True, kw_only=True)
class CorrelationRow:
    """Rank correlation with one published score.

    over: "all" pairs; "within": the mean over blocks of one size and budget, where only the encoder differs; "block":
    one of these; "families": each family's mean. p: one-sided, the share of re-orderings that agree as well or better.
    """

    score: Score
    over: Over
    size: str
    level: int | None
    pairs: int
    spearman: float
    spearman_low: float
    spearman_high: float
    spearman_p: float
    kendall: float
    kendall_low: float
    kendall_high: float
    kendall_p: float
    is_exact: bool


@dataclass(frozen=True, kw_only=True)
class CorrelationAnswer(Answer):
    """rows: `PairRow`s."""

    correlations: tuple[CorrelationRow, ...] = ()

    def find(self, over: Over, score: Score = "imagenet") -> CorrelationRow | None:
        """The first correlation of that kind."""
        return next((row for row in self.correlations if (row.over, row.score) == (over, score)), None)


def answer_correlation(points: Sequence[Point]) -> CorrelationAnswer:
    """Of the points that stand for a published model, at the three smallest budgets."""
    models = published_models()
    matched = [point for point in points if point.paper in models and point.setting.level < len(SAMPLES)]
    rows = [
        PairRow(
            encoder=point.setting.encoder,
            family=point.family,
            size=point.setting.size,
            level=point.setting.level,
            samples=point.samples,
            value=point.value,
            low=point.low,
            high=point.high,
            paper=point.paper,
            published_samples=SAMPLES[point.setting.level],
            imagenet=models[point.paper].imagenet[point.setting.level],
            average=models[point.paper].average[point.setting.level],
        )
        for point in matched
    ]
    correlations = [row for score in SCORES for row in _correlations(matched, score)]
    answer = CorrelationAnswer(
        name="correlation",
        title="Trust: does this small benchmark order encoders as the paper's does?",
        sentence="",
        rows=tuple(rows),
        notes=_notes(points, matched),
        correlations=tuple(correlations),
    )
    return replace(answer, sentence=_sentence(answer))


def _correlations(points: Sequence[Point], score: Score) -> list[CorrelationRow]:
    if len(points) < LEAST_PAIRS:
        return []
    blocks: dict[tuple[str, int], list[Point]] = {}
    families: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.setting.encoder):
        blocks.setdefault((point.setting.size, point.setting.level), []).append(point)
        families.setdefault(point.setting.encoder, []).append(point)
    found = [_row(score, "all", correlate(*_arrays(points, score)))]
    usable = {key: block for key, block in blocks.items() if len(block) >= LEAST_PAIRS}
    if usable:
        is_aligned = len({tuple(point.setting.encoder for point in block) for block in usable.values()}) == 1
        arrays = [_arrays(block, score) for block in usable.values()]
        found.append(_row(score, "within", correlate_within(arrays, is_aligned=is_aligned)))
    complete = [members for members in families.values() if len(members) == max(map(len, families.values()))]
    if len(complete) >= LEAST_PAIRS:
        means = [tuple(array.mean(-1) for array in _arrays(members, score)) for members in complete]
        ours, theirs = (np.array([one[place] for one in means]) for place in (0, 1))
        found.append(_row(score, "families", correlate(ours, theirs, np.stack([one[2] for one in means], axis=1))))
    for (size, level), block in usable.items():
        found.append(_row(score, "block", correlate(*_arrays(block, score)), size=size, level=level))
    return found


def _arrays(points: Sequence[Point], score: Score) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ours [N], theirs [N], draws of ours [R, N]."""
    models = published_models()
    return (
        np.array([point.value for point in points]),
        np.array([models[point.paper].score(point.setting.level, score) for point in points]),
        np.stack([point.draws for point in points], axis=1),
    )


def _row(score: Score, over: Over, found: Correlation, *, size: str = "", level: int | None = None) -> CorrelationRow:
    return CorrelationRow(
        score=score,
        over=over,
        size=size,
        level=level,
        pairs=found.n,
        spearman=found.spearman.value,
        spearman_low=found.spearman.low,
        spearman_high=found.spearman.high,
        spearman_p=found.spearman_p,
        kendall=found.kendall.value,
        kendall_low=found.kendall.low,
        kendall_high=found.kendall.high,
        kendall_p=found.kendall_p,
        is_exact=found.is_exact,
    )


def _notes(points: Sequence[Point], matched: Sequence[Point]) -> tuple[str, ...]:
    notes = []
    without = list(dict.fromkeys(point.setting.encoder for point in points if not point.paper))
    if without:
        notes.append(f"The paper's table has no model that {listed(without, most=6)} stands for.")
    blocks = Counter((point.setting.size, point.setting.level) for point in matched)
    if blocks and min(blocks.values()) < LEAST_PAIRS:
        notes.append("A size and budget with fewer than three encoders is left out within sizes and budgets.")
    if matched:
        notes.append(
            "The two orders are of different data, sizes and amounts of samples: the k-th budget here stands beside "
            "the paper's k-th, the smaller size beside S and the larger beside B."
        )
    return tuple(notes)


def _sentence(answer: CorrelationAnswer) -> str:
    whole, within = answer.find("all"), answer.find("within")
    if whole is None:
        return "Fewer than three settings stand for a model of the paper's table, so nothing can be correlated."
    if math.isnan(whole.spearman):
        return f"All {whole.pairs} settings are equally good here, so there is no order to correlate with the paper's."
    text = (
        f"Over all {whole.pairs} settings the rank correlation with the paper's {SCORES['imagenet']} is "
        f"{_rho(whole)}, which more data and larger encoders alone would raise"
    )
    if within is not None and math.isnan(within.spearman):
        text += (
            "; within one size and budget, where only the encoder differs, it cannot be taken, as in one or more "
            "of them all encoders are equally good"
        )
    elif within is not None:
        verdict = "so the order of encoders here says something about theirs"
        if not within.spearman_low > 0 or within.spearman_p > 0.05:
            verdict = "so the order of encoders is not told from a chance one"
        text += (
            f"; within one size and budget, where only the encoder differs, it averages {_rho(within)}, one-sided "
            f"p = {within.spearman_p:.2g} over {'all' if within.is_exact else 'random'} re-orderings of the encoders, "
            f"{verdict}"
        )
    return text + "."


def _rho(row: CorrelationRow) -> str:
    return f"{row.spearman:.2f} ({row.spearman_low:.2f} to {row.spearman_high:.2f})"
