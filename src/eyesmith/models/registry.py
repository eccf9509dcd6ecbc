"""Every named image-text model and image encoder, joined from the families."""

import difflib
from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from eyesmith.config import closest, from_dict, to_dict
from eyesmith.errors import ConfigError
from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.encoder import Encoder
from eyesmith.models.encoder_config import EncoderConfig
from eyesmith.models.eva02.config import EVA02, Eva02Config
from eyesmith.models.own.register import own_config, own_encoders
from eyesmith.models.text.config import ClipTextConfig
from eyesmith.models.timm.config import TIMM
from eyesmith.models.vitamin.config import VITAMIN

_Config = TypeVar("_Config", bound=ClipConfig | EncoderConfig)


def list_models() -> list[str]:
    """All names that `create` knows, sorted."""
    return sorted(CLIP)


def list_encoders() -> list[str]:
    """All names that `create_encoder` knows, sorted; a registered file's are NAME:SIZE."""
    return sorted([*ENCODERS, *_own_names()])


def config(name: str) -> ClipConfig:
    """The complete config of a named model; the authors' other names for one are understood too.

    Raises ConfigError for an unknown name, with close ones.
    """
    name = ALIASES.get(name, name)
    if name in ENCODERS:
        pairs = [pair for pair, known in CLIP.items() if known.image == ENCODERS[name]]
        raise ConfigError(
            f"model: {name} is an image encoder without a text tower; `create_encoder({name!r})` makes it"
            + (f", and {pairs[0]} pairs it with one" if pairs else "")
        )
    return CLIP[_known(name, CLIP, "model")]


def encoder_config(name: str) -> EncoderConfig:
    """The complete config of a named image encoder. Raises ConfigError for an unknown name, with close ones.

    NAME:SIZE is an encoder of a file that was registered (register_encoder), at 64 pixels and without projection.
    """
    name = ALIASES.get(name, name)
    if name in CLIP:
        raise ConfigError(
            f"encoder: {name} is an image-text model; `create({name!r}).image` is its image tower, "
            f"`config({name!r}).image` the config of it"
        )
    if name in (own := _own_names()):
        return own_config(*own[name])
    return ENCODERS[_known(name, [*ENCODERS, *own], "encoder")]


def create(name: str, **overrides: Any) -> Clip:
    """A named model with random weights.

    overrides: fields of its config, dotted ones through a mapping: create("ViTamin-S", lock_text=True,
    **{"image.drop_path_prob": 0.0}). `image_size` (pixels, one number or height and width) sets encoder and
    preprocessing together. Raises ConfigError for an unknown name, field or value.
    """
    return override(config(name), overrides).build()


def create_encoder(name: str, **overrides: Any) -> Encoder:
    """A named image encoder with random weights and the projection of the CLIP model it belongs to.

    overrides: fields of its config; embed_dim=0 leaves out the projection, image_size may be one number.
    Raises ConfigError for an unknown name, field or value, MissingDependencyError for timm's without timm.
    """
    return override(encoder_config(name), overrides).build()


def override(config: _Config, overrides: dict[str, Any]) -> _Config:
    """The config with some fields replaced, named as in `create`; values are checked as those of a config file."""
    changes: dict[str, Any] = {}
    for path, value in overrides.items():
        if path == "image_size":
            size = (value, value) if isinstance(value, int) else value
            sides = ("image.image_size", "preprocess.image_size") if isinstance(config, ClipConfig) else (path,)
            changes |= dict.fromkeys(sides, size)
        else:
            changes[path] = value
    # both sizes in one step: a config in between would be refused
    nested: dict[str, Any] = {}
    for path, value in changes.items():
        *parents, field = path.split(".")
        branch = nested
        for parent in parents:
            branch = branch.setdefault(parent, {})
            if not isinstance(branch, dict):
                raise ConfigError(f"{path}: given together with {parent}")
        branch[field] = value
    try:
        return from_dict(type(config), to_dict(_replace(config, nested, "")))
    except TypeError as error:  # a comparison in a config's own check
        raise ConfigError(f"{', '.join(overrides)}: a value has the wrong type: {error}") from error


