"""The folder of a finished run: everything `load_model` needs, offline, without the packages the model came from.

config.json (what was built and how), text/ (tokenizer files), encoder/ (the file of a user's own encoder),
fingerprint.json, and model.safetensors, which is written last: a folder without it holds a run that is not finished.
"""

import dataclasses
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import save_file
from torch import Tensor

from eyesmith.config import from_dict, to_dict
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.files import atomic_path, load_json, sha256_file, write_atomic, write_json
from eyesmith.hub.build import ModelConfig, build
from eyesmith.hub.fingerprint import FINGERPRINT_FILE, file_hashes, fingerprint, model_hash
from eyesmith.hub.weights import own_memory, read_tensors
from eyesmith.models.classifier import Classifier, ClassifierConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.encoder import Encoder
from eyesmith.models.families import EncoderConfig
from eyesmith.models.own import OwnEncoderConfig, encoder_source
from eyesmith.models.text.hugging_face import HuggingFaceTextConfig

CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
TEXT_FOLDER = "text"
CHAT_KIND = "chat"  # of a language model with an eye, which `multimodal` opens
DETECT_KIND = "detect"  # of a detector with its eye, which `dense.detect` opens
SEGMENT_KIND = "segment"  # of a segmenter with its eye, which `dense.segment` opens
ENCODER_FOLDER = "encoder"


ENCODERS: dict[str, type[EncoderConfig]] = {kind.__name__: kind for kind in get_args(EncoderConfig)}
"""Image encoders by the `kind` that config.json gives where a run has no text tower."""


def save_model(
    folder: str | os.PathLike[str],
    model: Clip | Encoder,
    *,
    config: Mapping[str, Any] | None = None,
    logit_bias: Tensor | None = None,
) -> None:
    """Write a model to a run folder; each file appears whole or not at all, model.safetensors last.

    config: what else config.json shall hold (the training config under "train" ...); "eyesmith_version" and "model"
    are added, or must agree when they are there. An older model in the folder is replaced. logit_bias: [] of the
    sigmoid loss, which training keeps beside the model; the loaded model has it.
    """
    root = Path(folder)
    described = describe(model)
    content = {"eyesmith_version": metadata.version("eyesmith"), **(config or {})}
    if model_hash(content.setdefault("model", described)) != model_hash(described):  # lists out of JSON equal tuples
        raise ConfigError("save_model: config['model'] is another model than the one to save; leave that key out")
    if isinstance(model, Clip):
        _save_text_assets(root / TEXT_FOLDER, model)
    save_encoder_file(root, getattr(model, "config", None))
    write_json(root / CONFIG_FILE, content)
    with _biased(model, logit_bias):
        _save_tensors(root, model, described)


def _save_tensors(root: Path, model: Clip | Encoder, described: dict[str, Any]) -> None:
    tensors = own_memory(model.state_dict())
    for stale in root.glob(f".{MODEL_FILE}.*.part"):  # of a save that was killed: as large as the model
        stale.unlink(missing_ok=True)
    with atomic_path(root / MODEL_FILE) as part:
        save_file(tensors, part, metadata={"format": "pt"})
        part.chmod((root / CONFIG_FILE).stat().st_mode)  # safetensors makes files that only their owner can read
        hashes = {MODEL_FILE: sha256_file(part), **file_hashes(root)}
        write_json(root / FINGERPRINT_FILE, {**fingerprint(model), "files": hashes, "model": model_hash(described)})


def save_encoder_file(folder: str | os.PathLike[str], config: object) -> None:
    """Keep the file that a user's own encoder comes from in its run folder. Nothing to do for other encoders.

    config: of the model. What was registered is kept, whatever became of the file since; it is never run from here
    unless asked for.
    """
    image = _image_config(config)
    if isinstance(image, OwnEncoderConfig):
        write_atomic(Path(folder) / ENCODER_FOLDER / image.file, encoder_source(image))


def _image_config(config: object) -> object:
    return config.image if isinstance(config, ClipConfig | ClassifierConfig) else config


