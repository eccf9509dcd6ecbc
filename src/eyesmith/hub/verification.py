"""Proof that a run folder holds the model that was trained.

Weights and tokenizer files are compared by their hashes, to the byte; features within a tolerance, because processors
and library versions round differently.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eyesmith.errors import CheckpointError, EyesmithError
from eyesmith.files import load_json, sha256_file
from eyesmith.hub.fingerprint import FINGERPRINT_FILE, FORMAT, file_hashes, fingerprint, model_hash
from eyesmith.hub.run_folder import CHAT_KIND, MODEL_FILE, load_model, read_config
from eyesmith.models.own import UnregisteredEncoderError

# largest difference of one element of a unit feature. fp32 kernels of different processors differ by about 1e-6, one
# level of one resized pixel by about 1e-4; a wrong tensor by far more
FEATURE_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """ok: whether everything agreed; lines: what was checked and what differs, for people."""

    ok: bool
    lines: tuple[str, ...]


Fields = Callable[[Mapping[str, Any]], tuple[Mapping[str, type], Iterable[Any]]]


def verify(folder: str | os.PathLike[str]) -> VerifyReport:
    """Re-check a run folder: the bytes of the weights and tokenizer, the config, and the features of the loaded model.

    Features may differ by FEATURE_TOLERANCE per element, everything else not at all. Raises CheckpointError when the
    folder holds no finished run or no fingerprint.
    """
    root = Path(folder)
    config = read_config(root)
    if config["model"].get("kind") == CHAT_KIND:
        raise CheckpointError(f"{root}: holds a language model with an eye; compare it by `eyesmith verify {root}`")
    saved = read_fingerprint(root / FINGERPRINT_FILE, _fields)
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
    except UnregisteredEncoderError:  # which says nothing of the folder
        raise
    except EyesmithError as error:
        bad.append(f"the model cannot be used: {error}")
        return VerifyReport(False, (*good, *bad))
    changed = [name for name in saved["tensors"] if now["tensors"].get(name) != saved["tensors"][name]]
    if changed:
        shown = ", ".join(changed[:5]) + (" ..." if len(changed) > 5 else "")
        bad.append(f"{len(changed)} of {len(saved['tensors'])} tensors differ: {shown}")
    else:
        good.append(f"{len(saved['tensors'])} tensors: equal")
    if now.get("token_ids") != saved.get("token_ids"):
        bad.append("tokenizer: the fixed texts get other token ids")
    for kind in ("image_features", *(("text_features",) if "text_features" in saved else ())):
        (good if _close(now[kind], saved[kind]) else bad).append(_difference(kind, now[kind], saved[kind]))
    if "scale" in saved and abs(now["scale"] - saved["scale"]) > FEATURE_TOLERANCE * saved["scale"]:
        bad.append(f"scale: {now['scale']:.6g}, saved was {saved['scale']:.6g}")
    return VerifyReport(not bad, (*good, *bad))


def read_fingerprint(path: Path, fields: Fields) -> dict[str, Any]:
    """A fingerprint. fields: gives, of the whole, its entries with their types, and rows that must be numbers.

    Raises CheckpointError for a file that is not there, damaged, or of another format.
    """
    try:
        saved = load_json(path.read_text(encoding="utf-8"))
        if not isinstance(saved, dict) or saved["format"] != FORMAT:
            raise CheckpointError(f"{path}: expected format {FORMAT}; was it written by a later version of eyesmith?")
        kinds, rows = fields(saved)
        for key, kind in kinds.items():
            if not isinstance(saved[key], kind):
                raise TypeError(key)
        for row in rows:
            np.asarray(row, dtype=np.float64)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: not there, so nothing can be compared; the file is written with the model"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged ({type(error).__name__}: {error})") from None
    return saved


def _fields(saved: Mapping[str, Any]) -> tuple[dict[str, type], list[Any]]:
    is_pair = "text_features" in saved or "scale" in saved or "token_ids" in saved
    of_pairs: dict[str, type] = {"scale": float, "token_ids": list} if is_pair else {}
    rows = [saved[key] for key in ("image_features", *(("text_features",) if is_pair else ()))]
    return {"files": dict, "tensors": dict, "model": str, **of_pairs}, rows


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