def register(name: str, config: ClipConfig) -> None:
    """Add a model of your own under a new name. Raises ConfigError when the name is taken."""
    if name in CLIP or name in ENCODERS or name in ALIASES:
        raise ConfigError(f"model: {name!r} is taken; choose another name")
    CLIP[name] = replace(config, name=name)


def _own_names() -> dict[str, tuple[str, str]]:
    """Name and size of each encoder of a user's files, by NAME:SIZE."""
    return {f"{name}:{size}": (name, size) for name, file in own_encoders().items() for size in file.sizes}


def _known(name: str, table: Iterable[str], what: str) -> str:
    names = sorted(table)
    if name in names:
        return name
    plain = name.lower().replace("_", "-")
    same = [known for known in names if known.lower().replace("_", "-") == plain]
    hint = f"; did you mean {same[0]}?" if same else closest(name, names)
    raise ConfigError(f"{what}: no {what} is called {name!r}{hint}")


def _replace(config: Any, changes: dict[str, Any], where: str) -> Any:
    known = [field.name for field in fields(config)]
    values: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in known:
            raise ConfigError(f"unknown field '{where}{name}'" + _nearest_path(where + name, known, config))
        old = getattr(config, name)
        if isinstance(value, dict):
            if not is_dataclass(old):
                raise ConfigError(f"{where}{name}: is a single value, it has no field {', '.join(value)}")
            value = _replace(old, value, f"{where}{name}.")
        values[name] = value
    return replace(config, **values)


def _nearest_path(path: str, known: Iterable[str], config: Any) -> str:
    """A hint for an unknown field, which is often the field of a part: `drop_path_prob` -> image.drop_path_prob."""
    name = path.rpartition(".")[2]
    for part in ("image", "text", "preprocess"):
        inner = getattr(config, part, None)
        if inner is not None and (near := difflib.get_close_matches(name, [f.name for f in fields(inner)], n=1)):
            return f"; did you mean {part}.{near[0]}?"
    return closest(name, known)


# width, depth and heads of OpenCLIP's text towers by size; the projection is the pair's embed_dim
_TEXT = {
    "nano": (128, 4, 2),
    "small": (384, 12, 6),
    "base": (512, 12, 8),
    "large": (768, 12, 12),
    "large2": (1024, 24, 16),
    "xlarge": (1152, 27, 16),
    "enormous": (1280, 32, 20),
}


def _pair(name: str, image: EncoderConfig, text: str, embed_dim: int, side_px: int) -> ClipConfig:
    width, depth, heads = _TEXT[text]
    size = (side_px, side_px)
    return ClipConfig(
        name=name,
        image=replace(image, image_size=size, embed_dim=embed_dim),
        text=ClipTextConfig(width=width, depth=depth, heads=heads, embed_dim=embed_dim),
        preprocess=PreprocessConfig(image_size=size),
    )


def _eva02_clip(size: str, **changes: Any) -> Eva02Config:
    """The image tower of EVA-02-CLIP: the pre-trained encoder with LayerNorms on the heads, pooled by class token."""
    return replace(EVA02[size], has_inner_norm=True, pooling="token", initial="beit", **changes)


