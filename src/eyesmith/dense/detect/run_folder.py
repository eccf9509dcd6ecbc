"""The folder of a detector: its head and its whole eye, so that it opens offline and finds other words."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file

from eyesmith.config import from_dict
from eyesmith.dense.detect.detector import Detector, DetectorConfig
from eyesmith.dense.detect.object_detector import BACKGROUND, ObjectDetector
from eyesmith.dense.detect.predict import PredictConfig
from eyesmith.dense.detect.view import ViewConfig
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.files import atomic_path, write_json
from eyesmith.hub import read_config, save_model
from eyesmith.hub.load import load
from eyesmith.hub.run_folder import DETECT_KIND as DETECT_KIND
from eyesmith.hub.weights import load_tensors, own_memory, read_tensors
from eyesmith.models.clip import Clip

MODEL_FILE, CONFIG_FILE, EYE_FOLDER = "model.safetensors", "config.json", "eye"


def save_detector(folder: str | os.PathLike[str], detector: Detector, clip: Clip, *, config: Mapping[str, Any]) -> None:
    """Write the folder that `load_detector` opens, the head's weights last. config: the content of config.json."""
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    save_model(root / EYE_FOLDER, clip)
    write_json(root / CONFIG_FILE, dict(config))
    with atomic_path(root / MODEL_FILE) as part:
        save_file(own_memory(detector.state_dict()), part, metadata={"format": "pt"})
        part.chmod((root / CONFIG_FILE).stat().st_mode)


def is_detector(folder: str | os.PathLike[str]) -> bool:
    """Whether a path is the run folder of a detector, finished or not."""
    root = Path(folder)
    if not (root / CONFIG_FILE).is_file():
        return False
    try:
        fields = read_config(root).get("model", {})
    except CheckpointError:
        return False
    return isinstance(fields, dict) and fields.get("kind") == DETECT_KIND


def load_detector(folder: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> ObjectDetector:
    """The detector of a finished run, looking for the classes that it was trained on. Never touches the network.

    Raises CheckpointError where the folder holds none, or one that is not finished or damaged.
    """
    root = Path(folder)
    fields = read_config(root).get("model", {})
    if not isinstance(fields, dict) or fields.get("kind") != DETECT_KIND:
        raise CheckpointError(
            f"{root}: holds no detector; train one by `eyesmith train detect-emoji`, or another recipe"
        )
    if not (root / MODEL_FILE).is_file():
        raise CheckpointError(
            f"{root}: has no {MODEL_FILE}: the run is not finished; go on by `eyesmith resume {root}`"
        )
    try:
        head = from_dict(DetectorConfig, fields["head"])
        view, predict = from_dict(ViewConfig, fields["view"]), from_dict(PredictConfig, fields["predict"])
        trained, prompts = [str(name) for name in fields["trained"]], str(fields.get("prompts", ""))
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{root / CONFIG_FILE}: its 'model' part cannot be read ({error})") from None
    clip = load(root / EYE_FOLDER)
    if not isinstance(clip, Clip):
        raise CheckpointError(f"{root / EYE_FOLDER}: expected an image-text model, by which things are named")
    detector = Detector(head, clip.image.taps, clip.image.half_tap, clip.image.embed_dim)
    load_tensors(detector, read_tensors(root / MODEL_FILE), where=str(root / MODEL_FILE))
    found = ObjectDetector(
        cast(Clip, clip.requires_grad_(False).eval().to(device)),
        detector.eval().to(device),
        view,
        predict,
        trained=trained,
        prompts=prompts,
        background=str(fields.get("background", BACKGROUND)),
    )
    found.use()
    return found
