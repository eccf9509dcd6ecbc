"""The encoders that the lab compares, by the names of its plans, matched in size across families.

The measure is ViTamin's: `pico` has widths (16, 32, 96), `nano` twice that, both 2, 4 and 6 blocks; from one to the
other only widths double, as from the paper's S to its B. Every other family keeps its own strides and the proportions
of the model that it stands for, made narrower and shallower until it agrees with ViTamin of that size in one number,
counted at 64 px without head:

- match="parameters": numbers learned, within 3 %;
- match="macs": multiply-adds of one image (models.cost, the true ones), within 5 %.

How the others were found: a depth was fixed near ViTamin's 12 blocks (6 for the plain transformers, whose blocks are
all of the last kind), then the width was searched, in steps of 4 where one fits; the first stage of a family with four
stages is c wide, the others 2c, 4c and 8c, as in ConvNeXt and CoAtNet. A ViT of another patch is matched anew, so the
larger patch embedding of ViT/32 costs it width. Tables of positions differ a little at other image sizes.

`ViTamin:PART` is ViTamin with one part changed and its widths kept, for the ablations; its parameters follow from that
and are within 7 % of ViTamin's: `bn-se` (MBConv with BatchNorm and squeeze-excitation in the place of MBConv-LN), `mlp`
(a GELU MLP of the same size in the place of GeGLU), `depths-1-2` and `depths-4-8` (blocks of the first two stages, half
and twice as many), `stride8` and `stride32` (pixels per token of the transformer alone; of all parameters only the
position table changes).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from eyesmith.config import closest
from eyesmith.errors import ConfigError
from eyesmith.hub.foreign import OPEN_CLIP_PREFIX, TIMM_PREFIX, foreign_config
from eyesmith.models.classifier import ClassifierConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.models.foreign.timm import TimmConfig
from eyesmith.models.own import own_config, own_encoders
from eyesmith.models.registry import EncoderConfig
from eyesmith.models.vitamin.model import ViTaminConfig

Match = Literal["parameters", "macs"]

SIZES: tuple[str, ...] = ("pico", "nano")
DROP_PATH_PROB = 0.1  # of every family, as the paper trains ViTamin
NUM_BLOCKS = 6  # of ViTamin's transformer and of every plain one


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One encoder of one size, as a cell trains it."""

    encoder: str
    """As the plan names it."""
    family: str
    """ViT, ConvNeXt, CoAtNet, ViTamin, TrV, timm, or the name of a user's encoder."""
    size: str
    """pico or nano; empty where there is one size only."""
    image: EncoderConfig
    """The encoder itself. embed_dim is 0: whoever pairs it with a text tower sets the projection."""
    paper: str
    """The model of the paper's table that it stands for, as it is called there; empty for none."""


# (width, heads) of the plain transformers, by patch
_VIT: dict[Match, dict[int, dict[str, tuple[int, int]]]] = {
    "parameters": {
        8: {"pico": (92, 2), "nano": (184, 4)},
        16: {"pico": (88, 2), "nano": (180, 4)},
        32: {"pico": (74, 2), "nano": (168, 4)},
    },
    "macs": {
        8: {"pico": (54, 2), "nano": (112, 4)},
        16: {"pico": (112, 2), "nano": (228, 4)},
        32: {"pico": (204, 2), "nano": (412, 4)},
    },
}
_TRV: dict[Match, dict[str, tuple[int, int]]] = {
    "parameters": {"pico": (88, 2), "nano": (180, 3)},
    "macs": {"pico": (112, 2), "nano": (228, 3)},
}
# width of the first stage, and depths
_CONVNEXT: dict[Match, tuple[dict[str, int], tuple[int, ...]]] = {
    "parameters": ({"pico": 16, "nano": 32}, (2, 2, 8, 2)),
    "macs": ({"pico": 24, "nano": 48}, (2, 2, 6, 2)),
}
_COATNET: dict[Match, tuple[dict[str, int], tuple[int, ...]]] = {
    "parameters": ({"pico": 16, "nano": 32}, (2, 3, 4, 2)),
    "macs": ({"pico": 20, "nano": 40}, (2, 3, 5, 2)),
}


def _vit(patch_px: int, size: str, image_px: int, match: Match) -> EncoderConfig:
    width, num_heads = _VIT[match][patch_px][size]
    return TimmConfig(
        model_name="vit_tiny_patch16_224",
        image_size=(image_px, image_px),
        embed_dim=0,
        widths=(width,),
        depths=(NUM_BLOCKS,),
        num_heads=num_heads,
        patch_px=patch_px,
        drop_path_prob=DROP_PATH_PROB,
    )


def _trv(size: str, image_px: int, match: Match) -> EncoderConfig:
    width, num_heads = _TRV[match][size]
    return Eva02Config(
        image_size=(image_px, image_px),
        patch_px=16,
        width=width,
        depth=NUM_BLOCKS,
        num_heads=num_heads,
        hidden_dim=int(width * 8 / 3),
        embed_dim=0,
        pooling="token",
        drop_path_prob=DROP_PATH_PROB,
    )


def _convnext(size: str, image_px: int, match: Match) -> EncoderConfig:
    firsts, depths = _CONVNEXT[match]
    return TimmConfig(
        model_name="convnext_tiny",
        image_size=(image_px, image_px),
        embed_dim=0,
        widths=_doubling(firsts[size]),
        depths=depths,
        drop_path_prob=DROP_PATH_PROB,
    )


