"""What lies in a weight file or folder, in our names: any layout that is known, recognised by its tensors."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from eyesmith.config import closest
from eyesmith.data.evaluation.imagenet import published_classes
from eyesmith.errors import CheckpointError, ConfigError, MissingDependencyError
from eyesmith.hub.build import ModelConfig, build
from eyesmith.hub.folder import Folder, find_weights, read_folder
from eyesmith.hub.foreign import is_foreign_id, read_foreign_folder, read_foreign_id
from eyesmith.hub.run_folder import MODEL_FILE, is_run_folder, read_config, read_run
from eyesmith.hub.strangers import of_names
from eyesmith.hub.weights import Which, read_own_config, read_prompts, read_tensors
from eyesmith.models.classifier import ClassifierConfig, classifier_config
from eyesmith.models.clip import ClipConfig
from eyesmith.models.encoder import Encoder
from eyesmith.models.families import EncoderConfig, ForeignConfig
from eyesmith.models.keymap import Asked, Beside, UnknownLayoutError, inner
from eyesmith.models.published import WEIGHTS
from eyesmith.models.registry import ENCODERS, encoder_config, list_encoders, list_models
from eyesmith.models.registry import config as model_config
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.text.weights import same_sizes, text_config
from eyesmith.models.vit.model import VitConfig
from eyesmith.tokenizer import has_pieces

HUB_PREFIX = "hf:"
ANY = "any"
"""As `pooling`: the tensors alone are wanted, however their model pools."""

ImageSize = int | tuple[int, int] | None


@dataclass(frozen=True)
class Stored:
    """A model as it was stored: `tensors` have our names and their stored type, `config` builds what they fit.

    where: the file, for messages. left_out: what the file holds beside the model, or was taken for granted, in words.
    run: the run folder, whose tokenizer belongs to the model; tokens: another folder with a tokenizer.
    """

    config: ModelConfig
    tensors: dict[str, Tensor]
    where: str
    left_out: tuple[str, ...] = ()
    run: Path | None = None
    tokens: Path | None = None


@dataclass(frozen=True)
class _Asked:
    """What the user, a folder's config and a path say about a file."""

    name: str | None
    image_size: tuple[int, int] | None
    hint: str  # a path or hub id that may hold the model's name
    folder: Folder = field(default_factory=Folder)
    beside: Beside | None = None
    pooling: str | None = None

    @property
    def of_tensors(self) -> Asked:
        """The same as families' `weights` take it."""
        return Asked(
            name=self.name,
            image_size=self.image_size,
            said=self.folder.image_size,
            hint=self.hint,
            beside=self.beside,
            pooling=self.pooling or self.folder.pooling,
        )


def read_stored(
    source: str | os.PathLike[str],
    *,
    name: str | None = None,
    weights: Which = "model",
    image_size: ImageSize = None,
    pooling: str | None = None,
) -> Stored:
    """The model at `source`, as `load` takes it, before anything is built. Raises as `load` does."""
    text = os.fspath(source)
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if text.startswith(HUB_PREFIX):
        from eyesmith.hub.hugging_face import fetch

        repo, folder = fetch(text.removeprefix(HUB_PREFIX))
        return _read_dir(folder, weights, _Asked(name, size, repo, pooling=pooling), source=text)
    if is_foreign_id(text):
        if name is not None or weights != "model" or pooling not in (None, ANY):
            raise ConfigError(f"{text}: names a model and its weights; leave out name, weights and pooling")
        return _resized(Stored(*read_foreign_id(text)), size)
    path = Path(text)
    asked = _Asked(name, size, text, pooling=pooling)
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


