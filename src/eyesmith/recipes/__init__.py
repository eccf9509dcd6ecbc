"""Runs by name: each a function that returns one complete config; `eyesmith train NAME field=value` changes fields."""

from collections.abc import Callable
from functools import partial

from eyesmith.config import closest
from eyesmith.errors import ConfigError
from eyesmith.recipes.baselines import BASELINES, baseline, baseline_model
from eyesmith.recipes.finetune import finetune
from eyesmith.recipes.laptop import debug, pairs, quickstart, quickstart_vit
from eyesmith.recipes.vitamin import (
    FINE_TUNES,
    LENGTHS,
    datacomp_medium,
    larger_images,
    locked_text,
    short,
    vitamin_long,
    vitamin_short,
)
from eyesmith.train.config import TrainConfig

Recipe = Callable[[], TrainConfig]

FAMILIES: dict[str, dict[str, Recipe]] = {
    "on a laptop": {
        "debug": debug,
        "pairs": pairs,
        "quickstart": quickstart,
        "quickstart-vit": quickstart_vit,
    },
    "from trained weights, on pairs of your own": {"finetune": finetune},
    "ViTamin by the short schedule, 128 M to 1.28 B pairs": {
        f"vitamin-{size.lower()}-{length}": partial(vitamin_short, size, length)
        for size in ("S", "B", "L")
        for length in LENGTHS
    },
    "the same against ViTamin-L's frozen text tower (Locked-Text Tuning)": {
        f"vitamin-{size.lower()}-ltt-{length}": partial(locked_text, size, length)
        for size in ("S", "B")
        for length in LENGTHS
    },
    "ViTamin by the long schedule, 12.8 B and 40 B pairs": {
        "vitamin-l-12.8b": partial(vitamin_long, "L"),
        "vitamin-l2-12.8b": partial(vitamin_long, "L2"),
        "vitamin-xl-12.8b": partial(vitamin_long, "XL"),
        "vitamin-xl-40b": partial(vitamin_long, "XL", epochs=30),
    },
    "trained ViTamins at larger images": {name.lower(): partial(larger_images, name) for name in FINE_TUNES},
    "on 12.8 M pairs of DataComp's medium track": {"datacomp-medium": datacomp_medium},
    "other backbones by the short schedule": {
        f"{name.lower()}-{length}": partial(baseline, name, length) for name in BASELINES for length in LENGTHS
    },
}
"""Recipes by what they are for."""

RECIPES: dict[str, Recipe] = {name: make for family in FAMILIES.values() for name, make in family.items()}


def recipe(name: str) -> TrainConfig:
    """The config of a named recipe. Raises ConfigError for an unknown name."""
    if name not in RECIPES:
        raise ConfigError(f"no recipe is called {name!r}{closest(name, RECIPES)}")
    return RECIPES[name]()


__all__ = [
    "BASELINES",
    "FAMILIES",
    "LENGTHS",
    "RECIPES",
    "baseline",
    "baseline_model",
    "datacomp_medium",
    "debug",
    "finetune",
    "larger_images",
    "locked_text",
    "pairs",
    "quickstart",
    "quickstart_vit",
    "recipe",
    "short",
    "vitamin_long",
    "vitamin_short",
]