def _require_encoder_file(root: Path, config: ModelConfig) -> None:
    """Raise ConfigError when the encoder is one of a user's own, and its file was not registered."""
    image = _image_config(config)
    if isinstance(image, OwnEncoderConfig):
        kept = root / ENCODER_FOLDER / image.file
        encoder_source(image, at=str(kept) if kept.is_file() else image.file)


@contextmanager
def _biased(model: Clip | Encoder, logit_bias: Tensor | None) -> Iterator[None]:
    """Inside, the model has the bias, if one is given."""
    if logit_bias is None or not isinstance(model, Clip):
        yield
        return
    before, model.logit_bias = model.logit_bias, logit_bias.detach().reshape(()).clone()
    try:
        yield
    finally:
        model.logit_bias = before


def describe(model: Clip | Encoder) -> dict[str, Any]:
    """The `model` part of config.json; an encoder's says its `kind`."""
    if isinstance(model, Clip):
        return to_dict(_present_config(model))
    if isinstance(model, Classifier):
        return describe_classifier(model.config)
    config: Any = getattr(model, "config", None)
    if type(config).__name__ not in ENCODERS:
        raise ConfigError(f"save_model: an encoder of one's own ({type(model).__name__}) has no config to save")
    return describe_encoder(dataclasses.replace(config, image_size=tuple(model.image_size)))


def describe_encoder(config: EncoderConfig) -> dict[str, Any]:
    """The `model` part of config.json of a run that trains an image encoder alone."""
    return {"kind": type(config).__name__, **to_dict(config)}


def describe_classifier(config: ClassifierConfig) -> dict[str, Any]:
    """The `model` part of config.json of a run that trains by classes."""
    return {"kind": ClassifierConfig.__name__, **to_dict(config)}


def load_model(folder: str | os.PathLike[str]) -> Clip | Encoder:
    """The model of a run folder, in evaluation mode on the CPU. Never touches the network.

    Raises CheckpointError when the folder holds no run, an unfinished one, or weights that do not fit its config.
    """
    config, tensors = read_run(folder)
    return build_run(folder, config, tensors)


