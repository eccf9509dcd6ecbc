"""What a trained model says of three fixed images and texts, so that a loaded model can be proven to be that model.

Weights and tokenizer files are compared by their hashes, to the byte; features within a tolerance, because processors
and library versions round differently.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eyesmith.errors import CheckpointError, EyesmithError
from eyesmith.files import sha256_file
from eyesmith.models.clip import Clip

FINGERPRINT_FILE = "fingerprint.json"
TEXTS = ("a photo of a cat", "Two red cubes, left of a blue ball.", "naïve café ☕ 42")
# largest difference of one element of a unit feature. fp32 kernels of different processors differ by about 1e-6, one
# level of one resized pixel by about 1e-4; a wrong tensor by far more
FEATURE_TOLERANCE = 1e-3
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """ok: whether everything agreed; lines: what was checked and what differs, for people."""

    ok: bool
    lines: tuple[str, ...]


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


def fingerprint(clip: Clip) -> dict[str, Any]:
    """Features of the fixed images and texts, their token ids, the scale, and a hash of every tensor; JSON-able.

    Computed in the model's own precision and place, in evaluation mode. Raises CheckpointError when a feature is not
    finite.
    """
    images, texts = clip.encode_image(fixed_images()), clip.encode_text(list(TEXTS))
    for kind, rows in (("image", images), ("text", texts)):
        if not bool(torch.isfinite(rows).all()):
            raise CheckpointError(f"the {kind} features hold NaN or infinity: damaged weights, or a diverged training")
    return {
        "format": _FORMAT,
        "image_features": _rounded(images),
        "text_features": _rounded(texts),
        "token_ids": clip.text.tokenize(list(TEXTS)).tolist(),
        "scale": float(clip.logit_scale.detach().float().exp()),
        "tensors": {name: _tensor_hash(tensor) for name, tensor in clip.state_dict().items()},
    }


def file_hashes(folder: str | os.PathLike[str]) -> dict[str, str]:
    """SHA-256 of the files below `folder/text`, by their path relative to `folder`, with / between the parts."""
    root = Path(folder)
    files = sorted(path for path in root.glob("text/**/*") if path.is_file() and not path.name.endswith(".part"))
    return {path.relative_to(root).as_posix(): sha256_file(path) for path in files}


def model_hash(model: Mapping[str, Any]) -> str:
    """SHA-256 of the `model` part of a config.json, independent of the order of its fields."""
    return hashlib.sha256(json.dumps(model, sort_keys=True).encode()).hexdigest()


def verify(folder: str | os.PathLike[str]) -> VerifyReport:
    """Re-check a run folder: the bytes of the weights and tokenizer, the config, and the features of the loaded model.

    Features may differ by FEATURE_TOLERANCE per element, everything else not at all. Raises CheckpointError when the
    folder holds no finished run or no fingerprint.
    """
    from eyesmith.hub.run_folder import MODEL_FILE, load_model, read_config

    root = Path(folder)
    config = read_config(root)
    saved = _read(root / FINGERPRINT_FILE)
    good: list[str] = []
    bad: list[str] = []
    digest = sha256_file(root / MODEL_FILE)
    if digest == saved["files"].get(MODEL_FILE):
        good.append(f"{MODEL_FILE}: the bytes that were saved (sha256 {digest[:12]}...)")
    else:
        bad.append(f"{MODEL_FILE}: sha256 is {digest[:12]}..., saved was {str(saved['files'].get(MODEL_FILE))[:12]}...")
    bad += _compare_files(saved["files"], {**file_hashes(root), MODEL_FILE: digest}, skip=MODEL_FILE)
    if model_hash(config["model"]) != saved["model"]:
        bad.append("config.json: its 'model' part is not the one that was saved")
    try:
        now = fingerprint(load_model(root))
    except EyesmithError as error:
        bad.append(f"the model cannot be used: {error}")
        return VerifyReport(False, (*good, *bad))
    changed = [name for name in saved["tensors"] if now["tensors"].get(name) != saved["tensors"][name]]
    if changed:
        shown = ", ".join(changed[:5]) + (" ..." if len(changed) > 5 else "")
        bad.append(f"{len(changed)} of {len(saved['tensors'])} tensors differ: {shown}")
    else:
        good.append(f"{len(saved['tensors'])} tensors: equal")
    if now["token_ids"] != saved["token_ids"]:
        bad.append("tokenizer: the fixed texts get other token ids")
    for kind in ("image_features", "text_features"):
        (good if _close(now[kind], saved[kind]) else bad).append(_difference(kind, now[kind], saved[kind]))
    if abs(now["scale"] - saved["scale"]) > FEATURE_TOLERANCE * saved["scale"]:
        bad.append(f"scale: {now['scale']:.6g}, saved was {saved['scale']:.6g}")
    return VerifyReport(not bad, (*good, *bad))


def _read(path: Path) -> dict[str, Any]:
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(saved, dict) or saved["format"] != _FORMAT:
            raise CheckpointError(f"{path}: expected format {_FORMAT}; was it written by a later version of eyesmith?")
        for key, kind in (("files", dict), ("tensors", dict), ("model", str), ("scale", float), ("token_ids", list)):
            if not isinstance(saved[key], kind):
                raise TypeError(key)
        for key in ("image_features", "text_features"):
            np.asarray(saved[key], dtype=np.float64)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: not there, so nothing can be compared; the file is written with the model"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged ({type(error).__name__}: {error})") from None
    return saved


def _compare_files(saved: Mapping[str, str], now: Mapping[str, str], *, skip: str) -> list[str]:
    lines = []
    for name in sorted({*saved, *now} - {skip}):
        if name not in now:
            lines.append(f"{name}: missing")
        elif name not in saved:
            lines.append(f"{name}: was not there when the model was saved")
        elif saved[name] != now[name]:
            lines.append(f"{name}: other bytes than were saved")
    return lines


def _close(now: Any, saved: Any) -> bool:
    left, right = np.asarray(now), np.asarray(saved)
    return left.shape == right.shape and bool(np.abs(left - right).max() <= FEATURE_TOLERANCE)


def _difference(kind: str, now: Any, saved: Any) -> str:
    name = kind.replace("_", " ")
    left, right = np.asarray(now), np.asarray(saved)
    if left.shape != right.shape:
        return f"{name}: shape {list(left.shape)}, saved was {list(right.shape)}"
    return f"{name}: largest difference {np.abs(left - right).max():.1e} (allowed {FEATURE_TOLERANCE:.0e})"


def _rounded(rows: Tensor) -> list[list[float]]:
    return [[round(value, 7) for value in row] for row in rows.float().cpu().tolist()]


def _tensor_hash(tensor: Tensor) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of type, shape and bytes: enough to name what changed."""
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)} ".encode())
    plain = tensor.detach().cpu().contiguous()
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
