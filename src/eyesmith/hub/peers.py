"""What open_clip and timm call our models: the configs of their folders, written and read. Neither is imported here."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.models.eva02.weights import same_shape
from eyesmith.models.families import ForeignConfig
from eyesmith.models.own import OwnEncoderConfig
from eyesmith.models.registry import ENCODERS
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vit.configs import to_open_clip
from eyesmith.models.vit.model import VitConfig
from eyesmith.models.vit.model import same_shape as same_vit
from eyesmith.models.vitamin.model import ViTaminConfig

OPEN_CLIP_FILE = "open_clip_config.json"
# open_clip's resize_mode and timm's crop_mode
_RESIZE: dict[str, Literal["shortest", "squash"]] = {"shortest": "shortest", "center": "shortest", "squash": "squash"}
_VITAMIN_POOL = {"timm_pool": "", "timm_proj": "linear"}
_OWN_ENCODERS = ("vitamin_nano_48", "trv_nano_48")  # which timm does not have
# open_clip 3.3 and before: XL has no position table, so the wrong number shows in nothing but the accuracy
_WRONG_SIZES = {("vitamin_xlarge_384", (256, 256)): (384, 384)}


_Tower = ViTaminConfig | Eva02Config | VitConfig


def timm_name(config: _Tower, *, at_its_size: bool) -> str:
    """timm's name of an encoder. at_its_size: it must be the one that timm builds at this image size.

    Raises ConfigError when timm has none: for sizes of our own, and, where the size matters, other image sizes.
    """
    if at_its_size and not isinstance(config, VitConfig) and not config.has_position:
        at_its_size = False  # without a table timm's model runs at any size
    found = [
        (name, known)
        for name, known in ENCODERS.items()
        if name not in _OWN_ENCODERS
        and not isinstance(known, ForeignConfig | OwnEncoderConfig)
        and _same_trunk(known, config)
    ]
    if not found:
        is_one = isinstance(config, Eva02Config | VitConfig)
        wide, deep = (config.width, config.depth) if is_one else (config.widths, config.depths)
        kind = {Eva02Config: "EVA-02 of width", VitConfig: "plain ViT of width"}.get(type(config), "ViTamin of widths")
        raise ConfigError(
            f"timm and open_clip have no {kind} {wide} and depth {deep} with these parts; "
            "a file of named tensors can be written (--to open_clip or --to timm), a folder that they open cannot"
        )
    same_size = [(name, known) for name, known in found if known.image_size == config.image_size]
    if at_its_size and not same_size:
        there = ", ".join(sorted({"x".join(map(str, known.image_size)) for _, known in found}))
        raise ConfigError(
            f"image_size: open_clip builds this encoder at {there} pixels only, the model is at "
            f"{config.image_size[0]}x{config.image_size[1]}; load it with image_size=... first, or write timm's folder"
        )
    candidates = same_size or found
    return min(candidates, key=lambda entry: (entry[1].embed_dim != config.embed_dim, entry[0]))[0]


def _same_trunk(known: _Tower, config: _Tower) -> bool:
    if isinstance(known, VitConfig) or isinstance(config, VitConfig):
        if not isinstance(known, VitConfig) or not isinstance(config, VitConfig):
            return False
        exact = (known.activation, known.pooling, known.num_heads, known.norm_eps)
        exact_too = (config.activation, config.pooling, config.num_heads, config.norm_eps)
        return exact == exact_too and same_vit(replace(known, embed_dim=config.embed_dim), config)
    if isinstance(known, Eva02Config) or isinstance(config, Eva02Config):
        if not isinstance(known, Eva02Config) or not isinstance(config, Eva02Config):
            return False
        return same_shape(replace(known, embed_dim=config.embed_dim), config)
    sizes = (config.widths, config.depths, config.num_heads, config.has_position)
    return config.has_released_parts and (known.widths, known.depths, known.num_heads, known.has_position) == sizes


def open_clip_config(
    config: ClipConfig, *, is_text_prefixed: bool = True, logit_bias: float | None = None
) -> dict[str, Any]:
    """The content of an open_clip_config.json. is_text_prefixed: for weights with `text.` names. logit_bias: of a model
    of the sigmoid loss, without which open_clip makes no place for the one in the file.
    """
    image, text = config.image, config.text
    if isinstance(image, VitConfig) and isinstance(text, ClipTextConfig):
        return to_open_clip(image, text, config.preprocess, logit_bias)
    if isinstance(image, ForeignConfig | OwnEncoderConfig) or not isinstance(text, ClipTextConfig):
        raise ConfigError(
            f"{config.name}: open_clip has no such towers; it takes a ViTamin, EVA-02 or plain ViT and open_clip's own "
            "text tower"
        )
    model: dict[str, Any] = {
        "embed_dim": image.embed_dim,
        "vision_cfg": {
            "timm_model_name": timm_name(image, at_its_size=True),
            "timm_model_pretrained": False,
            # with no projection of open_clip's own the head is timm's
            **({"timm_pool": "token", "timm_proj": None} if isinstance(image, Eva02Config) else _VITAMIN_POOL),
            "timm_drop": 0.0,
            "timm_drop_path": image.drop_path_prob,
            "image_size": _one_or_two(image.image_size),
        },
        "text_cfg": {
            "context_length": text.context_len,
            "vocab_size": text.vocab_size,
            "width": text.width,
            "heads": text.heads,
            "layers": text.depth,
        },
        "custom_text": is_text_prefixed,
    }
    if logit_bias is not None:
        model["init_logit_bias"] = logit_bias
    if text.mlp_ratio != 4.0:
        model["text_cfg"]["mlp_ratio"] = text.mlp_ratio
    pixels = config.preprocess
    return {
        "model_cfg": model,
        "preprocess_cfg": {
            "size": _one_or_two(pixels.image_size),
            "mode": "RGB",
            "mean": list(pixels.mean),
            "std": list(pixels.std),
            "interpolation": pixels.interpolation,
            "resize_mode": pixels.resize,
        },
    }


def timm_config(config: _Tower, preprocess: PreprocessConfig) -> dict[str, Any]:
    """The content of timm's config.json. crop_pct 1 is what the models were made for; timm's own entries say 0.9."""
    size = list(config.image_size)
    is_plain = isinstance(config, Eva02Config | VitConfig)
    pool = "avg"
    if is_plain and config.pooling in ("token", "map"):
        pool = config.pooling
    count = 0 if pool == "map" else config.embed_dim
    return {
        "architecture": timm_name(config, at_its_size=False),
        "num_classes": count,
        "num_features": config.width if is_plain else config.widths[2],
        "global_pool": pool,
        "model_args": {"img_size": size},
        "pretrained_cfg": {
            "tag": "eyesmith",
            "custom_load": False,
            "input_size": [3, *size],
            "fixed_input_size": True,
            "interpolation": preprocess.interpolation,
            "crop_pct": 1.0,
            "crop_mode": "squash" if preprocess.resize == "squash" else "center",
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "num_classes": count,
            "pool_size": None,
            "first_conv": "patch_embed.proj" if is_plain else "patch_embed.backbone.stem.conv1",
            "classifier": "head",
        },
    }


def read_facts(content: Mapping[str, Any], where: str) -> tuple[str, PreprocessConfig | None]:
    """timm's name of the image tower, '' when there is none, and how pictures are prepared, None when it says nothing.

    content: an open_clip_config.json or timm's config.json. The published XL-384 says 256 pixels, which is mended.
    Raises CheckpointError for preprocessing that we do not have.
    """
    if isinstance(model := content.get("model_cfg"), Mapping):
        vision, given = _fields(model, "vision_cfg", where), _fields(content, "preprocess_cfg", where)
        name = str(vision.get("timm_model_name") or "")
        size = _size(vision.get("image_size") or given.get("size"), where)
        resize = given.get("resize_mode") or "shortest"
    elif isinstance(content.get("architecture"), str):
        name, given = content["architecture"], _fields(content, "pretrained_cfg", where) or content
        size = _size(_fields(content, "model_args", where).get("img_size") or given.get("input_size"), where)
        resize = given.get("crop_mode") or "center"
    else:
        return "", None
    size = _WRONG_SIZES.get((name, size), size) if size is not None else None
    if size is None:
        return name, None
    try:
        interpolation = given.get("interpolation") or "bicubic"
        config = PreprocessConfig(image_size=size, interpolation=interpolation, resize=_RESIZE[resize])
        colours = {key: tuple(map(float, given[key])) for key in ("mean", "std") if given.get(key)}
        return name, replace(config, **colours)
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: asks for preprocessing that is not known here: {error}") from None


def _fields(content: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    found = content.get(key) or {}
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{where}: {key}: expected fields by name, got {type(found).__name__}")
    return found


def _size(value: Any, where: str) -> tuple[int, int] | None:
    if isinstance(value, int):
        return value, value
    if not isinstance(value, list | tuple) or len(value) < 2:
        return None
    try:
        return int(value[-2]), int(value[-1])
    except (TypeError, ValueError, OverflowError):
        raise CheckpointError(f"{where}: expected the size of pictures as numbers, got {value!r:.80}") from None


def _one_or_two(size: tuple[int, int]) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)
