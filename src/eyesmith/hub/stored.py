"""What lies in a weight file or folder, in our names: any layout that is known, recognised by its tensors."""

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from eyesmith.config import closest
from eyesmith.data.evaluation.imagenet import published_classes
from eyesmith.errors import CheckpointError, ConfigError, MissingDependencyError
from eyesmith.hub.build import ModelConfig
from eyesmith.hub.eva02 import read_eva02, with_image_size
from eyesmith.hub.folder import Folder, find_weights, read_folder
from eyesmith.hub.run_folder import MODEL_FILE, is_run_folder, read_config, read_run
from eyesmith.hub.weights import Which, read_tensors
from eyesmith.models.classifier import ClassifierConfig, classifier_config
from eyesmith.models.clip import ClipConfig
from eyesmith.models.eva02.config import Eva02Config
from eyesmith.models.eva02.layouts import is_eva02
from eyesmith.models.eva02.weights import resize_state
from eyesmith.models.position import resize_position_table
from eyesmith.models.registry import ENCODERS, encoder_config, list_encoders, list_models
from eyesmith.models.registry import config as model_config
from eyesmith.models.vitamin import recognise
from eyesmith.models.vitamin.config import STRIDE, ViTaminConfig
from eyesmith.models.vitamin.weights import HEAD, TRUNK, from_open_clip, from_timm, is_open_clip

HUB_PREFIX = "hf:"
_STEM = "patch_embed.backbone.stem.conv1.weight"

ImageSize = int | tuple[int, int] | None


@dataclass(frozen=True)
class Stored:
    """A model as it was stored: `tensors` have our names and their stored type, `config` builds what they fit.

    where: the file, for messages. left_out: what the file holds beside the model, in words. run: the run folder, whose
    tokenizer belongs to the model.
    """

    config: ModelConfig
    tensors: dict[str, Tensor]
    where: str
    left_out: tuple[str, ...] = ()
    run: Path | None = None


@dataclass(frozen=True)
class _Asked:
    """What the user, a folder's config and a path say about a file."""

    name: str | None
    image_size: tuple[int, int] | None
    hint: str  # a path or hub id that may hold the model's name
    folder: Folder = field(default_factory=Folder)


def read_stored(
    source: str | os.PathLike[str], *, name: str | None = None, weights: Which = "model", image_size: ImageSize = None
) -> Stored:
    """The model at `source`, as `load` takes it, before anything is built. Raises as `load` does."""
    text = os.fspath(source)
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if text.startswith(HUB_PREFIX):
        from eyesmith.hub.hugging_face import fetch

        repo, folder = fetch(text.removeprefix(HUB_PREFIX))
        return _read_dir(folder, weights, _Asked(name, size, repo))
    path = Path(text)
    asked = _Asked(name, size, text)
    if path.is_dir():
        return _read_dir(path, weights, asked)
    if path.is_file():
        if path.name == MODEL_FILE and is_run_folder(path.parent):
            return _read_dir(path.parent, weights, asked)
        return _read_file(path, weights, asked)
    if text in list_models() or text in list_encoders():
        maker = "create" if text in list_models() else "models.create_encoder"
        raise CheckpointError(
            f"{text}: is a model, not weights; `eyesmith.{maker}({text!r})` makes one with random weights, load takes "
            "a run folder, a weight file or hf:OWNER/NAME"
        )
    hub = f"; for the Hugging Face hub write {HUB_PREFIX}{text}" if text.count("/") == 1 and ".." not in text else ""
    raise CheckpointError(f"{text}: no such run folder or weight file{hub}")


def _read_dir(folder: Path, weights: Which, asked: _Asked) -> Stored:
    if is_run_folder(folder) or (file := find_weights(folder)) is None:
        config = read_config(folder)  # says what is wrong with a folder that holds neither
        own = config["model"].get("name")
        if asked.name is not None and asked.name != own:
            raise ConfigError(
                f"name: {folder} is a run of {own!r}, not of {asked.name!r}{closest(asked.name, [str(own)])}"
            )
        if weights == "ema":
            raise CheckpointError(
                f"{folder}: a run folder holds one set of weights, which is the average already where the recipe keeps "
                "one; leave out weights='ema'"
            )
        model, tensors = read_run(folder)
        return _resized(Stored(model, tensors, str(folder / MODEL_FILE), run=folder), asked.image_size)
    facts = read_folder(folder)
    hint = f"{asked.hint} {facts.timm_name}"
    return _read_file(file, weights, dataclasses.replace(asked, hint=hint, folder=facts))


def _read_file(path: Path, weights: Which, asked: _Asked) -> Stored:
    tensors = read_tensors(path, weights=weights)
    if any(key.startswith("trunk.patch_embed.") for key in tensors):  # `model.visual` saved alone
        tensors = {"visual." + key: value for key, value in tensors.items()}
    try:
        if is_eva02(tensors):
            stored = _read_eva02(tensors, path, asked)
        elif is_open_clip(tensors):
            stored = _read_open_clip(tensors, path, asked)
        elif TRUNK + _STEM in tensors or _STEM in tensors:
            stored = _read_timm(tensors, path, asked)
        else:
            stored = _read_own(tensors, path, asked)
    except CheckpointError as error:
        raise error if str(error).startswith(str(path)) else CheckpointError(f"{path}: {error}") from None
    return _resized(stored, _wanted_size(stored, asked))


