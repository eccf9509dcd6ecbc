"""Which weights a run starts from."""

from dataclasses import dataclass
from typing import Literal

from eyesmith.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class InitialConfig:
    """Weights of another model to start from; random ones where nothing is said."""

    weights: str = ""
    """A run folder, a weight file or hf:owner/name, as `eyesmith.load` takes it; empty for random weights."""
    part: Literal["all", "text"] = "all"
    """all: both towers and the temperature; text: the text tower and the temperature, for Locked-Text Tuning."""

    def __post_init__(self) -> None:
        if self.part not in ("all", "text"):
            raise ConfigError(f"initial.part: expected all or text, got {self.part!r}")
