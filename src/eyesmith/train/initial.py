"""Which weights a run starts from."""

from dataclasses import dataclass
from typing import Literal

from eyesmith.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class InitialConfig:
    """Weights of another model to start from; random ones where nothing is said."""

    weights: str = ""
    """A run folder, a weight file or hf:owner/name, as `eyesmith.load` takes it; empty for random weights."""
    part: Literal["all", "text", "image"] = "all"
    """all: both towers and the temperature; text: the text tower and the temperature, for Locked-Text Tuning; image:
    the image tower, as from a masked-image run, whose projection and norms of its own start anew."""

    text: str = ""
    """Another model whose text tower starts this one's, with part=image: all of it but its projection and temperature,
    as EVA-02-CLIP started from OpenAI's; empty for random weights."""

    def __post_init__(self) -> None:
        if self.text and self.part != "image":
            raise ConfigError(f"initial.text: goes with initial.part=image, which is {self.part!r}")
        if self.part not in ("all", "text", "image"):
            raise ConfigError(f"initial.part: expected all, text or image, got {self.part!r}")
