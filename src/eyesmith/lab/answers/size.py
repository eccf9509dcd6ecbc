"""Model scalability: what the larger size of an encoder gives at each amount of training samples."""

from collections.abc import Sequence
from dataclasses import dataclass

from eyesmith.lab.answers.answer import Answer, amount, by_label, gain, missing_note, sizes_in_order, told
from eyesmith.lab.answers.spread import Point, Spread


@dataclass(frozen=True, kw_only=True)
class GainRow:
    """The large size's accuracy less the small one's, fractions."""

    encoder: str
    family: str
    small: str
    large: str
    level: int
    samples: int
    small_parameters: int
    large_parameters: int
    gain: float
    low: float
    high: float


def answer_size(points: Sequence[Point]) -> Answer:
    """Of the points of the grid, between the smallest and the largest size."""
    sizes = sizes_in_order(points)
    title = "Size: what does a larger encoder give?"
    if len(sizes) < 2:
        return Answer(name="size", title=title, sentence="There is one size only, so nothing can be said about others.")
    small, large = sizes[0], sizes[-1]
    rows: list[GainRow] = []
    gains: dict[tuple[str, int], Spread] = {}
    curves = by_label(points)
    for encoder in dict.fromkeys(point.setting.encoder for point in points):
        low_curve, high_curve = curves.get((encoder, small), {}), curves.get((encoder, large), {})
        for level in sorted(set(low_curve) & set(high_curve)):
            one, two = low_curve[level], high_curve[level]
            difference = two.minus(one)
            gains[encoder, level] = difference
            rows.append(
                GainRow(
                    encoder=encoder,
                    family=two.family,
                    small=small,
                    large=large,
                    level=level,
                    samples=two.samples,
                    small_parameters=one.parameters,
                    large_parameters=two.parameters,
                    gain=difference.value,
                    low=difference.low,
                    high=difference.high,
                )
            )
    sentence = _sentence(rows, gains)
    return Answer(name="size", title=title, sentence=sentence, rows=tuple(rows), notes=missing_note(points))


def _sentence(rows: Sequence[GainRow], gains: dict[tuple[str, int], Spread]) -> str:
    if not rows:
        return "No encoder was trained at both sizes with the same budget."
    top = max(row.level for row in rows)
    last = sorted((row for row in rows if row.level == top), key=lambda row: row.gain)
    factor = last[-1].large_parameters / max(last[-1].small_parameters, 1)
    best, worst = last[-1], last[0]
    text = (
        f"{factor:.1f} times the parameters ({best.large} for {best.small}) at {amount(best.samples)} images give "
        f"{best.encoder} most, {gain(gains[best.encoder, top])}"
    )
    if best is not worst:
        apart = gains[best.encoder, top].minus(gains[worst.encoder, top])
        text += f", and {worst.encoder} least, {gain(gains[worst.encoder, top])}{told(apart)}"
    bottom = min(row.level for row in rows)
    both = [row.encoder for row in last if (row.encoder, bottom) in gains]
    if bottom != top and both:
        grown = [gains[encoder, top].minus(gains[encoder, bottom]).sign for encoder in both]
        text += (
            f". From the smallest budget to the largest that gain grows in {grown.count(1)} of {len(both)} encoders, "
            f"shrinks in {grown.count(-1)} and is not told apart in {grown.count(0)}"
        )
    return text + "."
