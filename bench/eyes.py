"""CLIP's plain ViTs and their text tower beside open_clip and transformers: the same weights, all three in one run.

Every pair times ours and both peers, one after the other. A row's `theirs` and `ratio` are those of the peer whose
median is the faster; the note has each by itself.
"""

import gc
import logging
import statistics
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.captions import prompts_and_names
from bench.pairs import Row, _timed
from eyesmith.models.acceleration import prepare_for_inference
from eyesmith.models.clip import Clip
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.linear import pack
from eyesmith.models.registry import create
from eyesmith.models.text.model import ClipText, ClipTextConfig
from eyesmith.models.vit.configs import to_hugging_face
from eyesmith.models.vit.model import VitConfig
from eyesmith.models.vit.weights import write

NUM_TEXTS = 32
PACKAGES = {"open_clip": "open_clip_torch", "transformers": "transformers"}
FP32_BOUND = 1e-5  # of unit features
BF16_BOUND = 0.02  # of unit features: distance between two bf16 runs, each rounded in its own order


def rows() -> list[Row]:
    """B/32 on one picture in fp32, B/16 on eight in bf16, short prompts."""
    return [
        _image("vit_b32_fp32_b1", "ViT-B-32", torch.float32, 1),
        _image("vit_b16_bf16_b8", "ViT-B-16", torch.bfloat16, 8),
        _text(),
    ]


def three(name: str) -> tuple[Clip, Any, Any]:
    """Ours, open_clip's and transformers' with the same random weights, in evaluation mode."""
    ensure_torchvision()
    import open_clip
    import transformers

    torch.manual_seed(0)
    ours = create(name).eval()
    with torch.no_grad():  # at their start most biases and norms are exactly 0 or 1
        for parameter in ours.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    config, state = ours.config, ours.state_dict()
    assert isinstance(config.image, VitConfig)
    assert isinstance(config.text, ClipTextConfig)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        first = open_clip.create_model(name).eval()
        whole, _ = to_hugging_face(config.image, config.text, config.preprocess)
        second = transformers.CLIPModel(transformers.CLIPConfig(**whole)).eval()
        logging.disable(before)
    first.load_state_dict(write(state, config, "open_clip"))
    second.load_state_dict(write(state, config, "hf"))
    return ours, first, second


def _image(row: str, name: str, dtype: torch.dtype, batch: int) -> Row:
    """Forward of an image tower at 224 px; every side's weights are cast once."""
    ours, first, second = three(name)
    prepare_for_inference(ours.image, dtype=dtype)
    first, second = first.to(dtype), second.to(dtype)
    is_fp32 = dtype == torch.float32
    bound = FP32_BOUND if is_fp32 else BF16_BOUND
    return _measure(
        row,
        lambda i: torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(i)).to(dtype),
        ours.image,
        {"open_clip": first.encode_image, "transformers": lambda x: second.get_image_features(pixel_values=x)},
        bound=bound,
        count=batch,
        unit="images/s",
        note=f"{name} at 224 px, batch {batch}, {'fp32' if is_fp32 else 'weights in bf16'} on every side",
        num_pairs=21 if batch == 1 else 7,
    )


def _text() -> Row:
    """32 prompts of one template through B/32's text tower, each side given what its own tokenizer makes of them."""
    ours, first, second = three("ViT-B-32")
    tower = ours.text
    assert isinstance(tower, ClipText)
    pack(tower)
    prompts, names = prompts_and_names()

    def ids(i: int) -> Tensor:
        texts = [prompts[i % len(prompts)].format(names[(i * NUM_TEXTS + k) % len(names)]) for k in range(NUM_TEXTS)]
        return tower.tokenizer(texts)  # [T, 77]: cutting it is our forward's work

    return _measure(
        "clip_text_short",
        ids,
        tower,
        {"open_clip": first.encode_text, "transformers": lambda x: second.get_text_features(input_ids=x)},
        bound=FP32_BOUND,
        count=NUM_TEXTS,
        unit="texts/s",
        note=f"{NUM_TEXTS} prompts of one template as ids [{NUM_TEXTS}, 77] on every side, ViT-B-32, fp32",
        num_pairs=9,
    )


def _measure(
    row: str,
    inputs: Callable[[int], Tensor],
    ours: Callable[[Tensor], Tensor],
    peers: dict[str, Callable[[Tensor], Any]],
    *,
    bound: float,
    count: int,
    unit: str,
    note: str,
    num_pairs: int,
    num_warmups: int = 1,
) -> Row:
    ours_s: list[float] = []
    theirs_s: dict[str, list[float]] = {name: [] for name in peers}
    is_equal = True
    with torch.inference_mode():
        for i in range(num_warmups + num_pairs):
            value = inputs(i)
            gc.collect()
            mine, seconds = _timed(ours, value)
            if i >= num_warmups:
                ours_s.append(seconds)
            for name, peer in peers.items():
                output, seconds = _timed(peer, value)
                is_equal &= _close(mine, getattr(output, "pooler_output", output), bound)
                if i >= num_warmups:
                    theirs_s[name].append(seconds)
    ratios = {
        name: [other / mine for mine, other in zip(ours_s, seconds, strict=True)] for name, seconds in theirs_s.items()
    }
    each = {name: statistics.median(found) for name, found in ratios.items()}
    best = min(each, key=each.__getitem__)
    low, middle, high = statistics.quantiles(ratios[best], n=4, method="inclusive")
    return Row(
        row=row,
        ours=statistics.median(count / seconds for seconds in ours_s),
        theirs=statistics.median(count / seconds for seconds in theirs_s[best]),
        unit=unit,
        ratio=middle,
        low=low,
        high=high,
        equal=is_equal,
        peer=f"{best} {version(PACKAGES[best])}",
        note=f"{note}; {', '.join(f'{ratio:.2f}x {name}' for name, ratio in each.items())}; equal within {bound}; "
        f"{torch.get_num_threads()} threads",
    )


def _close(left: Tensor, right: Tensor, bound: float) -> bool:
    left, right = (F.normalize(features.float(), dim=-1) for features in (left, right))
    return torch.allclose(left, right, rtol=0, atol=bound)
