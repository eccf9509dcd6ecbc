"""Proof that a folder holds the chat model that was trained: bytes of its files, and what it would say next.

The model is opened anew, as transformers' own, and asked about three fixed pictures; see `hub.verification` for others.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eyesmith.errors import EyesmithError
from eyesmith.files import sha256_file
from eyesmith.hub.fingerprint import FINGERPRINT_FILE, fixed_images
from eyesmith.hub.verification import VerifyReport, read_fingerprint
from eyesmith.multimodal.chat import ChatAssistant
from eyesmith.multimodal.fingerprint import KIND, QUESTION, described, name_of, rounded

LOGIT_TOLERANCE = 1e-3  # of a log-probability; fp32 kernels differ by about 1e-5, a wrong tensor by far more


def verify_chat(folder: str | os.PathLike[str]) -> VerifyReport:
    """Compare a chat run's files, and the log-probabilities of the model in it, with its fingerprint.

    Raises CheckpointError where it holds no finished chat run, or no fingerprint.
    """
    root = Path(folder)
    saved = read_fingerprint(root / FINGERPRINT_FILE, _fields)
    good: list[str] = []
    bad: list[str] = []
    for name, digest in saved["files"].items():
        path = root / name
        if not path.is_file():
            bad.append(f"{name}: missing")
        elif (now := sha256_file(path)) == digest:
            good.append(f"{name}: the bytes that were saved (sha256 {digest[:12]}...)")
        else:
            bad.append(f"{name}: sha256 is {now[:12]}..., saved was {str(digest)[:12]}...")
    try:
        if described(root) != saved["model"]:
            bad.append("config.json: what it says of the model is not what was saved")
        found = _asked_again(root, saved["logits"])
    except EyesmithError as error:
        return VerifyReport(False, (*good, *bad, f"the model cannot be used: {error}"))
    for name, row in saved["logits"].items():
        left, right = np.asarray(found[name]), np.asarray(row)
        is_like = left.shape == right.shape and bool(np.abs(left - right).max() <= LOGIT_TOLERANCE)
        told = (
            f"{np.abs(left - right).max():.1e} (allowed {LOGIT_TOLERANCE:.0e})" if left.shape == right.shape else "all"
        )
        (good if is_like else bad).append(f"what it says of {name}: largest difference {told}")
    return VerifyReport(not bad, (*good, *bad))


@torch.no_grad()
def _asked_again(root: Path, saved: Mapping[str, Any]) -> dict[str, list[float]]:
    assistant = ChatAssistant(root)
    found = {}
    for place, picture in enumerate((None, *fixed_images())):
        if name_of(place) not in saved:
            continue
        text = assistant.prompt(QUESTION, picture is not None)
        given = assistant.processor(images=picture and [picture], text=[text], return_tensors="pt")
        given = {name: value for name, value in given.items() if name != "token_type_ids"}
        found[name_of(place)] = rounded(assistant.stock(**given).logits[0, -1].float().log_softmax(-1))
    return found


def _fields(saved: Mapping[str, Any]) -> tuple[dict[str, type], Iterable[Any]]:
    if saved["kind"] != KIND:
        raise ValueError("it is not that of a chat model")
    return {"files": dict, "logits": dict, "model": str}, saved["logits"].values()
