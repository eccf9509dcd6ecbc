"""EVA-02 weights as they lie in files: the release's, timm's and open_clip's, to our names and a config."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from eyesmith.data.evaluation.imagenet import published_classes
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.hub.build import ModelConfig
from eyesmith.models.classifier import ClassifierConfig, classifier_config
from eyesmith.models.clip import ClipConfig
from eyesmith.models.eva02.config import Eva02Config
from eyesmith.models.eva02.layouts import Found, find_tower
from eyesmith.models.eva02.recognise import pair_config, same_shape, tower_config
from eyesmith.models.eva02.weights import from_clip, from_published
from eyesmith.models.registry import config as model_config
from eyesmith.models.registry import encoder_config, list_encoders, list_models
from eyesmith.models.text import weights as text_weights


def read_eva02(
    tensors: Mapping[str, Tensor],
    *,
    name: str | None = None,
    image_size: tuple[int, int] | None = None,
    said: tuple[tuple[int, int], ...] = (),
) -> tuple[ModelConfig, dict[str, Tensor], tuple[str, ...]]:
    """Config and tensors in our names, and what was left out in words.

    A fine-tuned file is a classifier: mean, norm, and a head of classes, named as `published_classes` names them.
    With the name of an image-text model its encoder alone is taken.

    name: which model it must be; its image and patch size are taken, tables and the kernel resampled by the rule of the
    file's source. image_size: of the result, in pixels. said: sizes that a folder tells, to read a table by. Raises
    CheckpointError for tensors that do not fit, ConfigError for a name of something else.
    """
    found = find_tower(tensors)
    sizes = (*said, *((image_size,) if image_size is not None else ()))
    has_text = bool(text_weights.from_open_clip(tensors)) and found.is_clip
    if has_text and (name is None or name in list_models()):
        pair = pair_config(found, tensors, sizes=sizes, name=name)
        image = pair.image
        assert isinstance(image, Eva02Config)
        image = _at_size(image, None if name is None else model_config(name).image, image_size)
        preprocess = replace(pair.preprocess, image_size=image.image_size)
        pair = replace(pair, image=image, preprocess=preprocess)
        return pair, from_clip(tensors, pair), ()
    config = tower_config(found, sizes=sizes)
    count = config.embed_dim if config.pooling == "mean" else 0
    has_classes = count > 1 and (name is None or name not in list_models())
    left_out = _left_out(found, 0 if has_classes else count)
    if config.pooling == "mean":
        config = replace(config, embed_dim=0)
    known = None
    if name is not None:
        known = model_config(name).image if name in list_models() else encoder_config(name)
        _check_name(config, known, name)
    config = _at_size(config, known, image_size)
    ours = from_published(found, config)
    if not has_classes:
        return config, ours, left_out
    classes = published_classes(count)
    made = classifier_config(name or _known_name(config), config, classes)
    return made, {"image." + key: value for key, value in ours.items()} | _head(found, config, count), left_out


def _head(found: Found, config: Eva02Config, count: int) -> dict[str, Tensor]:
    """The head of a fine-tuned file in a classifier's names. Raises CheckpointError for a damaged one."""
    shapes = {"head.weight": (count, config.width), "head.bias": (count,)}
    for key, shape in shapes.items():
        there = found.tensors.get(key)
        if there is None or tuple(there.shape) != shape:
            what = "missing" if there is None else f"{list(there.shape)}"
            raise CheckpointError(f"'{key}' is {what}, a classifier of {count} classes needs {list(shape)}")
    return {key: found.tensors[key] for key in shapes}


def _known_name(config: Eva02Config) -> str:
    """timm's name of an encoder like this at this size, for tables; EVA-02 where there is none."""
    known = ((name, encoder_config(name)) for name in list_encoders())
    like = [name for name, one in known if isinstance(one, Eva02Config) and same_shape(one, config)]
    at_size = [name for name in like if encoder_config(name).image_size == config.image_size]
    return min(at_size or like, default="EVA-02")


def _at_size(config: Eva02Config, known: object, image_size: tuple[int, int] | None) -> Eva02Config:
    """The config at the size asked for, else at the named model's, else as it is."""
    if isinstance(known, Eva02Config):
        config = replace(config, patch_px=known.patch_px, image_size=known.image_size)
    return config if image_size is None else replace(config, image_size=image_size)


def _check_name(config: Eva02Config, known: object, name: str) -> None:
    if not isinstance(known, Eva02Config):
        raise ConfigError(f"name: {name} is no EVA-02, and the tensors are in the names of one")
    at_patch = replace(known, patch_px=config.patch_px, image_size=config.image_size, embed_dim=config.embed_dim)
    # a classifier or a pre-trained encoder may become the start of a CLIP tower, which has norms that it lacks
    if not same_shape(at_patch, config) and not same_shape(replace(at_patch, has_inner_norm=False), config):
        raise ConfigError(
            f"name: {name} has {known.depth} blocks of width {known.width}, the file {config.depth} of {config.width}"
        )


def _left_out(found: Found, num_classes: int) -> tuple[str, ...]:
    words = []
    if "mask_token" in found.extras:
        words.append("the mask token")
    if (head := found.extras.get("lm_head.weight")) is not None:
        words.append(f"the pre-training's head of {head.shape[0]} targets")
    if num_classes:
        words.append(f"a classifier of {num_classes} classes")
    return tuple(words)


def with_image_size(config: ModelConfig, size: tuple[int, int]) -> ModelConfig:
    """The config at another image size, of an encoder or of a model with one."""
    if not isinstance(config, ClipConfig | ClassifierConfig):
        return replace(config, image_size=size)
    image = replace(config.image, image_size=size)
    return replace(config, image=image, preprocess=replace(config.preprocess, image_size=size))