# OpenCLIP's names; for ViTamin the size in the name is the size the model runs at, also where a source says otherwise
CLIP: dict[str, ClipConfig] = {
    pair.name: pair
    for pair in (
        _pair("ViTamin-S", VITAMIN["small"], "small", 384, 224),
        _pair("ViTamin-S-LTT", VITAMIN["small"], "large", 768, 224),
        _pair("ViTamin-B", VITAMIN["base"], "base", 512, 224),
        _pair("ViTamin-B-LTT", VITAMIN["base"], "large", 768, 224),
        _pair("ViTamin-L", VITAMIN["large"], "large", 768, 224),
        _pair("ViTamin-L-256", VITAMIN["large"], "large", 768, 256),
        _pair("ViTamin-L-336", VITAMIN["large"], "large", 768, 336),
        _pair("ViTamin-L-384", VITAMIN["large"], "large", 768, 384),
        _pair("ViTamin-L2", VITAMIN["large"], "large2", 1024, 224),
        _pair("ViTamin-L2-256", VITAMIN["large"], "large2", 1024, 256),
        _pair("ViTamin-L2-336", VITAMIN["large"], "large2", 1024, 336),
        _pair("ViTamin-L2-384", VITAMIN["large"], "large2", 1024, 384),
        _pair("ViTamin-XL-256", VITAMIN["xlarge"], "xlarge", 1152, 256),
        _pair("ViTamin-XL-336", VITAMIN["xlarge"], "xlarge", 1152, 336),
        _pair("ViTamin-XL-384", VITAMIN["xlarge"], "xlarge", 1152, 384),
        _pair("EVA02-B-16", _eva02_clip("base", patch_px=16), "base", 512, 224),
        _pair("EVA02-L-14", _eva02_clip("large"), "large", 768, 224),
        _pair("EVA02-L-14-336", _eva02_clip("large"), "large", 768, 336),
        _pair("EVA02-E-14", EVA02["enormous"], "large2", 1024, 224),
        _pair("EVA02-E-14-plus", EVA02["enormous"], "enormous", 1024, 224),
        _pair("EVA01-g-14", EVA02["giant"], "large", 1024, 224),
        _pair("EVA01-g-14-plus", EVA02["giant"], "large2", 1024, 224),
        _pair("TrV-Nano", EVA02["nano"], "nano", 256, 48),
        _pair("ViTamin-Nano", VITAMIN["nano"], "nano", 256, 48),
        _pair("ViT-Nano", TIMM["vit_nano"], "nano", 256, 48),
    )
}

# timm's names; the projection is that of the CLIP model, whose image tower each of these is, and where there is none
# (EVA-02 as pre-trained and fine-tuned) there is no projection. large2 has large's trunk
ENCODERS: dict[str, EncoderConfig] = {
    "vitamin_small_224": CLIP["ViTamin-S"].image,
    "vitamin_base_224": CLIP["ViTamin-B"].image,
    "vitamin_large_224": CLIP["ViTamin-L"].image,
    "vitamin_large_256": CLIP["ViTamin-L-256"].image,
    "vitamin_large_336": CLIP["ViTamin-L-336"].image,
    "vitamin_large_384": CLIP["ViTamin-L-384"].image,
    "vitamin_large2_224": CLIP["ViTamin-L2"].image,
    "vitamin_large2_256": CLIP["ViTamin-L2-256"].image,
    "vitamin_large2_336": CLIP["ViTamin-L2-336"].image,
    "vitamin_large2_384": CLIP["ViTamin-L2-384"].image,
    "vitamin_xlarge_256": CLIP["ViTamin-XL-256"].image,
    "vitamin_xlarge_336": CLIP["ViTamin-XL-336"].image,
    "vitamin_xlarge_384": CLIP["ViTamin-XL-384"].image,
    "eva02_tiny_patch14_224": EVA02["tiny"],
    "eva02_small_patch14_224": EVA02["small"],
    "eva02_base_patch14_224": EVA02["base"],
    "eva02_large_patch14_224": EVA02["large"],
    "eva02_tiny_patch14_336": replace(EVA02["tiny"], image_size=(336, 336)),
    "eva02_small_patch14_336": replace(EVA02["small"], image_size=(336, 336)),
    "eva02_base_patch14_448": replace(EVA02["base"], image_size=(448, 448)),
    "eva02_large_patch14_448": replace(EVA02["large"], image_size=(448, 448)),
    "eva02_base_patch16_clip_224": CLIP["EVA02-B-16"].image,
    "eva02_large_patch14_clip_224": CLIP["EVA02-L-14"].image,
    "eva02_large_patch14_clip_336": CLIP["EVA02-L-14-336"].image,
    "eva02_enormous_patch14_clip_224": CLIP["EVA02-E-14"].image,
    "eva_giant_patch14_clip_224": CLIP["EVA01-g-14"].image,
    "trv_nano_48": CLIP["TrV-Nano"].image,
    "vitamin_nano_48": CLIP["ViTamin-Nano"].image,
    "vit_nano_48": CLIP["ViT-Nano"].image,
}

# what the authors' own repository calls them
ALIASES: dict[str, str] = {
    "ViTamin-S-T768": "ViTamin-S-LTT",
    "ViTamin-B-T768": "ViTamin-B-LTT",
    "vitamin_small": "vitamin_small_224",
    "vitamin_base": "vitamin_base_224",
    "vitamin_large": "vitamin_large_224",
}
