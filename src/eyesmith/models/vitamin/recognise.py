"""Which ViTamin a set of tensors is, from their names and shapes alone: nothing is built."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from eyesmith.models import registry
from eyesmith.models.text import weights as text_weights
from eyesmith.models.text.config import ClipTextConfig
from eyesmith.models.vitamin.config import STRIDE, VITAMIN, ViTaminConfig


@dataclass(frozen=True, slots=True)
class _Names:
    """Where one layout keeps the tensors that tell the sizes. prefix: before all names of the image tower."""

    prefix: str
    stem: str
    middle: str  # [C2, ...]
    norm: str  # [D]
    stages: tuple[str, str, str]  # what stands before a block's number
    position: str
    head: str  # [embed_dim, D], with its own prefix


_BACKBONE = "patch_embed.backbone."
_TIMM = _Names(
    prefix="",
    stem=_BACKBONE + "stem.conv1.weight",
    middle=_BACKBONE + "stages.1.0.conv3_1x1.weight",
    norm="fc_norm.weight",
    stages=(_BACKBONE + "stages.0.", _BACKBONE + "stages.1.", "blocks."),
    position="pos_embed",
    head="head.weight",
)
_OURS = _Names(
    prefix="",
    stem="stem.conv1.weight",
    middle="stage2.0.reduce.weight",
    norm="norm.weight",
    stages=("stage1.", "stage2.", "stage3."),
    position="position",
    head="head.weight",
)
_LAYOUTS = (
    replace(_TIMM, prefix="visual.trunk.", head="visual.head.proj.weight"),
    _TIMM,
    replace(_OURS, prefix="image.", head="image.head.weight"),
    _OURS,
)


@dataclass(frozen=True, slots=True)
class Shapes:
    """The sizes that tensors tell. embed_dim, num_tokens and text are None where there is no such tensor."""

    widths: tuple[int, int, int]
    depths: tuple[int, int, int]
    embed_dim: int | None
    num_tokens: int | None
    text: tuple[int, int, int, int, int] | None  # width, depth, vocabulary, longest text, projected width

    def image_fits(self, config: ViTaminConfig) -> bool:
        """Whether an image tower has these widths, depths and, or not, a position table."""
        same = config.widths == self.widths and config.depths == self.depths
        return same and config.has_position == (self.num_tokens is not None)

    def text_fits(self, config: ClipTextConfig) -> bool:
        """Whether a text tower has these sizes; any has where the tensors hold no text tower."""
        sizes = (config.width, config.depth, config.vocab_size, config.context_len, config.embed_dim)
        return self.text in (None, sizes)


def read_shapes(state: Mapping[str, Tensor]) -> Shapes | None:
    """The sizes of a ViTamin, with or without text tower, in the names of open_clip, timm or ours; None for others."""
    for names in _LAYOUTS:
        if (shapes := _read(state, names)) is not None:
            return shapes
    return None


def likely_models(state: Mapping[str, Tensor]) -> list[str]:
    """Named image-text models whose tensors these could be; those of the same image size first.

    Empty when no ViTamin fits. The sizes of XL cannot be told apart: it has no table.
    """
    shapes = read_shapes(state)
    if shapes is None:
        return []
    found: list[tuple[bool, str]] = []
    for name, image, text in _known_pairs():
        if shapes.image_fits(image) and shapes.text_fits(text) and shapes.embed_dim in (None, image.embed_dim):
            found.append((num_tokens(image) != shapes.num_tokens, name))
    return [name for _, name in sorted(found, key=lambda entry: entry[0])]


def nearest_model(state: Mapping[str, Tensor]) -> str | None:
    """The named model that shares the widths of the image tower, for tensors that fit no model whole."""
    shapes = read_shapes(state)
    if shapes is None:
        return None
    near = [(name, image, text) for name, image, text in _known_pairs() if image.widths == shapes.widths]
    # the text tower tells S from S-LTT, the table's length the image size

    def distance(model: tuple[str, ViTaminConfig, ClipTextConfig]) -> tuple[bool, bool, bool]:
        _, image, text = model
        same_head = image.embed_dim == shapes.embed_dim
        return not shapes.text_fits(text), not same_head, num_tokens(image) != shapes.num_tokens

    near.sort(key=distance)
    return near[0][0] if near else None


def image_tower(state: Mapping[str, Tensor]) -> ViTaminConfig | None:
    """The config of an image tower by its tensors, for a square image; None when no known one has its widths.

    embed_dim is the rows of its head, 0 without one. A tower whose depths or table differ from the known one's gets the
    known config, so that what is missing can be named.
    """
    shapes = read_shapes(state)
    if shapes is None:
        return None
    known = [*VITAMIN.values(), *(image for _, image, _ in _known_pairs())]
    fitting = [image for image in known if shapes.image_fits(image)]
    near = fitting or [image for image in known if image.widths == shapes.widths]
    if not near:
        return None
    config = replace(near[0], embed_dim=shapes.embed_dim or 0)
    side = math.isqrt(shapes.num_tokens or 0)
    if side and side * side == shapes.num_tokens and fitting:
        config = replace(config, image_size=(side * STRIDE, side * STRIDE))
    return config


def num_tokens(config: ViTaminConfig) -> int:
    """Cells of the last stage at the config's image size."""
    return math.prod(config.grid)


def _known_pairs() -> Iterator[tuple[str, ViTaminConfig, ClipTextConfig]]:
    for name in registry.list_models():
        config = registry.config(name)
        if isinstance(config.image, ViTaminConfig) and isinstance(config.text, ClipTextConfig):
            yield name, config.image, config.text


def _read(state: Mapping[str, Tensor], names: _Names) -> Shapes | None:
    try:
        widths = tuple(state[names.prefix + name].shape[0] for name in (names.stem, names.middle, names.norm))
    except (KeyError, IndexError):
        return None
    depths = tuple(_count(state, names.prefix + stage) for stage in names.stages)
    table, head = state.get(names.prefix + names.position), state.get(names.head)
    assert len(widths) == 3
    assert len(depths) == 3
    return Shapes(
        widths=widths,
        depths=depths,
        embed_dim=head.shape[0] if head is not None and head.ndim == 2 else None,
        num_tokens=table.shape[1] if table is not None and table.ndim == 3 else None,
        text=_text(text_weights.from_open_clip(state)),
    )


def _text(state: Mapping[str, Tensor]) -> tuple[int, int, int, int, int] | None:
    try:
        embedding, positions = state["token_embedding.weight"], state["positional_embedding"]
        depth = _count(state, "transformer.resblocks.")
        return embedding.shape[1], depth, embedding.shape[0], positions.shape[0], state["text_projection"].shape[1]
    except (KeyError, IndexError):
        return None


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name[len(prefix) :].partition(".")[0] for name in state if name.startswith(prefix)})
