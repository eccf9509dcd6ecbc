"""Which TrV a set of tensors is, from their shapes alone: nothing is built."""

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.images import PreprocessConfig
from eyesmith.models import registry
from eyesmith.models.clip import ClipConfig
from eyesmith.models.eva02.config import EVA02, Eva02Config, Pooling
from eyesmith.models.eva02.layouts import Found
from eyesmith.models.text import weights as text_weights
from eyesmith.models.text.config import ClipTextConfig


def tower_config(found: Found, *, sizes: tuple[tuple[int, int], ...] = ()) -> Eva02Config:
    """The config of an image tower, with the head its tensors have (0 without one), at the size of its table.

    sizes: heights and widths in pixels to prefer where the table could be for several; otherwise it is square. What
    tensors do not tell comes from the known encoder of that width: heads (64 channels each in TrV), post-norm. Resizing
    follows the source: timm's rule for timm's and open_clip's files, the release's own for its own. Pooling too: the
    class token in CLIP, the mean of normed tokens in a pre-training file, else the norm after the mean.
    Raises CheckpointError when the table is for no square image, or tensors are missing that tell a size.
    """
    plain = found.tensors
    try:
        width, _, patch_px, _ = plain["patch_embed.proj.weight"].shape
        depth = len({name.split(".")[1] for name in plain if name.startswith("blocks.")})
        is_gated = "blocks.0.mlp.w3.weight" in plain
        hidden = plain["blocks.0.mlp.w3.weight" if is_gated else "blocks.0.mlp.fc2.weight"].shape[1]
    except KeyError as error:
        raise CheckpointError(f"{error.args[0]!r} is missing, by which an EVA-02 tells its sizes") from None
    known = next((known for known in EVA02.values() if known.width == width), None)
    head = plain.get("head.weight")
    table = plain.get("pos_embed")
    norm = "sub" if "blocks.0.mlp.ffn_ln.weight" in plain else "pre"
    if not is_gated and known is not None:
        norm = known.norm if norm == "pre" else norm
    has_bias = "blocks.0.attn.relative_position_bias_table" in plain
    config = Eva02Config(
        image_size=(patch_px, patch_px),
        patch_px=patch_px,
        width=width,
        depth=depth,
        num_heads=known.num_heads if known is not None else max(1, width // 64),
        hidden_dim=hidden,
        embed_dim=0 if head is None else head.shape[0],
        norm=norm,
        has_inner_norm="blocks.0.attn.inner_attn_ln.weight" in plain,
        ffn="swiglu" if is_gated else "mlp",
        has_position=table is not None,
        relation="bias" if has_bias else "rope" if is_gated else "none",
        pooling=_pooling(found),
        is_packed="blocks.0.attn.qkv.weight" in plain,
        initial="beit" if found.is_clip or not found.extras else "jax",
        resize="reference" if found.layout == "reference" else "timm",
    )
    return replace(config, image_size=_image_size(table, patch_px, sizes))


def pair_config(
    found: Found, state: Mapping[str, Tensor], *, sizes: tuple[tuple[int, int], ...] = (), name: str | None = None
) -> ClipConfig:
    """The image-text model of these tensors: a registered one where the sizes fit, else one made of the sizes.

    name: which registered one it must be; its image size is the table's all the same. Raises CheckpointError without
    text tower, or where its sizes cannot be told.
    """
    image = tower_config(found, sizes=sizes)
    text = _text_config(text_weights.from_open_clip(state))
    if name is not None:
        known = registry.config(name)
        if not isinstance(known.image, Eva02Config):
            raise ConfigError(f"name: {name} is no EVA-02, and the tensors are in the names of one")
    else:
        fitting = [
            known
            for known in map(registry.config, registry.list_models())
            if isinstance(known.image, Eva02Config) and same_shape(known.image, image) and known.text == text
        ]
        fitting.sort(key=lambda known: (known.image.image_size != image.image_size, known.name))
        known = fitting[0] if fitting else None
    preprocess = PreprocessConfig(image_size=image.image_size)
    if known is None:
        return ClipConfig(name="EVA02", image=image, text=text, preprocess=preprocess)
    assert isinstance(known.image, Eva02Config)
    image = replace(image, initial=known.image.initial, drop_path_prob=known.image.drop_path_prob)
    return replace(known, image=image, preprocess=preprocess)


def same_shape(left: Eva02Config, right: Eva02Config) -> bool:
    """Whether two towers differ in nothing but image size, pooling, rates, ways of drawing and of resizing."""
    loose = {field: getattr(right, field) for field in ("pooling", "initial", "resize", "drop_path_prob")}
    return replace(left, **loose, image_size=right.image_size) == right if _fits(left, right) else False


def _fits(left: Eva02Config, right: Eva02Config) -> bool:
    return left.patch_px == right.patch_px  # else the other's image size may be off the grid


def _pooling(found: Found) -> Pooling:
    if found.is_clip:
        return "token"
    if "fc_norm.weight" in found.tensors:
        return "mean"
    return "normed_mean" if "mask_token" in found.extras else "token"


def _image_size(table: Tensor | None, patch_px: int, sizes: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    if table is None or table.ndim != 3:
        return sizes[0] if sizes else (16 * patch_px, 16 * patch_px)
    cells = table.shape[1] - 1
    for height, width in sizes:
        on_grid = height % patch_px == width % patch_px == 0
        if on_grid and height * width == cells * patch_px**2:
            return height, width
    side = math.isqrt(cells)
    if side * side != cells:
        raise CheckpointError(
            f"its position table has {cells} cells, which is for no square image; pass the height and width it was "
            "trained at as image_size"
        )
    return side * patch_px, side * patch_px


def _text_config(state: Mapping[str, Tensor]) -> ClipTextConfig:
    try:
        vocab_size, width = state["token_embedding.weight"].shape
        blocks = {name.split(".")[2] for name in state if name.startswith("transformer.resblocks.")}
        return ClipTextConfig(
            width=width,
            depth=len(blocks),
            heads=max(1, width // 64),
            embed_dim=state["text_projection"].shape[1],
            context_len=state["positional_embedding"].shape[0],
            vocab_size=vocab_size,
        )
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"an EVA-02-CLIP without a whole text tower: {error} is missing") from None
