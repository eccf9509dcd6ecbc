"""One picture of a set, step by step from its bytes to the ranking, and open_clip's steps beside ours."""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eyesmith.config import closest
from eyesmith.data.evaluation.evaluation_set import EvaluationSet
from eyesmith.errors import ConfigError, DataError, EyesmithError
from eyesmith.eval.features.images import ImageFeatures
from eyesmith.eval.features.store import FeatureStore
from eyesmith.eval.features.texts import TextFeatures, fill_prompt
from eyesmith.eval.statistics.metrics import similarity, target_ranks, top_candidates
from eyesmith.images import evaluation_pixels
from eyesmith.images.decode import open_image
from eyesmith.images.formats import open_header
from eyesmith.models.clip import Clip, evaluating

_CLOSE = 1e-4  # of features and logits that two programs compute; what is counted or hashed must be equal
_TOP = 5


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what we have, what open_clip has (None: not computed there), and whether the two agree."""

    name: str
    ours: str
    theirs: str | None = None
    is_equal: bool | None = None


def explain(
    clip: Clip,
    found: EvaluationSet,
    key: str,
    *,
    source: str = "",
    cache: Path | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> list[Step]:
    """Everything between the bytes of the image `key` and its ranking among the classes of a labelled set.

    source: where the model comes from, for open_clip to load its weights too; "" or without open_clip: our side alone.
    cache: where `eyesmith eval` keeps features; what it holds of this picture is compared with what is computed now.
    note: told why there is no other side. Raises DataError for a key that is not there (the closest ones are named),
    ConfigError for a set without classes.
    """
    if found.labels is None or not found.classes:
        raise ConfigError(f"{found.name}: --explain follows a picture among classes, and this set has none")
    keys = list(found.source.keys)
    if key not in keys:
        raise DataError(f"{found.name}: no image {key!r}{closest(key, keys)}")
    index = keys.index(key)
    raw = found.source.image_bytes(index)
    target = int(found.labels[index])
    prompts = [fill_prompt(template, found.classes[target]) for template in found.templates]
    ours = _ours(clip, raw, prompts)
    theirs = _theirs(source, raw, prompts, note) if source else None
    steps = [Step("bytes", f"{len(raw):,} bytes, sha256 {hashlib.sha256(raw).hexdigest()[:16]}")]
    with open_header(raw, key) as decoded:
        steps.append(Step("file", f"{decoded.format}, {decoded.width} x {decoded.height}, {decoded.mode}"))
    steps += [_step(name, value, theirs) for name, value in ours.items()]
    return steps + _ranking(clip, found, index, target, ours["image feature"], cache)


def _ours(clip: Clip, raw: bytes, prompts: list[str]) -> dict[str, Any]:
    pixels = evaluation_pixels(raw, clip.preprocess)
    with evaluating(clip), torch.inference_mode():
        device = clip.logit_scale.device
        feature = clip.image(pixels[None].to(device))[0].float().cpu()
        tokens = clip.text.tokenize(prompts[:1])[0].tolist()
        text = clip.encode_text(prompts[:1])[0].float().cpu()
    mean, std = (torch.tensor(values)[:, None, None] for values in (clip.preprocess.mean, clip.preprocess.std))
    return {
        "decoded pixels": _hash(np.asarray(open_image(raw).convert("RGB"))),
        "resized and cut": _hash(pixels.permute(1, 2, 0).numpy()),
        "normalised": (pixels / 255 - mean) / std,
        "first sentence": prompts[0],
        "token ids": " ".join(map(str, tokens)).split(" 0 0")[0],
        "norm of the image feature": float(feature.norm()),
        "image feature": feature / feature.norm(),
        "text feature": text,
        "scale": float(clip.logit_scale.detach().float().exp()),
    }


def _theirs(source: str, raw: bytes, prompts: list[str], note: Callable[[str], None]) -> dict[str, Any] | None:
    """The same of open_clip, with the weights written in its layout; None (and a note) where that cannot be."""
    if find_spec("open_clip") is None:
        note("open_clip is not installed, so only our side is shown: pip install 'eyesmith[clip]'")
        return None
    from eyesmith.hub.convert import convert
    from eyesmith.models.foreign.torchvision import ensure_torchvision

    ensure_torchvision()
    import open_clip

    try:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "model"
            convert(source, place, to="hugging_face", parity=False)
            made: Any = open_clip.create_model_and_transforms(f"local-dir:{place}")
            tokens: Any = open_clip.get_tokenizer(f"local-dir:{place}")(prompts[:1])
    except (EyesmithError, RuntimeError, ValueError, OSError) as error:
        note(f"open_clip cannot take this model, so only our side is shown: {str(error).splitlines()[0]}")
        return None
    model, _, transform = cast(tuple[Any, Any, Any], made)
    image = cast(Any, open_header(raw, "image"))
    found: dict[str, Any] = {"decoded pixels": _hash(np.asarray(image.convert("RGB")))}
    for step in transform.transforms:
        image = step(image)
        if isinstance(image, Image.Image) and image.mode == "RGB":
            found["resized and cut"] = _hash(np.asarray(image))
    with torch.inference_mode():
        feature = model.eval().encode_image(cast(Tensor, image)[None])[0].float()
        text = model.encode_text(tokens, normalize=True)[0].float()
    return found | {
        "normalised": image,
        "first sentence": prompts[0],
        "token ids": " ".join(map(str, tokens[0].tolist())).split(" 0 0")[0],
        "norm of the image feature": float(feature.norm()),
        "image feature": feature / feature.norm(),
        "text feature": text,
        "scale": float(model.logit_scale.detach().exp()),
    }


def _ranking(
    clip: Clip, found: EvaluationSet, index: int, target: int, feature: Tensor, cache: Path | None
) -> list[Step]:
    texts = TextFeatures(clip, folder=None if cache is None else cache / "texts")
    weights = texts.class_weights(found.classes, found.templates)
    scores = similarity(feature[None], weights)  # [1, K]
    scale = float(clip.logit_scale.detach().float().exp())
    values, best = top_candidates(scores, _TOP)
    names = [
        f"{found.classes[row]} {scale * value:.3f}"
        for row, value in zip(best[0].tolist(), values[0].tolist(), strict=True)
    ]
    rank = int(target_ranks(scores, torch.tensor([target]))[0])
    steps = [
        Step("sentences", f"{len(found.templates)} of class {found.classes[target]!r}"),
        Step("classifier", f"{'kept from before' if texts.num_reused else 'computed'}, {len(found.classes)} rows"),
        Step("best five, by logit", ", ".join(names)),
        Step("rank of the right class", f"{rank} before it: {'right' if rank == 0 else 'wrong'}"),
    ]
    kept = None if cache is None else FeatureStore(clip, cache / "images").kept(found.source)
    return [*steps, Step("kept image feature", _of_kept(kept, index, feature))]


def _of_kept(kept: ImageFeatures | None, index: int, feature: Tensor) -> str:
    if kept is None or index not in kept.indices:
        return "none; the next evaluation computes it"
    row = kept.features[kept.indices.index(index)]
    return f"cosine with the one computed now {float(row.double() @ feature.double()):.7f}"


def _step(name: str, ours: Any, theirs: dict[str, Any] | None) -> Step:
    if theirs is None or name not in theirs:
        return Step(name, _shown(ours))
    other = theirs[name]
    if isinstance(ours, Tensor):
        gap = float((ours - other).abs().max()) if ours.shape == other.shape else float("inf")
        return Step(name, _shown(ours), f"{_shown(other)}, differs by {gap:.1e}", gap <= _CLOSE)
    if isinstance(ours, float):
        return Step(name, _shown(ours), _shown(other), abs(ours - other) <= _CLOSE * abs(ours))
    return Step(name, _shown(ours), _shown(other), ours == other)


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        first = ", ".join(f"{one:.4f}" for one in value.flatten()[:3].tolist())
        return f"{list(value.shape)} {first} ..."
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _hash(pixels: np.ndarray) -> str:
    shape = " x ".join(map(str, pixels.shape[1::-1]))
    return f"{shape}, sha256 {hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]}"
