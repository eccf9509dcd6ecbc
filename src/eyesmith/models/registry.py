"""Every named image-text model, joined from the families."""

import difflib
from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from eyesmith.config import closest, from_dict, to_dict
from eyesmith.errors import ConfigError
from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.text.config import ClipTextConfig
from eyesmith.models.timm.config import TIMM, TimmConfig
from eyesmith.models.vitamin.config import VITAMIN, ViTaminConfig


def list_models() -> list[str]:
    """All names that `create` knows, sorted."""
    return sorted(CLIP)


def config(name: str) -> ClipConfig:
    """The complete config of a named model. Raises ConfigError for an unknown name, with close ones."""
    if name not in CLIP:
        same = [known for known in CLIP if known.lower() == name.lower().replace("_", "-")]
        hint = f"; did you mean {same[0]}?" if same else closest(name, list_models())
        raise ConfigError(f"model: no model is called {name!r}{hint}")
    return CLIP[name]


def create(name: str, **overrides: Any) -> Clip:
    """A named model with random weights.

    overrides: fields of its config, dotted ones through a mapping: create("ViTamin-S", lock_text=True,
    **{"image.drop_path_prob": 0.0}). `image_size` (pixels, one number or height and width) sets encoder and
    preprocessing together. Raises ConfigError for an unknown name, field or value.
    """
    return override(config(name), overrides).build()


def override(config: ClipConfig, overrides: dict[str, Any]) -> ClipConfig:
    """The config with some fields replaced, named as in `create`; values are checked as those of a config file."""
    changes: dict[str, Any] = {}
    for path, value in overrides.items():
        if path == "image_size":
            size = (value, value) if isinstance(value, int) else value
            changes["image.image_size"] = changes["preprocess.image_size"] = size
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
        return from_dict(ClipConfig, to_dict(_replace(config, nested, "")))
    except TypeError as error:  # a comparison in a config's own check
        raise ConfigError(f"{', '.join(overrides)}: a value has the wrong type: {error}") from error


def register(name: str, config: ClipConfig) -> None:
    """Add a model of your own under a new name. Raises ConfigError when the name is taken."""
    if name in CLIP:
        raise ConfigError(f"model: {name!r} is taken; choose another name")
    CLIP[name] = replace(config, name=name)


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
}


def _pair(name: str, image: ViTaminConfig | TimmConfig, text: str, embed_dim: int, side_px: int) -> ClipConfig:
    width, depth, heads = _TEXT[text]
    size = (side_px, side_px)
    return ClipConfig(
        name=name,
        image=replace(image, image_size=size, embed_dim=embed_dim),
        text=ClipTextConfig(width=width, depth=depth, heads=heads, embed_dim=embed_dim),
        preprocess=PreprocessConfig(image_size=size),
    )


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
        _pair("ViTamin-Nano", VITAMIN["nano"], "nano", 256, 48),
        _pair("ViT-Nano", TIMM["vit_nano"], "nano", 256, 48),
    )
}
