"""Runs by name: each a function that returns one complete config; `eyesmith train NAME field=value` changes fields."""

from collections.abc import Callable

from eyesmith.config import closest
from eyesmith.errors import ConfigError
from eyesmith.recipes.laptop import debug, pairs, quickstart, quickstart_vit
from eyesmith.train.config import TrainConfig

RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "debug": debug,
    "pairs": pairs,
    "quickstart": quickstart,
    "quickstart-vit": quickstart_vit,
}


def recipe(name: str) -> TrainConfig:
    """The config of a named recipe. Raises ConfigError for an unknown name."""
    if name not in RECIPES:
        raise ConfigError(f"no recipe is called {name!r}{closest(name, RECIPES)}")
    return RECIPES[name]()


__all__ = ["RECIPES", "debug", "pairs", "quickstart", "quickstart_vit", "recipe"]
