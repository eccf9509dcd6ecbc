"""The folder of a segmenter, opened."""

import os
from pathlib import Path

import torch

from eyesmith.config import from_dict
from eyesmith.dense.head_folder import CONFIG_FILE, holds, load_eye, load_head, read_fields
from eyesmith.dense.segment.head import SegmentHeadConfig
from eyesmith.dense.segment.picture_segmenter import PictureSegmenter, SegmentPredictConfig
from eyesmith.dense.view import ViewConfig
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.hub.run_folder import SEGMENT_KIND


def is_segmenter(folder: str | os.PathLike[str]) -> bool:
    """Whether a path is the run folder of a segmenter, finished or not."""
    return holds(folder, SEGMENT_KIND)


def load_segmenter(folder: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> PictureSegmenter:
    """The segmenter of a finished run, looking for the classes that it was trained on. Never touches the network.

    Raises CheckpointError where the folder holds none, or one that is not finished or damaged.
    """
    fields = read_fields(folder, SEGMENT_KIND, what="segmenter", recipe="segment-emoji")
    try:
        config = from_dict(SegmentHeadConfig, fields["head"])
        view, predict = from_dict(ViewConfig, fields["view"]), from_dict(SegmentPredictConfig, fields["predict"])
        trained = [[str(name) for name in one] for one in fields["trained"]]
        things = [bool(one) for one in fields["things"]]
        prompts = str(fields.get("prompts", ""))
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{Path(folder) / CONFIG_FILE}: its 'model' part cannot be read ({error})") from None
    clip = load_eye(folder, device)
    head = config.build(clip.image.taps, clip.image.embed_dim)
    load_head(folder, head, device)
    found = PictureSegmenter(clip, head, view, predict, trained=trained, things=things, prompts=prompts)
    found.use()
    return found
