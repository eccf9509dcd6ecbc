"""Every named image-text model and image encoder, joined from the families."""

import difflib
import os
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from eyesmith.config import closest, from_dict, to_dict
from eyesmith.errors import ConfigError
from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.encoder import Encoder
from eyesmith.models.families import FAMILIES, EncoderConfig
from eyesmith.models.own import add_file, own_config, own_encoders
from eyesmith.models.text.model import CLIP_TEXT, ClipTextConfig

_Config = TypeVar("_Config", bound=ClipConfig | EncoderConfig)
_Image = TypeVar("_Image", bound=EncoderConfig)


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


def image_config(name: str) -> EncoderConfig:
    """The config of the image encoder that a name stands for: the image tower of a pair, or an encoder by itself."""
    return config(name).image if name in CLIP else encoder_config(name)


def pairs_of(kind: type[_Image]) -> Iterator[tuple[ClipConfig, _Image, ClipTextConfig]]:
    """The named pairs with an image tower of this family and OpenCLIP's text tower, and both towers, by name."""
    for pair in map(config, list_models()):
        if isinstance(pair.image, kind) and isinstance(pair.text, ClipTextConfig):
            yield pair, pair.image, pair.text


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
            if isinstance(config, ClipConfig) and size != config.image.image_size and config.preprocess.overhang_px:
                changes["preprocess.overhang_px"] = 0
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


def register_encoder(path: str | os.PathLike[str]) -> str:
    """Run a file that defines an encoder, so that configs which name it can be built; returns its name.

    The file has `SIZES`, keyword arguments by size name, and `build(*, image_size, embed_dim, **size) -> Encoder`;
    NAME (default: the file's name without .py), MEAN and STD (OpenAI's) if it likes. It is run as it is, with the
    rights of this process. Registering it again after it was edited replaces it; older configs still build what they
    name. Raises ConfigError for a missing file, one that defines no encoder, and a name that something else has.
    """
    return add_file(path, taken={*CLIP, *ENCODERS, *ALIASES})


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


def _pair(
    name: str, image: EncoderConfig, text: str | ClipTextConfig, preprocess: PreprocessConfig | None = None
) -> ClipConfig:
    return ClipConfig(
        name=name,
        image=image,
        text=replace(CLIP_TEXT[text], embed_dim=image.embed_dim) if isinstance(text, str) else text,
        preprocess=preprocess or PreprocessConfig(image_size=image.image_size),
    )


CLIP: dict[str, ClipConfig] = {name: _pair(name, *parts) for family in FAMILIES for name, parts in family.PAIRS.items()}
ENCODERS: dict[str, EncoderConfig] = {name: image for family in FAMILIES for name, image in family.ENCODERS.items()}
ALIASES: dict[str, str] = {alias: name for family in FAMILIES for alias, name in family.ALIASES.items()}
