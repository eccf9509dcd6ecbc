"""Feature resolution: one encoder at several strides, at equal size and budget."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from eyesmith.lab.answers.answer import Answer, gain, listed, told
from eyesmith.lab.answers.spread import Point, Spread, mean_spread

OWN_STRIDE = {"ViTamin": 16, "ViT": 16, "TrV": 16}  # where the plan's name does not say


@dataclass(frozen=True, kw_only=True)
class StrideRow:
    """stride: pixels from one feature to the next; value, low, high: fractions."""

    encoder: str
    family: str
    size: str
    level: int
    samples: int
    stride: int
    parameters: int
    gmacs: float
    value: float
    low: float
    high: float


def stride_of(encoder: str, family: str) -> int | None:
    """Pixels from one feature to the next by the plan's name: ViT/8, ViTamin:stride32, ViTamin; None for others."""
    match = re.fullmatch(r"\w+/(\d+)", encoder) or re.fullmatch(r"\w+:stride(\d+)", encoder)
    if match:
        return int(match[1])
    return OWN_STRIDE.get(family) if encoder == family else None


def answer_resolution(points: Sequence[Point]) -> Answer:
    """Of all points whose family comes with several strides."""
    title = "Resolution: what do finer features give?"
    strided = [(stride_of(point.setting.encoder, point.family), point) for point in points]
    known = [(stride, point) for stride, point in strided if stride is not None]
    strides: dict[tuple[str, str, int], set[int]] = {}
    for stride, point in known:
        strides.setdefault(_place(point), set()).add(stride)
    known = [(stride, point) for stride, point in known if len(strides[_place(point)]) > 1]
    families = list(dict.fromkeys(point.family for _, point in known))
    rows = [
        StrideRow(
            encoder=point.setting.encoder,
            family=point.family,
            size=point.setting.size,
            level=point.setting.level,
            samples=point.samples,
            stride=stride,
            parameters=point.parameters,
            gmacs=point.gmacs,
            value=point.value,
            low=point.low,
            high=point.high,
        )
        for stride, point in sorted(known, key=lambda one: one[0])
    ]
    steps: list[str] = []
    for family in families:
        for (fine, coarse), spread in _steps([(stride, p) for stride, p in known if p.family == family]).items():
            steps.append(f"{family} {gain(spread)} with stride {fine} in place of {coarse}{told(spread)}")
    sentence = "No encoder was trained at several strides with the same size and budget."
    if steps:
        sentence = f"At equal size and budget, finer features give {listed(steps)}."
    return Answer(name="resolution", title=title, sentence=sentence, rows=tuple(rows))


def _place(point: Point) -> tuple[str, str, int]:
    """Where strides can be compared."""
    return point.family, point.setting.size, point.setting.level


def _steps(known: Sequence[tuple[int, Point]]) -> dict[tuple[int, int], Spread]:
    """Mean gain of each stride over the next coarser one, over the sizes and levels that have both."""
    table: dict[int, dict[tuple[str, int], Point]] = {}
    for stride, point in known:
        table.setdefault(stride, {})[point.setting.size, point.setting.level] = point
    strides = sorted(table)
    found = {}
    for fine, coarse in pairwise(strides):
        both = [key for key in table[fine] if key in table[coarse]]
        if both:
            found[fine, coarse] = mean_spread([table[fine][key].minus(table[coarse][key]) for key in both])
    return found