def _read_dir(folder: Path, weights: Which, asked: _Asked, *, source: str = "") -> Stored:
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
    try:
        facts = read_folder(folder)
        hint = f"{asked.hint} {facts.timm_name}"
        stored = _read_file(file, weights, replace(asked, hint=hint, folder=facts))
    except UnknownLayoutError as unknown:  # none of ours, but perhaps another package's
        found = (
            read_foreign_folder(folder, source or str(folder)) if weights == "model" and asked.name is None else None
        )
        if found is None:
            raise unknown
        return _resized(Stored(*found), asked.image_size)
    return replace(stored, tokens=folder) if has_pieces(folder) else stored


def _read_file(path: Path, weights: Which, asked: _Asked) -> Stored:
    tensors = read_tensors(path, weights=weights)
    own = read_own_config(path)
    beside = asked.folder.beside if own is None else Beside("eyesmith", own, None, str(path))
    asked = replace(asked, beside=beside)
    tensors = {key: value for key, value in tensors.items() if not _is_counted(key, value)}
    # `model.visual` saved alone, of open_clip's timm towers and of its own ViT
    if any(key.startswith("trunk.patch_embed.") for key in tensors) or {"conv1.weight", "class_embedding"} <= set(
        tensors
    ):
        tensors = {"visual." + key: value for key, value in tensors.items()}
    try:
        if (odd := of_names(tensors, is_known=True)) is not None:
            raise UnknownLayoutError(f"these tensors are of {odd}")
        family = next((family for family in WEIGHTS.values() if family.recognises(tensors)), None)
        if family is None:
            stored = _read_own(tensors, path, asked)
        else:
            config, ours, left_out = family.read(tensors, asked.of_tensors)
            stored = Stored(_as_folder_says(config, asked.folder), ours, str(path), left_out)
    except (CheckpointError, ConfigError) as error:
        raise error if str(error).startswith(str(path)) else type(error)(f"{path}: {error}") from None
    if isinstance(stored.config, ClipConfig) and (prompts := read_prompts(path)) is not None:
        stored = replace(stored, config=replace(stored.config, prompts=prompts))
    return _resized(stored, _wanted_size(stored, asked))


def _is_counted(name: str, value: Tensor) -> bool:
    """Whether this is `position_ids` 0, 1, 2 ..., which older programs store beside the table that they count."""
    is_ids = name.rpartition(".")[2] == "position_ids" and not value.is_floating_point()
    return is_ids and torch.equal(value.flatten().long(), torch.arange(value.numel()))


def _read_own(tensors: dict[str, Tensor], path: Path, asked: _Asked) -> Stored:
    towers = {part for part in ("image", "text") if any(key.startswith(part + ".") for key in tensors)}
    if towers == {"image"}:
        head = tensors.get("head.bias")
        if head is not None and asked.name is not None and asked.name in ENCODERS:
            classes = published_classes(len(head))
            config = classifier_config(asked.name, encoder_config(asked.name), classes)
            return Stored(config, tensors, f"{path} (as a classifier on {asked.name})")
        tensors = {key.removeprefix("image."): value for key, value in tensors.items()}
    found = (family.own_config(tensors, asked.of_tensors) for family in WEIGHTS.values())
    config = next((config for config in found if config is not None), None)
    if config is not None:
        label = config.name if isinstance(config, ClipConfig) else "an image encoder"
        return Stored(_as_folder_says(config, asked.folder), tensors, f"{path} (as {label})")
    if towers == {"image", "text"}:
        pair = model_config(asked.name) if asked.name is not None else _other_pair(tensors)
        return Stored(pair, tensors, f"{path} (as {pair.name})")
    if asked.name is not None and asked.name in ENCODERS:
        return Stored(encoder_config(asked.name), tensors, f"{path} (as {asked.name})")
    if (known := of_names(tensors)) is not None:
        raise UnknownLayoutError(f"in no layout that is known: these tensors are of {known}")
    raise UnknownLayoutError(
        "these tensors are in no layout that is known (a ViTamin, EVA-02 or plain ViT in the names of OpenCLIP, timm "
        "or eyesmith, or a CLIP or SigLIP in Hugging Face's; an EVA-02 encoder in eyesmith's needs its model's name); "
        f"they are called {', '.join(list(tensors)[:3])} ..."
    )