def _coatnet(size: str, image_px: int, match: Match) -> EncoderConfig:
    firsts, depths = _COATNET[match]
    first = firsts[size]
    return TimmConfig(
        model_name="coatnet_0_224",
        image_size=(image_px, image_px),
        embed_dim=0,
        widths=_doubling(first),
        depths=depths,
        stem_width=first * 3 // 4,
        head_dim=2 * firsts["pico"],  # two heads in the third stage of pico; nano has twice as many
        pooled_dim=8 * first,
        drop_path_prob=DROP_PATH_PROB,
    )


def _doubling(first: int) -> tuple[int, ...]:
    return first, 2 * first, 4 * first, 8 * first


def _vitamin(size: str, image_px: int) -> ViTaminConfig:
    first = {"pico": 16, "nano": 32}[size]
    return ViTaminConfig(
        image_size=(image_px, image_px),
        widths=(first, 2 * first, 6 * first),
        depths=(2, 4, NUM_BLOCKS),
        num_heads=3,
        embed_dim=0,
        drop_path_prob=DROP_PATH_PROB,
    )


_Make = Callable[[str, int, Match], EncoderConfig]


@dataclass(frozen=True, slots=True)
class _Entry:
    make: _Make
    stride: int
    paper: tuple[str, str] = ("", "")  # what pico and nano stand for


def _patched(patch_px: int) -> _Make:
    return lambda size, image_px, match: _vit(patch_px, size, image_px, match)


def _changed(**changes: Any) -> _Make:
    return lambda size, image_px, _match: replace(_vitamin(size, image_px), **changes)


_ENTRIES: dict[str, _Entry] = {
    "ViT/16": _Entry(_patched(16), 16, ("ViT-S/16", "ViT-B/16")),
    "ViT/32": _Entry(_patched(32), 32, ("ViT-S/32", "ViT-B/32")),
    "ViT/8": _Entry(_patched(8), 8),
    "ConvNeXt": _Entry(_convnext, 32, ("ConvNeXt-T", "ConvNeXt-B")),
    "CoAtNet": _Entry(_coatnet, 32, ("CoAtNet-0", "CoAtNet-2")),
    "ViTamin": _Entry(_changed(), 16, ("ViTamin-S", "ViTamin-B")),
    "TrV": _Entry(_trv, 16),
    "ViTamin:bn-se": _Entry(_changed(convolution="bn_se"), 16),
    "ViTamin:mlp": _Entry(_changed(ffn="mlp"), 16),
    "ViTamin:depths-1-2": _Entry(_changed(depths=(1, 2, NUM_BLOCKS)), 16),
    "ViTamin:depths-4-8": _Entry(_changed(depths=(4, 8, NUM_BLOCKS)), 16),
    "ViTamin:stride8": _Entry(_changed(stride=8), 8),
    "ViTamin:stride32": _Entry(_changed(stride=32), 32),
}

ENCODER_NAMES: tuple[str, ...] = tuple(_ENTRIES)
"""All names that `contender` knows by itself.

`timm:NAME`, `open_clip:NAME` and the names of users' encoders come on top.
"""


def contender(encoder: str, size: str, *, image_px: int = 64, match: Match = "parameters") -> Contender:
    """The encoder that a plan calls `encoder`, of one size, for square images of `image_px`.

    `timm:NAME` and `open_clip:NAME` are those packages' architectures as they are, of one size; the name of a
    registered file (models.own) is the encoder in it, at the sizes that it has. Raises ConfigError for an unknown name
    or size, with close ones, and for an image size that is no multiple of the encoder's stride.
    """
    if encoder.startswith(OPEN_CLIP_PREFIX):
        found = foreign_config(encoder)
        image = found.image if isinstance(found, ClipConfig | ClassifierConfig) else found
        image = replace(image, image_size=(image_px, image_px), embed_dim=0)
        return Contender(encoder=encoder, family="open_clip", size="", image=image, paper="")
    if encoder.startswith(TIMM_PREFIX):
        name = encoder.removeprefix(TIMM_PREFIX)
        image = TimmConfig(model_name=name, image_size=(image_px, image_px), embed_dim=0, drop_path_prob=DROP_PATH_PROB)
        return Contender(encoder=encoder, family="timm", size="", image=image, paper="")
    if encoder in own_encoders():
        image = own_config(encoder, size, image_size=(image_px, image_px))
        return Contender(encoder=encoder, family=encoder, size=size, image=image, paper="")
    if encoder not in _ENTRIES:
        known = (*_ENTRIES, *own_encoders(), "timm:NAME", "open_clip:NAME")
        raise ConfigError(
            f"encoder: there is no {encoder!r} in the lab{closest(encoder, known)}. One of your own comes in by its "
            "file: --encoder FILE"
        )
    if size not in SIZES:
        raise ConfigError(f"size: {encoder} has no {size!r}{closest(size, SIZES)}")
    entry = _ENTRIES[encoder]
    if image_px < entry.stride or image_px % entry.stride:
        raise ConfigError(f"image_px: {encoder} needs a multiple of {entry.stride}, got {image_px}")
    return Contender(
        encoder=encoder,
        family=encoder.partition("/")[0].partition(":")[0],
        size=size,
        image=entry.make(size, image_px, match),
        paper=entry.paper[SIZES.index(size)],
    )
