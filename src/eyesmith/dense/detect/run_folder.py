"""The folder of a detector, opened."""

import os
from pathlib import Path

import torch

from eyesmith.config import from_dict
from eyesmith.dense.detect.detector import Detector, DetectorConfig
from eyesmith.dense.detect.object_detector import BACKGROUND, ObjectDetector
from eyesmith.dense.detect.predict import PredictConfig
from eyesmith.dense.head_folder import CONFIG_FILE, holds, load_eye, load_head, read_fields
from eyesmith.dense.view import ViewConfig
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.hub.run_folder import DETECT_KIND


def is_detector(folder: str | os.PathLike[str]) -> bool:
    """Whether a path is the run folder of a detector, finished or not."""
    return holds(folder, DETECT_KIND)


def load_detector(folder: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> ObjectDetector:
    """The detector of a finished run, looking for the classes that it was trained on. Never touches the network.

    Raises CheckpointError where the folder holds none, or one that is not finished or damaged.
    """
    fields = read_fields(folder, DETECT_KIND, what="detector", recipe="detect-emoji")
    try:
        head = from_dict(DetectorConfig, fields["head"])
        view, predict = from_dict(ViewConfig, fields["view"]), from_dict(PredictConfig, fields["predict"])
        trained, prompts = [str(name) for name in fields["trained"]], str(fields.get("prompts", ""))
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{Path(folder) / CONFIG_FILE}: its 'model' part cannot be read ({error})") from None
    clip = load_eye(folder, device)
    detector = Detector(head, clip.image.taps, clip.image.half_tap, clip.image.embed_dim)
    load_head(folder, detector, device)
    background = str(fields.get("background", BACKGROUND))
    found = ObjectDetector(clip, detector, view, predict, trained=trained, prompts=prompts, background=background)
    found.use()
    return found