def _as_folder_says(config: ModelConfig, folder: Folder) -> ModelConfig:
    """The config with the folder's way of preparing pictures. Raises CheckpointError for other colours."""
    if isinstance(_image(config), VitConfig):  # has colours of its own, and has read the folder's configs
        return _colours(config, folder)
    if isinstance(config, ClipConfig | ClassifierConfig):
        return replace(config, preprocess=folder.preprocess_like(config.preprocess))
    folder.check_colours()
    return config


def _colours(config: ModelConfig, folder: Folder) -> ModelConfig:
    """An encoder's colours where timm's config says them; a pair of a plain ViT knows them."""
    if isinstance(config, VitConfig) and folder.preprocess is not None:
        return replace(config, mean=folder.preprocess.mean, std=folder.preprocess.std)
    return config


def _image(config: ModelConfig) -> EncoderConfig:
    return config.image if isinstance(config, ClipConfig | ClassifierConfig) else config


def _wanted_size(stored: Stored, asked: _Asked) -> tuple[int, int] | None:
    """The image size to run at, None for the stored one."""
    image = _image(stored.config)
    family = WEIGHTS.get(type(image))
    return asked.image_size if family is None else family.wanted_size(image, asked.of_tensors)


def _resized(stored: Stored, size: tuple[int, int] | None) -> Stored:
    """The same model at another image size, its table resampled. Raises ConfigError for a size off the grid."""
    config, image = stored.config, _image(stored.config)
    if size is None or size == image.image_size:
        return stored
    if isinstance(image, ForeignConfig):
        return _foreign_resized(stored, image, size)
    family = WEIGHTS.get(type(image))
    if family is None:
        raise ConfigError(f"image_size: {stored.where} can be loaded at {image.image_size} only; resize the encoder")
    bigger = replace(image, image_size=size)
    prefix = "" if image is config else "image."
    tower = family.resize_state(inner(stored.tensors, prefix), image, bigger)
    tensors = stored.tensors | {prefix + key: value for key, value in tower.items()}
    return replace(stored, config=_with_image(config, bigger), tensors=tensors)


def _foreign_resized(stored: Stored, image: ForeignConfig, size: tuple[int, int]) -> Stored:
    """The same by the package's own rule, which needs its module."""
    prefix = "" if image is stored.config else "image."
    encoder = build(image, inner(stored.tensors, prefix), where=stored.where)
    assert isinstance(encoder, Encoder)
    encoder.set_image_size(*size)
    tensors = stored.tensors | {prefix + key: value for key, value in encoder.state_dict().items()}
    return replace(stored, config=_with_image(stored.config, replace(image, image_size=size)), tensors=tensors)


def _with_image(config: ModelConfig, image: EncoderConfig) -> ModelConfig:
    """The config with another config of its encoder, and pictures of that size."""
    if isinstance(config, ClipConfig | ClassifierConfig):
        preprocess = replace(config.preprocess, image_size=image.image_size, overhang_px=0)
        return replace(config, image=image, preprocess=preprocess)
    return image


def _other_pair(tensors: Mapping[str, Tensor]) -> ClipConfig:
    """The registered model, with a tower that is not ours, whose tensors have these names and shapes."""
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    text = text_config(inner(tensors, "text."))
    for candidate in list_models():
        config = model_config(candidate)
        known = config.text
        if isinstance(known, ClipTextConfig) and text is not None and not same_sizes(text, known):
            continue  # before its image tower is built
        try:
            with torch.device("meta"):
                own = {key: tuple(tensor.shape) for key, tensor in config.build().state_dict().items()}
        except MissingDependencyError:  # then its weights cannot be loaded either
            continue
        if own == shapes:
            return config
    raise UnknownLayoutError(
        f"the weights fit no model that is known ({', '.join(list_models())}); load the run folder they "
        "came from, or pass the model's name to see what differs"
    )
