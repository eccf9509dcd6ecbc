"""One thing changed at a time: a block, the text tower's training, the data; differences to the base, paired by seed.

Runs of one seed share what the seed decides (the order of the samples, the random views), so the difference of each
pair is taken first and its spread over seeds pooled as `spread` does it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from eyesmith.lab.answers.answer import Answer, cells_of, data_of, gain, listed, sizes_in_order, told
from eyesmith.lab.answers.spread import (
    Metric,
    Point,
    Setting,
    Spread,
    mean_spread,
    points_of,
    pooled_residuals,
    random,
    seed_draws,
)
from eyesmith.lab.plan import Group
from eyesmith.lab.result import LabResults, folder_names

Axis = Literal["encoder", "recipe", "data"]
TITLES = {
    "block": "Blocks: what does each part of the design give?",
    "ltt": "Locked text: what does a trained, frozen text tower give?",
    "recipe": "Recipes: what does another way to train give?",
    "quality": "Data quality: better data or a larger encoder?",
}
AXES: dict[str, Axis] = {"block": "encoder", "ltt": "recipe", "recipe": "recipe", "quality": "data"}
# what a variant's name stands for, in the words of the sentence
WORDS = {
    "ViTamin:bn-se": "MBConv with BatchNorm and squeeze-excitation in place of LayerNorm (bn-se)",
    "ViTamin:mlp": "a plain MLP in place of GeGLU (mlp)",
}


@dataclass(frozen=True, kw_only=True)
class DifferenceRow:
    """variant less base, fractions, in one setting. seeds: those that both have."""

    group: str
    axis: Axis
    base: str
    variant: str
    encoder: str
    size: str
    level: int
    samples: int
    base_value: float
    variant_value: float
    difference: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The mean difference of a variant over all settings of the group."""

    group: str
    axis: Axis
    base: str
    variant: str
    settings: int
    difference: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class AblationAnswer(Answer):
    """rows: `DifferenceRow`s. effects: the variants, in the plan's order. capacity: for data quality, what the larger
    size gives on the base data."""

    effects: tuple[Effect, ...] = ()
    capacity: Effect | None = None


def answer_ablation(results: LabResults, group: Group, metric: Metric) -> AblationAnswer:
    """Of one group with a question of `TITLES`: all that its axis names against what it names first."""
    axis = AXES[group.question]
    points = points_of(cells_of(results, [group]), metric)
    choices = {"encoder": group.encoders, "recipe": group.recipes, "data": data_of(group, results)}[axis]
    shown = folder_names(choices) if axis == "data" else {choice: choice for choice in choices}
    pairs = list(_pairs(points, axis, choices))
    spreads = _paired(pairs, metric)
    rows, effects = [], []
    for (base, variant), spread in zip(pairs, spreads, strict=True):
        rows.append(
            DifferenceRow(
                group=group.name,
                axis=axis,
                base=shown[getattr(base.setting, axis)],
                variant=shown[getattr(variant.setting, axis)],
                encoder=variant.setting.encoder,
                size=variant.setting.size,
                level=variant.setting.level,
                samples=variant.samples,
                base_value=base.value,
                variant_value=variant.value,
                difference=spread.value,
                low=spread.low,
                high=spread.high,
                seeds=len(set(base.by_seed) & set(variant.by_seed)) or min(len(base.by_seed), len(variant.by_seed)),
            )
        )
    means: dict[str, Spread] = {}
    for choice in choices[1:]:
        mine = [
            spread
            for (_, variant), spread in zip(pairs, spreads, strict=True)
            if getattr(variant.setting, axis) == choice
        ]
        if mine:
            means[shown[choice]] = mean_spread(mine)
            effects.append(_effect(group, axis, shown[choices[0]], shown[choice], len(mine), mine))
    lost = [shown[choice] for choice in choices if choice not in {getattr(one, axis) for one in points}]
    capacity = _capacity(group, points, choices[0]) if group.question == "quality" else None
    return AblationAnswer(
        name=group.name,
        title=TITLES[group.question],
        sentence=_sentence(shown[choices[0]], means, capacity),
        rows=tuple(rows),
        notes=(f"Not there, and not counted: {listed(lost)}.",) if lost else (),
        effects=tuple(effects),
        capacity=capacity[0] if capacity else None,
    )


def _pairs(points: dict[Setting, Point], axis: Axis, choices: Sequence[str]) -> Iterable[tuple[Point, Point]]:
    """(base, variant) of equal settings but for the axis."""
    for choice in choices[1:]:
        for setting, variant in points.items():
            base = points.get(setting._replace(**{axis: choices[0]}))
            if getattr(setting, axis) == choice and base is not None:
                yield base, variant


def _paired(pairs: Sequence[tuple[Point, Point]], metric: Metric) -> list[Spread]:
    """Differences by seed where both have the seed; without a common seed the plain difference."""
    by_seed = [
        {seed: variant.by_seed[seed] - base.by_seed[seed] for seed in variant.by_seed if seed in base.by_seed}
        for base, variant in pairs
    ]
    shares = [(base.value + variant.value) / 2 for base, variant in pairs]
    numbers = [variant.n for _, variant in pairs]
    pool = pooled_residuals([(list(one.values()), share) for one, share in zip(by_seed, shares, strict=True)], numbers)
    found = []
    for (base, variant), differences, share in zip(pairs, by_seed, shares, strict=True):
        if not differences:
            found.append(variant.minus(base))
            continue
        value = sum(differences.values()) / len(differences)
        generator = random("paired", base.setting, variant.setting, metric)
        found.append(
            Spread(
                value=value,
                by_training=seed_draws(share, len(differences), variant.n, pool, generator),
                by_test=variant.by_test - base.by_test,
                is_joint=variant.is_joint and base.is_joint,
            )
        )
    return found


def _effect(group: Group, axis: Axis, base: str, variant: str, settings: int, spreads: Sequence[Spread]) -> Effect:
    mean = mean_spread(spreads)
    return Effect(
        group=group.name,
        axis=axis,
        base=base,
        variant=variant,
        settings=settings,
        difference=mean.value,
        low=mean.low,
        high=mean.high,
    )


def _capacity(group: Group, points: dict[Setting, Point], base: str) -> tuple[Effect, Spread] | None:
    """What the largest size gives over the smallest on the base data; None where there is one size."""
    mine = [point for point in points.values() if point.setting.data == base]
    sizes = sizes_in_order(mine)
    gains = [
        point.minus(points[smaller])
        for point in mine
        if len(sizes) > 1
        and point.setting.size == sizes[-1]
        and (smaller := point.setting._replace(size=sizes[0])) in points
    ]
    if not gains:
        return None
    return _effect(group, "data", sizes[0], sizes[-1], len(gains), gains), mean_spread(gains)


def _sentence(base: str, means: dict[str, Spread], capacity: tuple[Effect, Spread] | None) -> str:
    if not means:
        return f"Nothing was trained beside {base} to compare it with."
    parts = [f"{WORDS.get(name, name)} {gain(spread)}{told(spread)}" for name, spread in means.items()]
    text = f"Against {base}, everything else equal: {listed(parts)}"
    if capacity is not None:
        effect, spread = capacity
        text += f"; {effect.variant} in place of {effect.base} on {base} gives {gain(spread)}{told(spread)}"
        best = max(means, key=lambda name: means[name].value)
        against = means[best].minus(spread)
        verdict = {1: "more than", -1: "less than", 0: "about as much as (not told apart)"}[against.sign]
        text += f", so {best} in place of {base} gives {verdict} the larger encoder"
    return text + "."
