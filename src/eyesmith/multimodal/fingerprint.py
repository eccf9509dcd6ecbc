"""What a chat model would say of three fixed pictures, kept with it, so that an opened one can be proven to be it."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyesmith.errors import CheckpointError
from eyesmith.files import sha256_file, write_atomic
from eyesmith.hub.fingerprint import FINGERPRINT_FILE, FORMAT, fixed_images
from eyesmith.images.transforms import PreprocessConfig
from eyesmith.models.clip import evaluating
from eyesmith.multimodal.eye import picture_pixels
from eyesmith.multimodal.model import ChatModel, Read
from eyesmith.multimodal.packing import ChatEncoder

KIND = "chat"
QUESTION = "What is in the picture?"
_SHOWN = 64
_MODEL_FILE, _CONFIG_FILE = "model.safetensors", "config.json"
_ASSETS = ("chat_template.jinja", "processor_config.json", "tokenizer.json", "tokenizer_config.json")


def write_chat_fingerprint(
    root: Path, weights: Path, model: ChatModel, encoder: ChatEncoder, preprocess: PreprocessConfig
) -> None:
    """Write fingerprint.json beside the files that `save_chat` wrote. weights: the file that will be model.safetensors.

    Raises CheckpointError when the model says nothing finite.
    """
    files = {_MODEL_FILE: sha256_file(weights), **_assets(root)}
    # a control that is shown no picture is asked without one: opened anew, it would look
    pictures = () if model.is_blind else fixed_images()
    content = {
        "format": FORMAT,
        "kind": KIND,
        "files": files,
        "model": described(root),
        "logits": {name: rounded(row) for name, row in _logits(model, encoder, preprocess, pictures).items()},
    }
    write_atomic(root / FINGERPRINT_FILE, json.dumps(content))


@torch.no_grad()
def _logits(
    model: ChatModel, encoder: ChatEncoder, preprocess: PreprocessConfig, pictures: Sequence[Any]
) -> dict[str, Tensor]:
    """Log-probabilities of the id after the question, for text alone and each picture."""
    device = next(model.projector.parameters()).device
    eye = model.eye
    blank = torch.zeros(1, eye.num_tokens, eye.width, device=device)
    found = {}
    with evaluating(model):
        for place in range(1 + len(pictures)):
            seen = blank
            if place:
                seen = eye(picture_pixels(pictures[place - 1], preprocess, pad=eye.config.pad)[None].to(device))
            prompt = encoder.prompt((), QUESTION, has_image=place > 0)
            if not prompt:  # a template of pictures and captions alone says nothing where there is no picture
                continue
            ids = torch.tensor([prompt], device=device)
            positions = torch.arange(ids.shape[1], device=device)[None]
            read = Read(ids, torch.ones_like(ids), positions, seen)
            last = model(read, torch.tensor([ids.shape[1] - 1], device=device))
            found[name_of(place)] = last[0].float().log_softmax(-1).cpu()
    return found


def name_of(place: int) -> str:
    """Of the fixed pictures, from 1; 0 is none."""
    return f"picture {place}" if place else "no picture"


def rounded(row: Tensor) -> list[float]:
    """As many log-probabilities as are kept, spread over the vocabulary. Raises CheckpointError for one not finite."""
    places = torch.linspace(0, len(row) - 1, min(_SHOWN, len(row))).long()
    values = row[places.to(row.device)]
    if not bool(torch.isfinite(values).all()):
        raise CheckpointError("the logits hold NaN or infinity: damaged weights, or a diverged training")
    return [round(value, 6) for value in values.tolist()]


def _assets(root: Path) -> dict[str, str]:
    return {name: sha256_file(root / name) for name in _ASSETS if (root / name).is_file()}


def described(root: Path) -> str:
    """A hash of what config.json says of the model."""
    content = json.loads((root / _CONFIG_FILE).read_text(encoding="utf-8"))
    of_model = {name: content.get(name) for name in ("eyesmith_chat", "text_config", "vision_config")}
    return hashlib.sha256(json.dumps(of_model, sort_keys=True).encode()).hexdigest()