def _read_open_clip(tensors: dict[str, Tensor], path: Path, asked: _Asked) -> Stored:
    config = _pair_config(tensors, asked)
    if config is None:
        raise CheckpointError("OpenCLIP's layout, but the sizes of no model that is known; pass its name")
    return Stored(config, from_open_clip(tensors, config), str(path))


def _read_eva02(tensors: dict[str, Tensor], path: Path, asked: _Asked) -> Stored:
    said = () if asked.folder.image_size is None else (asked.folder.image_size,)
    config, ours, left_out = read_eva02(tensors, name=asked.name, image_size=asked.image_size, said=said)
    if isinstance(config, ClipConfig | ClassifierConfig):
        config = dataclasses.replace(config, preprocess=asked.folder.preprocess_like(config.preprocess))
    else:
        asked.folder.check_colours()
    return Stored(config, ours, str(path), left_out)


def _read_timm(tensors: dict[str, Tensor], path: Path, asked: _Asked) -> Stored:
    if TRUNK + _STEM in tensors:
        tensors = {key.removeprefix(TRUNK): value for key, value in tensors.items()}
        if (head := tensors.pop(HEAD, None)) is not None:
            tensors["head.weight"] = head
    config = _tower_config(tensors, asked)
    bias, left_out = tensors.get("head.bias"), ()
    if config.embed_dim and bias is not None and bool((bias != 0).any()):
        left_out = (f"a classifier of {config.embed_dim} classes",)
        config = dataclasses.replace(config, embed_dim=0)
    return Stored(config, from_timm(tensors, config), str(path), left_out)


def _read_own(tensors: dict[str, Tensor], path: Path, asked: _Asked) -> Stored:
    towers = {part for part in ("image", "text") if any(key.startswith(part + ".") for key in tensors)}
    if towers == {"image", "text"}:
        config = _pair_config(tensors, asked) if asked.name is None or _is_vitamin(asked.name) else None
        config = config or (model_config(asked.name) if asked.name is not None else _other_pair(tensors))
        where = f"{path} (as {config.name})"
        return Stored(config, tensors, where)
    head = tensors.get("head.bias") if towers == {"image"} else None  # a classifier's
    if head is not None and asked.name is not None and asked.name in ENCODERS:
        classes = published_classes(len(head))
        config = classifier_config(asked.name, encoder_config(asked.name), classes)
        return Stored(config, tensors, f"{path} (as a classifier on {asked.name})")
    if towers == {"image"}:
        tensors = {key.removeprefix("image."): value for key, value in tensors.items()}
    if "stem.conv1.weight" in tensors and "norm.weight" in tensors:
        return Stored(_tower_config(tensors, asked), tensors, f"{path} (as an image encoder)")
    if asked.name is not None and asked.name in ENCODERS:
        return Stored(encoder_config(asked.name), tensors, f"{path} (as {asked.name})")
    raise CheckpointError(
        "these tensors are in no layout that is known (a ViTamin or EVA-02 in the names of OpenCLIP, timm or "
        "eyesmith; an EVA-02 encoder in the last needs its model's name); "
        f"they are called {', '.join(list(tensors)[:3])} ..."
    )


def _pair_config(tensors: Mapping[str, Tensor], asked: _Asked) -> ClipConfig | None:
    """The image-text model of these tensors at the image size of their position table; None when there is none."""
    if asked.name is not None:
        config = model_config(asked.name)
    else:
        likely = recognise.likely_models(tensors)
        chosen = (_named_in(asked.hint, likely) or likely[0]) if likely else None
        shapes = recognise.read_shapes(tensors)
        if likely and shapes is not None and shapes.num_tokens is not None:
            chosen = likely[0]  # the table knows the size better than a path
        chosen = chosen or recognise.nearest_model(tensors)
        if chosen is None:
            return None
        config = model_config(chosen)
    if not isinstance(config.image, ViTaminConfig):
        return config
    size = _table_size(tensors, config.image, asked)
    image = dataclasses.replace(config.image, image_size=size)
    preprocess = asked.folder.preprocess_like(config.preprocess)
    return dataclasses.replace(config, image=image, preprocess=dataclasses.replace(preprocess, image_size=size))


def _tower_config(tensors: Mapping[str, Tensor], asked: _Asked) -> ViTaminConfig:
    """The image encoder of these tensors, with the head they have, at the image size of their table."""
    shapes = recognise.read_shapes(tensors)
    if asked.name is not None:
        known = model_config(asked.name).image if asked.name in list_models() else encoder_config(asked.name)
        if not isinstance(known, ViTaminConfig):
            raise ConfigError(f"name: {asked.name} is no ViTamin, the tensors are in a ViTamin's names")
        config = dataclasses.replace(known, embed_dim=(shapes.embed_dim or 0) if shapes else known.embed_dim)
    else:
        config = recognise.image_tower(tensors)
    if config is None:
        widths = "cannot be told" if shapes is None else f"are {shapes.widths}"
        raise CheckpointError(f"a ViTamin's names, but no known one has these widths (they {widths}); pass its name")
    asked.folder.check_colours()
    return dataclasses.replace(config, image_size=_table_size(tensors, config, asked))