def read_run(folder: str | os.PathLike[str]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The model's config and its tensors. Raises CheckpointError as load_model does."""
    model = read_model_config(folder)
    return model, read_tensors(Path(folder) / MODEL_FILE)


def read_model_config(folder: str | os.PathLike[str]) -> ModelConfig:
    """The model's config alone; no weights are read. Raises CheckpointError as load_model does."""
    root = Path(folder)
    config = read_config(root)
    try:
        fields = dict(config["model"])
        if fields.get("kind") == DETECT_KIND:
            raise CheckpointError(
                f"{root}: holds a detector; search a picture by `eyesmith detect {root} IMAGE`, or open it by "
                f"eyesmith.load_detector; its eye is the model in {root / 'eye'}"
            )
        if fields.get("kind") == SEGMENT_KIND:
            raise CheckpointError(
                f"{root}: holds a segmenter; outline things in a picture by `eyesmith segment {root} IMAGE`, or open "
                f"it by eyesmith.load_segmenter; its eye is the model in {root / 'eye'}"
            )
        if fields.get("kind") == CHAT_KIND:
            raise CheckpointError(
                f"{root}: holds a language model with an eye; ask it by `eyesmith chat {root} IMAGE QUESTION`, or open "
                "it by eyesmith.load_chat"
            )
        kinds = {**ENCODERS, ClassifierConfig.__name__: ClassifierConfig}
        kind = kinds.get(fields.pop("kind", ""), ClipConfig)
        model: ModelConfig = from_dict(kind, fields)
    except ConfigError as error:
        raise CheckpointError(
            f"{root / CONFIG_FILE}: its 'model' part cannot be read ({error}); it was written by eyesmith "
            f"{config.get('eyesmith_version', '?')}, this is {metadata.version('eyesmith')}"
        ) from None
    if isinstance(model, ClipConfig) and not (root / TEXT_FOLDER).is_dir():
        raise CheckpointError(
            f"{root}: the folder {TEXT_FOLDER}/ with the tokenizer is missing; copy the whole run folder"
        )
    return model


def build_run(
    folder: str | os.PathLike[str],
    model: ModelConfig,
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float32,
) -> Clip | Encoder:
    """The model with these weights and, for an image-text model, the folder's tokenizer.

    A Hugging Face text tower is rebuilt from the folder, not from where it came. Raises as `hub.build.build` does.
    """
    root = Path(folder)
    _require_encoder_file(root, model)
    if not isinstance(model, ClipConfig):
        return build(model, tensors, where=str(root / MODEL_FILE), dtype=dtype)
    assets = root / TEXT_FOLDER
    is_foreign = isinstance(model.text, HuggingFaceTextConfig)
    local = (
        dataclasses.replace(model, text=dataclasses.replace(model.text, source=str(assets))) if is_foreign else model
    )
    clip = build(local, tensors, where=f"{root / MODEL_FILE} (config.json says {model.name})", dtype=dtype)
    assert isinstance(clip, Clip)
    if is_foreign:
        clip.config = model  # so no machine's path enters the next run
    else:
        clip.text.load_assets(assets)
    return clip


def is_run_folder(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a finished run of ours, by its config.json and its weights."""
    try:
        read_config(folder)
    except CheckpointError:
        return False
    return True


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """config.json of a finished run. Raises CheckpointError, saying what to do, when there is none."""
    root = Path(folder)
    if root.is_file():
        raise CheckpointError(f"{root}: is a file; expected the folder that a training wrote, with {CONFIG_FILE} in it")
    if not root.is_dir():
        raise CheckpointError(f"{root}: no such run folder")
    path = root / CONFIG_FILE
    has_model = (root / MODEL_FILE).is_file()
    if not path.is_file():
        if has_model:
            raise CheckpointError(
                f"{root}: has weights but no {CONFIG_FILE}; give the weight file and the model's name"
            )
        raise CheckpointError(f"{root}: no run folder: neither {CONFIG_FILE} nor {MODEL_FILE} is in it{_others(root)}")
    try:
        config = load_json(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error})") from None
    is_ours = isinstance(config, dict) and ("eyesmith_version" in config or "train" in config)
    if not has_model and is_ours:
        raise CheckpointError(
            f"{root}: this run is not finished, it has no {MODEL_FILE} yet; go on with `eyesmith resume {root}`"
        )
    if not is_ours or not isinstance(config.get("model"), dict):
        raise CheckpointError(
            f"{path}: not the config of an eyesmith run ('eyesmith_version' and 'model' are expected)"
            + ("" if has_model else f"; weights of another program belong beside it, in {MODEL_FILE}{_others(root)}")
        )
    return config


def _others(root: Path) -> str:
    """Weight files of other names, or parts without the index that lists them, which can be given by themselves."""
    found = sorted(path.name for path in root.iterdir() if path.suffix in _WEIGHT_SUFFIXES and path.is_file())
    if not found:
        return ""
    if "-of-" in found[0]:
        return f"; {found[0]} is a part of a model, get the .index.json that lists the parts too"
    return f"; it holds {found[0]}: give that file, {root / found[0]}"


def _present_config(clip: Clip) -> ClipConfig:
    """The config with the image size that the encoder has now, which set_image_size may have changed."""
    size = clip.image.image_size
    if size == clip.config.image.image_size:
        return clip.config
    return dataclasses.replace(
        clip.config,
        image=dataclasses.replace(clip.config.image, image_size=size),
        preprocess=dataclasses.replace(clip.preprocess, image_size=size),
    )


def _save_text_assets(target: Path, clip: Clip) -> None:
    with tempfile.TemporaryDirectory() as scratch:  # the tower may read from `target` itself
        clip.text.save_assets(Path(scratch))
        for file in sorted(Path(scratch).rglob("*")):
            if file.is_file():
                write_atomic(target / file.relative_to(scratch), file.read_bytes())
