"""Data scalability: what more training samples give each encoder, and the power law its error follows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eyesmith.lab.answers.answer import Answer, Label, amount, by_label, gain, listed, missing_note, told
from eyesmith.lab.answers.power_law import FLOOR_BUDGETS, PowerLaw, fit_power_law
from eyesmith.lab.answers.spread import Point, Spread


@dataclass(frozen=True, kw_only=True)
class DataRow(Label):
    """One point of a curve. value, low, high, chance: fractions; n: queries."""

    level: int
    samples: int
    value: float
    low: float
    high: float
    seeds: int
    n: int
    chance: float | None


@dataclass(frozen=True, kw_only=True)
class Fit(Label):
    """error = floor + scale * samples ** -exponent; floor None where it was not fitted."""

    exponent: float
    exponent_low: float
    exponent_high: float
    scale: float
    floor: float | None
    floor_low: float | None
    floor_high: float | None
    residual: float
    budgets: int
    held_out: int | None = None
    foretold: float | None = None
    foretold_low: float | None = None
    foretold_high: float | None = None
    found: float | None = None
    """The largest budget, and its error as the law of the smaller ones foretells it and as it is; of three budgets."""

    def error(self, samples: float) -> float:
        """The fitted error at a number of samples."""
        return (self.floor or 0.0) + self.scale * samples**-self.exponent


@dataclass(frozen=True, kw_only=True)
class DataAnswer(Answer):
    """rows: `DataRow`s."""

    fits: tuple[Fit, ...] = ()


def answer_data(points: Sequence[Point]) -> DataAnswer:
    """Of the points of the grid."""
    curves = by_label(points)
    rows, fits, laws, gains = [], [], {}, {}
    for (encoder, size), curve in curves.items():
        ordered = [curve[level] for level in sorted(curve)]
        label = {"encoder": encoder, "family": ordered[0].family, "size": size}
        rows += [
            DataRow(
                **label,
                level=point.setting.level,
                samples=point.samples,
                value=point.value,
                low=point.low,
                high=point.high,
                seeds=len(point.by_seed),
                n=point.n,
                chance=point.chance,
            )
            for point in ordered
        ]
        if len({point.samples for point in ordered}) < 2:
            continue
        law = _fit(ordered)
        laws[encoder, size] = law
        gains[encoder, size] = ordered[-1].minus(ordered[0])
        fits.append(
            Fit(
                **label,
                exponent=law.exponent.value,
                exponent_low=law.exponent.low,
                exponent_high=law.exponent.high,
                scale=law.scale,
                floor=None if law.floor is None else law.floor.value,
                floor_low=None if law.floor is None else law.floor.low,
                floor_high=None if law.floor is None else law.floor.high,
                residual=law.residual,
                budgets=len(ordered),
                **_held_out(ordered),
            )
        )
    notes = list(missing_note(points))
    if fits and max(fit.budgets for fit in fits) < FLOOR_BUDGETS:
        notes.append(
            f"With fewer than {FLOOR_BUDGETS} budgets the fit has no floor: the exponent describes this range and "
            "foretells nothing far beyond it."
        )
    return DataAnswer(
        name="data",
        title="Data: what do more training samples give?",
        sentence=_sentence(points, laws, gains, fits),
        rows=tuple(rows),
        notes=tuple(notes),
        fits=tuple(fits),
    )


def _fit(points: Sequence[Point]) -> PowerLaw:
    """Errors are kept half a query above 0, whose logarithm has no place on a line."""
    edges = np.array([0.5 / max(point.n, 1) for point in points])
    return fit_power_law(
        np.array([point.samples for point in points], dtype=float),
        np.maximum(1 - np.array([point.value for point in points]), edges),
        np.maximum(1 - np.stack([point.draws for point in points], axis=1), edges),
    )


def _held_out(points: Sequence[Point]) -> dict[str, Any]:
    """The law of all budgets but the largest, asked for that one. Source: the check of arXiv 2506.04598."""
    last = points[-1]
    rest = [point for point in points if point.samples < last.samples]
    if len({point.samples for point in rest}) < 2:
        return {}
    found = _fit(rest).foretell(last.samples)
    return {
        "held_out": last.samples,
        "foretold": found.value,
        "foretold_low": found.low,
        "foretold_high": found.high,
        "found": 1 - last.value,
    }


def _sentence(points: Sequence[Point], laws: dict, gains: dict, fits: Sequence[Fit]) -> str:
    missed = [abs(fit.foretold / fit.found - 1) for fit in fits if fit.foretold is not None and fit.found]
    if not gains:
        return "There is one amount of training samples only, so nothing can be said about more of them."
    first, last = (pick(point.samples for point in points) for pick in (min, max))
    rising = [key for key, spread in gains.items() if spread.sign > 0]
    rest = [" ".join(key).strip() for key in gains if key not in rising]
    text = (
        f"From {amount(first)} to {amount(last)} images seen, accuracy rises, with an interval above zero, in "
        f"{len(rising)} of {len(gains)} curves{f' (not in {listed(rest, most=4)})' if rest else ''}"
    )
    ordered = sorted(gains, key=lambda key: gains[key].value)
    most, least = ordered[-1], ordered[0]
    text += f"; {' '.join(most).strip()} gains most, {gain(gains[most])}"
    if len(ordered) > 1:
        apart = told(gains[most].minus(gains[least]))
        text += f", and {' '.join(least).strip()} least, {gain(gains[least])}{apart}"
        steep = sorted(laws, key=lambda key: laws[key].exponent.value)
        fast, slow = laws[steep[-1]].exponent, laws[steep[0]].exponent
        text += (
            f". The error falls as samples^-b, fastest in {' '.join(steep[-1]).strip()}, b = {_exponent(fast)}, "
            f"and slowest in {' '.join(steep[0]).strip()}, b = {_exponent(slow)}{told(fast.minus(slow))}"
        )
    if missed:
        text += (
            f". The law of the smaller budgets foretells the error at the largest {100 * np.mean(missed):.1f} % off in "
            f"the mean of {len(missed)} curves, {100 * max(missed):.1f} % at most"
        )
    return text + "."


def _exponent(spread: Spread) -> str:
    """ "0.12 (0.10 to 0.15)", and no "-0.00"."""
    value, low, high = (round(one, 2) + 0.0 for one in (spread.value, spread.low, spread.high))
    return f"{value:.2f} ({low:.2f} to {high:.2f})"
