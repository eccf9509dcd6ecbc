"""Every kind of run by its name in config.json."""

from collections.abc import Mapping
from typing import Any

from eyesmith.config import closest, from_dict, to_dict
from eyesmith.errors import ConfigError
from eyesmith.train.classify_config import ClassifyConfig
from eyesmith.train.config import RunConfig, TrainConfig
from eyesmith.train.masked_config import MaskedConfig

KEY = "objective"  # beside the fields of a config; contrastive runs, the first there were, have none
KINDS: dict[str, type[RunConfig]] = {
    "contrastive": TrainConfig,
    "masked": MaskedConfig,
    "classify": ClassifyConfig,
}


def run_to_dict(config: RunConfig) -> dict[str, Any]:
    """A JSON-able mapping of a run's config that `run_from_dict` reads."""
    name = next(name for name, kind in KINDS.items() if type(config) is kind)
    fields = to_dict(config)
    return fields if name == "contrastive" else {KEY: name, **fields}


def run_from_dict(mapping: Mapping[str, Any]) -> RunConfig:
    """The config that `run_to_dict` wrote. Raises ConfigError for an unknown objective or a wrong field."""
    fields = dict(mapping)
    name = fields.pop(KEY, "contrastive")
    if name not in KINDS:
        raise ConfigError(f"{KEY}: no kind of run is called {name!r}{closest(str(name), KINDS)}")
    return from_dict(KINDS[name], fields)