def _table_size(tensors: Mapping[str, Tensor], config: ViTaminConfig, asked: _Asked) -> tuple[int, int]:
    """The image size, in pixels, that the position table is for; the config's own where there is no such table."""
    shapes = recognise.read_shapes(tensors)
    if shapes is None or shapes.num_tokens is None or not shapes.image_fits(config):
        return config.image_size
    said = [size for size in (asked.folder.image_size, asked.image_size) if size is not None]
    for height, width in (config.image_size, *said):
        if height % STRIDE == width % STRIDE == 0 and height * width == shapes.num_tokens * STRIDE**2:
            return height, width
    side = math.isqrt(shapes.num_tokens)
    if side * side != shapes.num_tokens:
        raise CheckpointError(
            f"its position table has {shapes.num_tokens} cells, which is for no square image; pass the height and "
            "width it was trained at as image_size"
        )
    return side * STRIDE, side * STRIDE


def _wanted_size(stored: Stored, asked: _Asked) -> tuple[int, int] | None:
    """The image size to run at, None for the stored one: as asked, as named, or, without a table, as hinted."""
    if asked.image_size is not None:
        return asked.image_size
    if asked.name is not None:
        named = model_config(asked.name).image if asked.name in list_models() else ENCODERS.get(asked.name)
        return named.image_size if isinstance(named, ViTaminConfig) else None
    image = stored.config.image if isinstance(stored.config, ClipConfig) else stored.config
    if not isinstance(image, ViTaminConfig) or image.has_position:
        return None
    if asked.folder.image_size is not None:
        return asked.folder.image_size
    sizes = {name: known.image_size for name, known in ENCODERS.items() if _same_trunk(known, image)}
    pairs = {name: model_config(name).image for name in list_models()}
    sizes |= {name: known.image_size for name, known in pairs.items() if _same_trunk(known, image)}
    found = _named_in(asked.hint, list(sizes))
    return None if found is None else sizes[found]


def _resized(stored: Stored, size: tuple[int, int] | None) -> Stored:
    """The same model at another image size, its table resampled. Raises ConfigError for a size off the grid."""
    config = stored.config
    has_parts = isinstance(config, ClipConfig | ClassifierConfig)
    image = config.image if has_parts else config
    if size is None or size == image.image_size:
        return stored
    if isinstance(image, Eva02Config):
        prefix = "image." if has_parts else ""
        inner = {key.removeprefix(prefix): value for key, value in stored.tensors.items() if key.startswith(prefix)}
        inner = resize_state(inner, image, dataclasses.replace(image, image_size=size))
        tensors = stored.tensors | {prefix + key: value for key, value in inner.items()}
        return dataclasses.replace(stored, config=with_image_size(config, size), tensors=tensors)
    if not isinstance(image, ViTaminConfig):
        raise ConfigError(f"image_size: {stored.where} can be loaded at {image.image_size} only; resize the encoder")
    bigger = dataclasses.replace(image, image_size=size)
    tensors = dict(stored.tensors)
    name = "image.position" if has_parts else "position"
    if image.has_position and name in tensors:
        old, new = ((side[0] // STRIDE, side[1] // STRIDE) for side in (image.image_size, size))
        tensors[name] = resize_position_table(tensors[name], old, new)
    if has_parts:
        preprocess = dataclasses.replace(config.preprocess, image_size=size)
        return dataclasses.replace(
            stored, config=dataclasses.replace(config, image=bigger, preprocess=preprocess), tensors=tensors
        )
    return dataclasses.replace(stored, config=bigger, tensors=tensors)


def _other_pair(tensors: Mapping[str, Tensor]) -> ClipConfig:
    """The registered model, with a tower that is not ours, whose tensors have these names and shapes."""
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    for candidate in list_models():
        config = model_config(candidate)
        if isinstance(config.image, ViTaminConfig):  # those were recognised by their shapes
            continue
        try:
            with torch.device("meta"):
                own = {key: tuple(tensor.shape) for key, tensor in config.build().state_dict().items()}
        except MissingDependencyError:  # then its weights cannot be loaded either
            continue
        if own == shapes:
            return config
    raise CheckpointError(
        f"the weights fit no model that is known ({', '.join(list_models())}); load the run folder they "
        "came from, or pass the model's name to see what differs"
    )


def _is_vitamin(name: str) -> bool:
    return isinstance(model_config(name).image, ViTaminConfig)


def _same_trunk(known: ModelConfig, image: ViTaminConfig) -> bool:
    return isinstance(known, ViTaminConfig) and (known.widths, known.depths) == (image.widths, image.depths)


def _named_in(hint: str, names: list[str]) -> str | None:
    """The longest of `names` that occurs in a path or hub id."""
    return max((name for name in names if name.lower() in hint.lower()), key=len, default=None)
