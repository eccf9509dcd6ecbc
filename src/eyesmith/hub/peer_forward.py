"""Features by open_clip and timm themselves: their loader, preprocessing and forward, on weights that we wrote."""

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from eyesmith.errors import MissingDependencyError
from eyesmith.files import link_or_copy
from eyesmith.hub.peers import OPEN_CLIP_FILE
from eyesmith.models.foreign.torchvision import ensure_torchvision


def open_clip_features(
    weights: Path, config: Mapping[str, Any], images: Sequence[Image.Image], texts: Sequence[str]
) -> dict[str, Tensor]:
    """Rows of `image` and `text` features, un-normalised, fp32, in open_clip's own evaluation transform and tokenizer.

    weights: a file with its names; config: the open_clip_config.json for it. Raises MissingDependencyError without it.
    """
    ensure_torchvision()
    try:
        import open_clip
    except ImportError as error:
        raise MissingDependencyError("open_clip is not installed: pip install 'eyesmith[clip]'") from error
    with _folder(weights, OPEN_CLIP_FILE, config) as folder, torch.inference_mode(), torch.random.fork_rng(devices=[]):
        found: Any = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        model, _, transform = found
        model.eval()
        tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(list(texts))
        pixels = torch.stack([transform(image) for image in images])
        rows = [model.encode_image(batch) for batch in pixels.split(8)]
        return {"image": torch.cat(rows), "text": model.encode_text(tokens)}


def timm_features(weights: Path, config: Mapping[str, Any], images: Sequence[Image.Image]) -> dict[str, Tensor]:
    """Rows of `image` features, un-normalised, fp32, in timm's own evaluation transform.

    weights: a file with its names; config: the config.json for it; images: in RGB. Raises MissingDependencyError
    without timm.
    """
    ensure_torchvision()
    try:
        import timm
        from timm.data.config import resolve_model_data_config
        from timm.data.transforms_factory import create_transform
    except ImportError as error:
        raise MissingDependencyError("timm is not installed: pip install 'eyesmith[timm]'") from error
    with _folder(weights, "config.json", config) as folder, torch.inference_mode(), torch.random.fork_rng(devices=[]):
        model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        transform: Any = create_transform(**resolve_model_data_config(model), is_training=False)
        pixels = torch.stack([transform(image) for image in images])
        return {"image": torch.cat([model(batch) for batch in pixels.split(8)])}


@contextmanager
def _folder(weights: Path, config_name: str, config: Mapping[str, Any]) -> Iterator[Path]:
    """A folder as the peer opens it, with a link to the weights; its log and warnings are kept off the terminal."""
    before = logging.root.manager.disable
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        folder = Path(scratch)
        (folder / config_name).write_text(json.dumps(config), "utf-8")
        name = "model.safetensors" if weights.suffix == ".safetensors" else "pytorch_model.bin"
        link_or_copy(weights.resolve(), folder / name)
        try:
            yield folder
        finally:
            logging.disable(before)
