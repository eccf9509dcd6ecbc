"""Hybrid design: encoders of convolution and attention against those of one kind, at equal parameters, and by cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from eyesmith.lab.answers.answer import Answer, Label, amount, gain, listed, missing_note, told
from eyesmith.lab.answers.spread import Point, mean_spread
from eyesmith.lab.result import Measured

Kind = Literal["hybrid", "convolution", "transformer"]
KINDS: dict[str, Kind] = {
    "ViTamin": "hybrid",
    "CoAtNet": "hybrid",
    "ConvNeXt": "convolution",
    "ViT": "transformer",
    "TrV": "transformer",
}
COSTS = {
    "gmacs": "billion multiply-adds",
    "latency_ms": "latency of one image",
    "peak_mib": "memory",
    "train_s": "training time",
}


@dataclass(frozen=True, kw_only=True)
class CostRow(Label):
    """An encoder at the largest budget and what it costs here; None where it was not measured.

    latency_ms: of one image; batch_ms: of the largest batch measured, per batch. front: names of the costs for which no
    other encoder has a higher accuracy at no higher cost.
    """

    samples: int
    value: float
    low: float
    high: float
    parameters: int
    gmacs: float
    latency_ms: float | None
    latency_low: float | None
    latency_high: float | None
    batch_ms: float | None
    peak_mib: float | None
    train_s: float
    front: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A hybrid against an encoder of one kind: the mean difference over sizes and budgets that have both."""

    hybrid: str
    pure: str
    kind: Kind
    settings: int
    ahead: int
    behind: int
    difference: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class HybridAnswer(Answer):
    """rows: `CostRow`s, the most accurate first."""

    contrasts: tuple[Contrast, ...] = ()


def answer_hybrid(points: Sequence[Point], measured: Sequence[Measured]) -> HybridAnswer:
    """Of the points of the grid. ViT of other patches than 16 is no contrast: equal parameters, other tokens."""
    title = "Hybrid: convolution and attention against either alone?"
    rows = _cost_rows(points, measured)
    contrasts, texts = [], []
    usual = [point for point in points if point.setting.encoder in (point.family, f"{point.family}/16")]
    names = list(dict.fromkeys((point.setting.encoder, point.family) for point in usual))
    hybrids = [encoder for encoder, family in names if KINDS.get(family) == "hybrid"]
    pures: list[tuple[str, Kind]] = [
        (name, kind) for name, family in names if (kind := KINDS.get(family)) and kind != "hybrid"
    ]
    table = {(p.setting.encoder, p.setting.size, p.setting.level): p for p in usual}
    for hybrid in sorted(hybrids, key=lambda name: name != "ViTamin"):
        parts = []
        for pure, kind in pures:
            pairs = [
                table[hybrid, size, level].minus(table[pure, size, level])
                for name, size, level in table
                if name == hybrid and (pure, size, level) in table
            ]
            if not pairs:
                continue
            mean = mean_spread(pairs)
            contrast = Contrast(
                hybrid=hybrid,
                pure=pure,
                kind=kind,
                settings=len(pairs),
                ahead=sum(pair.sign > 0 for pair in pairs),
                behind=sum(pair.sign < 0 for pair in pairs),
                difference=mean.value,
                low=mean.low,
                high=mean.high,
            )
            contrasts.append(contrast)
            parts.append(f"{gain(mean)} against {pure}{told(mean)}")
        if parts:
            texts.append(f"{hybrid} is {listed(parts)}")
    sentence = "There is no hybrid and encoder of one kind with the same size and budget to compare."
    if texts:
        sentence = f"At equal size and budget, averaged over all of them, {'; '.join(texts)}."
    return HybridAnswer(
        name="hybrid",
        title=title,
        sentence=sentence,
        detail=_front_sentence(rows),
        rows=tuple(rows),
        notes=missing_note(points) + _unmeasured(rows),
        contrasts=tuple(contrasts),
    )


def _cost_rows(points: Sequence[Point], measured: Sequence[Measured]) -> list[CostRow]:
    if not points:
        return []
    known = {(one.encoder, one.size): one for one in measured}
    top = max(point.setting.level for point in points)
    rows = []
    for point in points:
        if point.setting.level != top:
            continue
        one = known.get((point.setting.encoder, point.setting.size))
        few, many = (min(one.latency_ms), max(one.latency_ms)) if one is not None and one.latency_ms else (0, 0)
        rows.append(
            CostRow(
                encoder=point.setting.encoder,
                family=point.family,
                size=point.setting.size,
                samples=point.samples,
                value=point.value,
                low=point.low,
                high=point.high,
                parameters=point.parameters,
                gmacs=point.gmacs,
                latency_ms=one.latency_ms[few] if one is not None and few else None,
                latency_low=one.latency_low.get(few) if one is not None else None,
                latency_high=one.latency_high.get(few) if one is not None else None,
                batch_ms=one.latency_ms[many] if one is not None and many else None,
                peak_mib=one.peak_mib if one is not None else None,
                train_s=point.train_s,
            )
        )
    rows.sort(key=lambda row: -row.value)
    return [_with_front(row, rows) for row in rows]


def _with_front(row: CostRow, rows: Sequence[CostRow]) -> CostRow:
    front = []
    for cost in COSTS:
        mine = getattr(row, cost)
        others = [(getattr(other, cost), other.value) for other in rows if other is not row]
        if mine is not None and not any(
            cost_ is not None and cost_ <= mine and value > row.value for cost_, value in others
        ):
            front.append(cost)
    return replace(row, front=tuple(front))


def _front_sentence(rows: Sequence[CostRow]) -> str:
    parts = []
    for cost in ("gmacs", "latency_ms"):
        if all(getattr(row, cost) is None for row in rows):
            continue
        names = [row.name for row in rows if cost in row.front]
        parts.append(f"by {COSTS[cost]}, {listed(names, most=5)}")
    if not parts:
        return ""
    return (
        f"At {amount(max(row.samples for row in rows))} images these are beaten by none at no higher cost, going by "
        f"the means: {'; '.join(parts)}."
    )


def _unmeasured(rows: Sequence[CostRow]) -> tuple[str, ...]:
    lost = [row.name for row in rows if row.latency_ms is None]
    return (f"Latency and memory were not measured of {listed(lost, most=6)}.",) if lost else ()
