"""An encoder from a user's file, as a config: which file, which of its sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eyesmith.errors import ConfigError
from eyesmith.images.pixels import OPENAI_MEAN, OPENAI_STD

if TYPE_CHECKING:
    from eyesmith.models.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class OwnEncoderConfig:
    """One size of an encoder that a file defines. The config holds no code: `build` works only after that very file was
    registered in this process, so opening a folder with such a config runs nothing."""

    name: str
    """What the file calls its encoder: NAME, or the file's name without .py."""
    file: str
    """Name of the file, without its folder."""
    sha256: str
    """Hexadecimal SHA-256 of the file's bytes."""
    size: str
    """One of the file's SIZES."""
    image_size: tuple[int, int]
    """Height and width of the input, pixels."""
    embed_dim: int
    """Width of the projected feature; 0 leaves out the projection (the feature is then the encoder's)."""
    mean: tuple[float, float, float] = OPENAI_MEAN
    """Mean of the pixels per channel, in 0..1."""
    std: tuple[float, float, float] = OPENAI_STD
    """Standard deviation of the pixels per channel, in 0..1."""

    def __post_init__(self) -> None:
        if self.file in ("", ".", "..") or set(self.file) & set("/\\\0"):
            raise ConfigError(f"file: expected the name of a file without its folder, got {self.file!r}")
        if min(self.image_size) < 1:
            raise ConfigError(f"image_size: expected positive sides, got {self.image_size}")
        if self.embed_dim < 0:
            raise ConfigError(f"embed_dim: expected 0 (no projection) or more, got {self.embed_dim}")

    def build(self) -> Encoder:
        """A new encoder, initialised by the file's own code.

        Raises ConfigError when the file is not registered or has changed, when its code fails, and when what it builds
        is no encoder of this size, width and these pixels.
        """
        from eyesmith.models.own.register import build

        return build(self)
