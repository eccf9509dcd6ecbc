"""The folder of a segmenter: its head and its whole eye, so that it opens offline and finds other words."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file

from eyesmith.config import from_dict
from eyesmith.dense.detect.view import ViewConfig
from eyesmith.dense.segment.head import SegmentHead, SegmentHeadConfig
from eyesmith.dense.segment.picture_segmenter import PictureSegmenter, SegmentPredictConfig
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.files import atomic_path, write_json
from eyesmith.hub import read_config, save_model
from eyesmith.hub.load import load
from eyesmith.hub.run_folder import SEGMENT_KIND as SEGMENT_KIND
from eyesmith.hub.weights import load_tensors, own_memory, read_tensors
from eyesmith.models.clip import Clip

MODEL_FILE, CONFIG_FILE, EYE_FOLDER = "model.safetensors", "config.json", "eye"


def save_segmenter(folder: str | os.PathLike[str], head: SegmentHead, clip: Clip, *, config: Mapping[str, Any]) -> None:
    """Write the folder that `load_segmenter` opens, the head's weights last. config: the content of config.json."""
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    save_model(root / EYE_FOLDER, clip)
    write_json(root / CONFIG_FILE, dict(config))
    with atomic_path(root / MODEL_FILE) as part:
        save_file(own_memory(head.state_dict()), part, metadata={"format": "pt"})
        part.chmod((root / CONFIG_FILE).stat().st_mode)


def is_segmenter(folder: str | os.PathLike[str]) -> bool:
    """Whether a path is the run folder of a segmenter, finished or not."""
    root = Path(folder)
    if not (root / CONFIG_FILE).is_file():
        return False
    try:
        fields = read_config(root).get("model", {})
    except CheckpointError:
        return False
    return isinstance(fields, dict) and fields.get("kind") == SEGMENT_KIND


def load_segmenter(folder: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> PictureSegmenter:
    """The segmenter of a finished run, looking for the classes that it was trained on. Never touches the network.

    Raises CheckpointError where the folder holds none, or one that is not finished or damaged.
    """
    root = Path(folder)
    fields = read_config(root).get("model", {})
    if not isinstance(fields, dict) or fields.get("kind") != SEGMENT_KIND:
        raise CheckpointError(
            f"{root}: holds no segmenter; train one by `eyesmith train segment-emoji`, or another recipe"
        )
    try:
        config = from_dict(SegmentHeadConfig, fields["head"])
        view, predict = from_dict(ViewConfig, fields["view"]), from_dict(SegmentPredictConfig, fields["predict"])
        trained = [[str(name) for name in one] for one in fields["trained"]]
        things = [bool(one) for one in fields["things"]]
        prompts = str(fields.get("prompts", ""))
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{root / CONFIG_FILE}: its 'model' part cannot be read ({error})") from None
    clip = load(root / EYE_FOLDER)
    if not isinstance(clip, Clip):
        raise CheckpointError(f"{root / EYE_FOLDER}: expected an image-text model, by which things are named")
    head = config.build(clip.image.taps, clip.image.embed_dim)
    load_tensors(head, read_tensors(root / MODEL_FILE), where=str(root / MODEL_FILE))
    found = PictureSegmenter(
        cast(Clip, clip.requires_grad_(False).eval().to(device)),
        head.eval().to(device),
        view,
        predict,
        trained=trained,
        things=things,
        prompts=prompts,
    )
    found.use()
    return found
