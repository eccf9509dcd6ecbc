"""Text weights from and to OpenCLIP's layouts, and what a pair has beside its image tower.

Inside the text tower the names are the same, only the prefix differs.
"""

from collections.abc import Mapping
from operator import attrgetter
from typing import TypeVar

import torch
from torch import Tensor

from eyesmith.errors import ConfigError
from eyesmith.models.clip import ClipConfig
from eyesmith.models.families import EncoderConfig
from eyesmith.models.keymap import KeyMap, Theirs, count_blocks, inner, meta_state, within
from eyesmith.models.text.model import ClipTextConfig

_Image = TypeVar("_Image", bound=EncoderConfig)

PREFIX = "text."  # of the text tower in OpenCLIP's CustomTextCLIP (all ViTamin and EVA models)
HEAD_DIM = 64  # of every published tower
BIAS = "logit_bias"  # beside logit_scale, in a model of the sigmoid loss
_OWN = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")


def from_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text tower's tensors out of a whole OpenCLIP state dict, named as ClipText names them.

    Reads CustomTextCLIP (`text.` before every name) and the older CLIP class (no prefix); other tensors are left out,
    so are the masks that old checkpoints store. Empty when the state holds no text tower.
    """
    prefix = PREFIX if any(key.startswith(PREFIX) for key in state) else ""
    return {key: value for key, value in inner(state, prefix).items() if key.startswith(_OWN)}


def flatten_numbers(state: dict[str, Tensor]) -> None:
    """Scale and bias as [] in place, where a file has them as [1]; a bias of [] or [1] is all that is taken for one."""
    for name in ("logit_scale", BIAS):
        if (value := state.get(name)) is not None and value.numel() == 1:
            state[name] = value.reshape(())


def to_open_clip(state: Mapping[str, Tensor], *, prefix: str = PREFIX) -> dict[str, Tensor]:
    """The tower's state dict with OpenCLIP's names: `text.` for CustomTextCLIP, an empty prefix for the CLIP class."""
    return {prefix + key: value for key, value in state.items()}


def pair_state(image: EncoderConfig, text: ClipTextConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names and shapes of a pair, without numbers, with a bias where `theirs` has one."""
    scalars = ("logit_scale", BIAS) if BIAS in theirs else ("logit_scale",)
    return (
        {"image." + name: value for name, value in meta_state(image).items()}
        | {"text." + name: value for name, value in meta_state(text).items()}
        | {name: torch.empty((), device="meta") for name in scalars}
    )


def pair_map(image: KeyMap, text: KeyMap, ours: Mapping[str, Tensor]) -> dict[str, Theirs]:
    """Where a file has each tensor of a pair, from the maps of its towers; ours: by which a bias is there, or not."""
    scalars = {name: Theirs((name,)) for name in ("logit_scale", BIAS) if name in ours}
    return within(image, "image.", "") | within(text, "text.", "") | scalars


def towers(config: ClipConfig, kind: type[_Image], what: str) -> tuple[_Image, ClipTextConfig]:
    """The towers of a pair in a layout of OpenCLIP's. kind, what: the image tower's config, and its name in messages.

    Raises ConfigError for other towers, and for an image tower without a projection.
    """
    if not isinstance(config.image, kind) or not isinstance(config.text, ClipTextConfig):
        raise ConfigError(
            f"{config.name}: this layout needs {what} image tower and open_clip's text tower, got "
            f"{type(config.image).__name__} and {type(config.text).__name__}"
        )
    if not config.image.embed_dim:
        raise ConfigError(f"{config.name}: image.embed_dim is 0; this layout has a projection")
    return config.image, config.text


def same_sizes(left: ClipTextConfig, right: ClipTextConfig) -> bool:
    """Whether two towers have tensors of the same names and shapes; tensors tell neither heads nor activation."""
    told = attrgetter("width", "depth", "hidden_dim", "embed_dim", "context_len", "vocab_size", "projection")
    return told(left) == told(right)


def text_config(state: Mapping[str, Tensor]) -> ClipTextConfig | None:
    """The config of a text tower by its tensors, in heads of 64; None when it is not whole."""
    try:
        projection = state.get("text_projection", state.get("text_projection.weight"))
        is_biased = "text_projection.bias" in state
        return sized(
            state["token_embedding.weight"],
            state["positional_embedding"],
            count_blocks(state, "transformer.resblocks."),
            state["transformer.resblocks.0.mlp.c_fc.weight"],
            None if projection is None else projection.shape[0 if is_biased else 1],
            is_biased=is_biased,
        )
    except (KeyError, ValueError, IndexError, ConfigError):
        return None


def sized(
    tokens: Tensor, positions: Tensor, depth: int, enter: Tensor, embed_dim: int | None, *, is_biased: bool
) -> ClipTextConfig:
    """CLIP's text tower of these tables [V, C] and [L, C], number of blocks, and first matrix of an MLP [M, C].

    embed_dim: None without projection. Raises ConfigError or ValueError where they are of no such tower.
    """
    vocab_size, width = tokens.shape
    return ClipTextConfig(
        width=width,
        depth=depth,
        heads=max(1, width // HEAD_DIM),
        embed_dim=width if embed_dim is None else embed_dim,
        context_len=positions.shape[0],
        vocab_size=vocab_size,
        mlp_ratio=enter.shape[0] / width,
        projection="none" if embed_dim is None else "biased" if is_biased else "plain",
    )
