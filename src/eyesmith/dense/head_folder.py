"""The folder of a head on a frozen eye, which it holds whole: it opens offline and finds other words."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from eyesmith.errors import CheckpointError
from eyesmith.files import atomic_path, write_json
from eyesmith.hub import read_config, save_model
from eyesmith.hub.load import load
from eyesmith.hub.weights import load_tensors, own_memory, read_tensors
from eyesmith.models.clip import Clip

MODEL_FILE, CONFIG_FILE, EYE_FOLDER = "model.safetensors", "config.json", "eye"


def save_head(folder: str | os.PathLike[str], head: nn.Module, clip: Clip, *, config: Mapping[str, Any]) -> None:
    """Write the folder, the head's weights last. config: the content of config.json."""
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    save_model(root / EYE_FOLDER, clip)
    write_json(root / CONFIG_FILE, dict(config))
    with atomic_path(root / MODEL_FILE) as part:
        save_file(own_memory(head.state_dict()), part, metadata={"format": "pt"})
        part.chmod((root / CONFIG_FILE).stat().st_mode)


def holds(folder: str | os.PathLike[str], kind: str) -> bool:
    """Whether a path is the run folder of a head of this kind, finished or not."""
    root = Path(folder)
    if not (root / CONFIG_FILE).is_file():
        return False
    try:
        fields = read_config(root).get("model", {})
    except CheckpointError:
        return False
    return isinstance(fields, dict) and fields.get("kind") == kind


def read_fields(folder: str | os.PathLike[str], kind: str, *, what: str, recipe: str) -> dict[str, Any]:
    """What a finished run's config says of its head. Raises CheckpointError where the folder holds none, or no weights.

    what, recipe: how messages call it, and what trains one.
    """
    root = Path(folder)
    fields = read_config(root).get("model", {})
    if not isinstance(fields, dict) or fields.get("kind") != kind:
        raise CheckpointError(f"{root}: holds no {what}; train one by `eyesmith train {recipe}`, or another recipe")
    if not (root / MODEL_FILE).is_file():
        raise CheckpointError(
            f"{root}: has no {MODEL_FILE}: the run is not finished; go on by `eyesmith resume {root}`"
        )
    return fields


def load_eye(folder: str | os.PathLike[str], device: torch.device | str) -> Clip:
    """The eye of a head, frozen. Raises CheckpointError where it has no text tower."""
    clip = load(Path(folder) / EYE_FOLDER)
    if not isinstance(clip, Clip):
        raise CheckpointError(f"{Path(folder) / EYE_FOLDER}: expected an image-text model, by which things are named")
    clip.requires_grad_(False).eval().to(device)
    return clip


def load_head(folder: str | os.PathLike[str], head: nn.Module, device: torch.device | str) -> None:
    """Give a new head the folder's weights, in evaluation mode on `device`."""
    file = Path(folder) / MODEL_FILE
    load_tensors(head, read_tensors(file), where=str(file))
    head.eval().to(device)
