"""What a trained model says of three fixed images and texts, so that a loaded model can be proven to be that model."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from eyesmith.errors import CheckpointError
from eyesmith.files import sha256_file
from eyesmith.images import evaluation_pixels
from eyesmith.models.clip import Clip, evaluating
from eyesmith.models.encoder import Encoder

FINGERPRINT_FILE = "fingerprint.json"
TEXTS = ("a photo of a cat", "Two red cubes, left of a blue ball.", "naïve café ☕ 42")
FORMAT = 1


def fixed_images() -> list[Image.Image]:
    """Three RGB pictures made by integer arithmetic: a gradient, a chequerboard with a disc, a moiré; 96 x 80 px."""
    y, x = np.mgrid[0:80, 0:96]
    disc = (x - 48) ** 2 + (y - 40) ** 2 < 30**2
    board = (x // 12 + y // 10) % 2 == 0
    pictures = (
        np.stack([x * 255 // 95, y * 255 // 79, 255 - x * 255 // 95], axis=-1),
        np.where(disc[..., None], np.array([220, 30, 40]), np.where(board[..., None], 245, 15)),
        np.stack([(x * x + y * y) % 256, (x * 7 + y * 13) % 256, (x * y) % 256], axis=-1),
    )
    return [Image.fromarray(picture.astype(np.uint8), "RGB") for picture in pictures]


def fingerprint(model: Clip | Encoder) -> dict[str, Any]:
    """Features of the fixed images and texts, their token ids, the scale, and a hash of every tensor; JSON-able.

    An image encoder has features of images alone, brought to length 1.

    Computed in the model's own precision and place, in evaluation mode. Raises CheckpointError when a feature is not
    finite.
    """
    if not isinstance(model, Clip):
        return _of_encoder(model)
    clip = model
    images, texts = clip.encode_image(fixed_images()), clip.encode_text(list(TEXTS))
    for kind, rows in (("image", images), ("text", texts)):
        if not bool(torch.isfinite(rows).all()):
            raise CheckpointError(f"the {kind} features hold NaN or infinity: damaged weights, or a diverged training")
    return {
        "format": FORMAT,
        "image_features": _rounded(images),
        "text_features": _rounded(texts),
        "token_ids": clip.text.tokenize(list(TEXTS)).tolist(),
        "scale": float(clip.logit_scale.detach().float().exp()),
        "tensors": {name: _tensor_hash(tensor) for name, tensor in clip.state_dict().items()},
    }


def _of_encoder(encoder: Encoder) -> dict[str, Any]:
    preprocess = encoder.evaluation_config()
    pixels = torch.stack([evaluation_pixels(image, preprocess) for image in fixed_images()])
    with evaluating(encoder), torch.inference_mode():
        features = F.normalize(encoder(pixels.to(next(encoder.parameters()).device)).float(), dim=-1)
    if not bool(torch.isfinite(features).all()):
        raise CheckpointError("the image features hold NaN or infinity: damaged weights, or a diverged training")
    hashes = {name: _tensor_hash(tensor) for name, tensor in encoder.state_dict().items()}
    return {"format": FORMAT, "image_features": _rounded(features), "tensors": hashes}


def file_hashes(folder: str | os.PathLike[str]) -> dict[str, str]:
    """SHA-256 of the files below `folder/text` and `folder/encoder`, by their path relative to `folder`, with /."""
    root = Path(folder)
    found = (path for part in ("encoder", "text") for path in root.glob(f"{part}/**/*"))
    files = sorted(path for path in found if path.is_file() and not path.name.endswith(".part"))
    return {path.relative_to(root).as_posix(): sha256_file(path) for path in files}


def model_hash(model: Mapping[str, Any]) -> str:
    """SHA-256 of the `model` part of a config.json, independent of the order of its fields."""
    return hashlib.sha256(json.dumps(model, sort_keys=True).encode()).hexdigest()


def _rounded(rows: Tensor) -> list[list[float]]:
    return [[round(value, 7) for value in row] for row in rows.float().cpu().tolist()]


def _tensor_hash(tensor: Tensor) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of type, shape and bytes: enough to name what changed."""
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)} ".encode())
    plain = tensor.detach().cpu().contiguous()
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
