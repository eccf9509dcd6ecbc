"""A model from wherever its weights are: a run folder, a weight file, or the Hugging Face hub."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from eyesmith.config import closest
from eyesmith.errors import CheckpointError, ConfigError, MissingDependencyError
from eyesmith.hub.run_folder import MODEL_FILE, is_run_folder, load_model, read_config
from eyesmith.hub.weights import load_tensors, read_tensors
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.registry import config as model_config
from eyesmith.models.registry import list_models, override
from eyesmith.models.vitamin.config import STRIDE
from eyesmith.models.vitamin.weights import POSITION, TRUNK, from_open_clip, is_open_clip, likely_models

HUB_PREFIX = "hf:"


def load(source: str | os.PathLike[str], *, name: str | None = None) -> Clip:
    """A model with its weights, in evaluation mode on the CPU.

    source: a run folder; a weight file in our layout or OpenCLIP's; or hf:OWNER/NAME (hf:OWNER/NAME@REVISION) of the
    Hugging Face hub, which alone may use the network, and only for what its cache does not hold. name: which model
    a bare weight file is for; where None, the name in its path, or the one model that its tensors fit.
    Raises CheckpointError when there is nothing to load or it is not what it should be, ConfigError for a `name`
    that is unknown or not the model of the run.
    """
    text = os.fspath(source)
    if text.startswith(HUB_PREFIX):
        from eyesmith.hub.hugging_face import fetch

        repo, folder, file = fetch(text.removeprefix(HUB_PREFIX))
        return _load_run(folder, name) if file is None else load_file(file, name=name, hint=repo)
    path = Path(text)
    if path.is_dir():
        return _load_run(path, name)
    if path.is_file():
        if path.name == MODEL_FILE and is_run_folder(path.parent):
            return _load_run(path.parent, name)
        return load_file(path, name=name, hint=text)
    if text in list_models():
        raise CheckpointError(
            f"{text}: is a model, not weights; `eyesmith.create({text!r})` makes one with random weights, load takes a "
            "run folder, a weight file or hf:OWNER/NAME"
        )
    hub = f"; for the Hugging Face hub write {HUB_PREFIX}{text}" if text.count("/") == 1 and ".." not in text else ""
    raise CheckpointError(f"{text}: no such run folder or weight file{hub}")


def load_file(path: Path, *, name: str | None = None, hint: str = "") -> Clip:
    """The model of a bare weight file. hint: a path or hub id that may hold the model's name.

    With a `name`, a position table of another image size is resampled to that model's; without one the model takes
    the image size of the table.
    """
    tensors = read_tensors(path)
    if is_open_clip(tensors):
        config = model_config(name) if name is not None else _open_clip_config(tensors, hint, path)
        try:
            tensors = from_open_clip(tensors, config)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
    elif any(key.startswith("image.") for key in tensors) and any(key.startswith("text.") for key in tensors):
        config = model_config(name if name is not None else _own_name(tensors, hint, path))
    else:
        raise CheckpointError(
            f"{path}: these tensors are in no layout that is known (OpenCLIP's or ours); they are called "
            f"{', '.join(list(tensors)[:3])} ..."
        )
    with torch.random.fork_rng(devices=[]):
        clip = config.build()
    load_tensors(clip, tensors, where=f"{path} (as {config.name})")
    return clip.eval()


def _open_clip_config(tensors: Mapping[str, Tensor], hint: str, path: Path) -> ClipConfig:
    likely = likely_models(tensors)
    if not likely:
        raise CheckpointError(f"{path}: OpenCLIP's layout, but the sizes of no model that is known; pass its name")
    table = tensors.get(TRUNK + POSITION)
    if table is None:  # XL has the same tensors at every image size
        return model_config(_named_in(hint, likely) or likely[0])
    config = model_config(likely[0])
    side = math.isqrt(table.shape[1])
    if side * side != table.shape[1]:
        raise CheckpointError(
            f"{path}: its position table is for no square image; pass the model's name to resample it"
        )
    return override(config, {"image_size": side * STRIDE})


def _own_name(tensors: Mapping[str, Tensor], hint: str, path: Path) -> str:
    """The registered model whose tensors have these names and shapes; of several the one that `hint` names."""
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    fitting = []
    for candidate in list_models():
        try:
            with torch.device("meta"):
                own = {key: tuple(tensor.shape) for key, tensor in model_config(candidate).build().state_dict().items()}
        except MissingDependencyError:  # then its weights cannot be loaded either
            continue
        if own == shapes:
            fitting.append(candidate)
    if not fitting:
        raise CheckpointError(
            f"{path}: the weights fit no model that is known ({', '.join(list_models())}); load the run folder they "
            "came from, or pass the model's name to see what differs"
        )
    return _named_in(hint, fitting) or fitting[0]


def _named_in(hint: str, names: Sequence[str]) -> str | None:
    """The longest of `names` that occurs in a path or hub id."""
    return max((name for name in names if name.lower() in hint.lower()), key=len, default=None)


def _load_run(folder: Path, name: str | None) -> Clip:
    config = read_config(folder)
    own = config["model"].get("name")
    if name is not None and name != own:
        raise ConfigError(f"name: {folder} is a run of {own!r}, not of {name!r}{closest(name, [str(own)])}")
    return load_model(folder)
