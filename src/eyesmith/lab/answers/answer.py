"""What every answer has, and which cells it looks at."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from eyesmith.lab.answers.spread import Metric, Point, Spread, points_of
from eyesmith.lab.plan import Group
from eyesmith.lab.result import CellResult, LabResults


@dataclass(frozen=True, kw_only=True)
class Answer:
    """name: of its files; title: the question; sentence: what the numbers say, with their spread, and nothing more.

    detail: more that a reader may want, or "". rows: what was measured and computed, a frozen dataclass each, fractions
    as fractions. notes: what is missing.
    """

    name: str
    title: str
    sentence: str
    detail: str = ""
    rows: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Label:
    """Which encoder a row is about."""

    encoder: str
    family: str
    size: str

    @property
    def name(self) -> str:
        """ "ViT/16 nano", or the encoder alone where it has one size."""
        return f"{self.encoder} {self.size}".strip()


def groups_of(results: LabResults, *questions: str) -> list[Group]:
    """The plan's groups with one of the questions."""
    return [group for group in results.plan.groups if group.question in questions]


def cells_of(results: LabResults, groups: Iterable[Group]) -> list[CellResult]:
    """Finished cells of these groups, each once."""
    names = {group.name for group in groups}
    return [cell for cell in results.cells if names & set(cell.groups)]


def grid_points(results: LabResults, metric: Metric, *questions: str) -> list[Point]:
    """Settings of the groups with these questions; of several recipes or data sets the first named alone."""
    groups = groups_of(results, *questions)
    if not groups:
        return []
    base = (groups[0].recipes[0], data_of(groups[0], results)[0])
    found = points_of(cells_of(results, groups), metric).values()
    return [point for point in found if (point.setting.recipe, point.setting.data) == base]


def data_of(group: Group, results: LabResults) -> tuple[str, ...]:
    """The training sets of a group."""
    return group.data or (results.plan.data,)


def sizes_in_order(points: Sequence[Point]) -> list[str]:
    """Sizes from the fewest parameters."""
    smallest: dict[str, int] = {}
    for point in points:
        smallest[point.setting.size] = min(smallest.get(point.setting.size, point.parameters), point.parameters)
    return sorted(smallest, key=smallest.__getitem__)


def levels_of(points: Iterable[Point]) -> list[int]:
    """Levels of budget, from the smallest."""
    return sorted({point.setting.level for point in points})


def by_label(points: Iterable[Point]) -> dict[tuple[str, str], dict[int, Point]]:
    """Points by (encoder, size), then by level; the order of the points."""
    found: dict[tuple[str, str], dict[int, Point]] = {}
    for point in points:
        found.setdefault((point.setting.encoder, point.setting.size), {})[point.setting.level] = point
    return found


def missing_note(points: Sequence[Point]) -> tuple[str, ...]:
    """A note on combinations of an encoder, a size and a budget that no cell has, and on single seeds."""
    notes = []
    have = {(point.setting.encoder, point.setting.size, point.setting.level) for point in points}
    encoders = list(dict.fromkeys(encoder for encoder, _, _ in have))
    pairs = {(encoder, size) for encoder, size, _ in have}
    sizes = {encoder: {size for other, size in pairs if other == encoder} for encoder in encoders}
    wanted = {size for one in sizes.values() for size in one} if all("" not in one for one in sizes.values()) else None
    lost = sorted(
        f"{encoder} {size} at budget {level + 1}".replace("  ", " ")
        for encoder in encoders
        for size in (wanted if wanted is not None else sizes[encoder])
        for level in levels_of(points)
        if (encoder, size, level) not in have
    )
    if lost:
        notes.append(f"Not there, and not counted: {listed(lost, most=6)}.")
    single = [point for point in points if len(point.by_seed) == 1]
    if single and len(single) == len(points):
        notes.append("One seed each: the intervals hold the test set's chance alone, not that of training.")
    elif single:
        notes.append(f"{len(single)} of {len(points)} settings have one seed; their spread is taken from the others.")
    return tuple(notes)


def accuracy(spread: Spread) -> str:
    """ "32.1 % (29.8 to 34.4)"."""
    return f"{100 * spread.value:.1f} % ({100 * spread.low:.1f} to {100 * spread.high:.1f})"


def gain(spread: Spread) -> str:
    """ "+4.7 points (2.1 to 7.2)"."""
    return f"{100 * spread.value:+.1f} points ({_signed(spread.low)} to {_signed(spread.high)})"


def told(spread: Spread) -> str:
    """What is added behind a difference whose interval holds zero."""
    return "" if spread.sign else ", not told apart"


def listed(items: Sequence[str], *, most: int = 0) -> str:
    """ "a, b and c"; most: how many are named, 0 for all."""
    if most and len(items) > most:
        return f"{', '.join(items[:most])} and {len(items) - most} more"
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else "none"


def amount(number: float) -> str:
    """Counts as a reader says them: 12,800, 128 k, 1.28 M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def _signed(value: float) -> str:
    shown = f"{100 * value:.1f}"
    return "0.0" if shown == "-0.0" else shown if math.isfinite(value) else "?"
