"""Towers against timm's and open_clip's: the same weights, the same inputs, one thread count, one process."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import tokenizer
from bench.captions import prompts_and_names
from bench.pairs import Row, speed
from eyesmith.models.acceleration import prepare_for_inference
from eyesmith.models.encoder import Encoder
from eyesmith.models.eva02.model import EVA02
from eyesmith.models.eva02.weights import to_published
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.text import ClipText, ClipTextConfig
from eyesmith.models.vitamin.model import VITAMIN
from eyesmith.models.vitamin.weights import to_timm

NUM_TEXTS = 32
FP32_BOUND = 1e-5  # of unit features
BF16_BOUND = 0.02  # of unit features: distance between two bf16 runs, each rounded in its own order


def rows() -> list[Row]:
    """Image towers at batch 1 and 8, short prompts, the tokenizer, and a model made in a new process."""
    return [
        _vitamin("vitamin_s_fp32_b1", "small", torch.float32, 1),
        _vitamin("vitamin_s_fp32_b8", "small", torch.float32, 8),
        _vitamin("vitamin_s_bf16_b1", "small", torch.bfloat16, 1),
        _vitamin("vitamin_s_bf16_b8", "small", torch.bfloat16, 8),
        _vitamin("vitamin_b_fp32_b1", "base", torch.float32, 1),
        _eva02("eva02_b_fp32_b1", torch.float32, 1),
        _eva02("eva02_b_bf16_b1", torch.bfloat16, 1),
        _eva02("eva02_b_bf16_b8", torch.bfloat16, 8),
        _encode_text_short(),
        tokenizer.row("tokenizer"),
        _create_model(),
    ]


def _vitamin(row: str, size: str, dtype: torch.dtype, batch: int) -> Row:
    """Forward of one ViTamin at 224 px."""
    ours = VITAMIN[size].build()
    _off_the_start(ours)
    theirs = {"name": f"vitamin_{size}_224", "num_classes": ours.embed_dim}
    weights = to_timm(ours.state_dict(), ours.config)
    return _encoder(row, ours, theirs, weights, dtype, batch, what=f"ViTamin-{size[0].upper()}")


def _eva02(row: str, dtype: torch.dtype, batch: int) -> Row:
    """Forward of EVA-02-B at 224 px: 257 tokens."""
    ours = EVA02["base"].build()
    _off_the_start(ours)
    theirs = {"name": "eva02_base_patch14_224", "num_classes": 0}
    weights = to_published(ours.state_dict(), ours.config, layout="timm")
    return _encoder(row, ours, theirs, weights, dtype, batch, what="EVA-02-B")


def _off_the_start(encoder: Encoder) -> None:
    """At their start most biases and norms are exactly 0 or 1."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))


def _encoder(
    row: str,
    ours: Encoder,
    name: dict[str, Any],
    weights: dict[str, Tensor],
    dtype: torch.dtype,
    batch: int,
    *,
    what: str,
) -> Row:
    """bf16: our weights are cast once, timm runs under autocast as its users do. name: timm's arguments."""
    ensure_torchvision()
    import timm

    options = dict(name)
    theirs = timm.create_model(options.pop("name"), **options).eval()
    theirs.load_state_dict(weights)
    prepare_for_inference(ours, dtype=dtype)

    def peer(pixels: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            return theirs(pixels)

    is_fp32 = dtype == torch.float32
    bound = FP32_BOUND if is_fp32 else BF16_BOUND
    with torch.inference_mode():
        return speed(
            row,
            lambda i: torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(i)),
            ours,
            peer,
            equal=_close(bound),
            count=batch,
            unit="images/s",
            peer=f"timm {timm.__version__} {'eager fp32' if is_fp32 else 'autocast bf16'}",
            note=f"forward of {what} at 224 px, batch {batch}; unit features equal within {bound}",
            num_pairs=31 if batch == 1 else 9,
        )


def _close(bound: float) -> Callable[[Tensor, Tensor], bool]:
    def close(a: Tensor, b: Tensor) -> bool:
        a, b = (F.normalize(features.float(), dim=-1) for features in (a, b))
        return torch.allclose(a, b, rtol=0, atol=bound)

    return close


def _encode_text_short() -> Row:
    ensure_torchvision()
    import open_clip
    from open_clip.transformer import TextTransformer

    torch.manual_seed(0)
    ours = ClipText(ClipTextConfig(width=384, depth=12, heads=6, embed_dim=384)).eval()
    theirs = TextTransformer(width=384, heads=6, layers=12, output_dim=384).eval()
    theirs.load_state_dict(ours.state_dict())
    prompts, names = prompts_and_names()

    def ids(i: int) -> Tensor:
        texts = [prompts[i % len(prompts)].format(names[(i * NUM_TEXTS + k) % len(names)]) for k in range(NUM_TEXTS)]
        return ours.tokenizer(texts)  # [T, 77] for both: cutting it is our forward's work

    with torch.inference_mode():
        return speed(
            "encode_text_short",
            ids,
            ours,
            theirs,
            equal=_close(FP32_BOUND),
            count=NUM_TEXTS,
            unit="texts/s",
            peer=f"open_clip {open_clip.__version__} TextTransformer",
            note=f"{NUM_TEXTS} prompts of one template, text tower of ViTamin-S; features equal within {FP32_BOUND}",
        )


_OURS = """
import eyesmith
model = eyesmith.create("ViTamin-S")
"""
_THEIRS = """
from eyesmith.models.foreign.torchvision import ensure_torchvision
ensure_torchvision()
import open_clip
model = open_clip.create_model("ViTamin-S")
"""
_COUNT = "import json; print(json.dumps(sum(p.numel() for p in model.parameters())))"


def _create_model() -> Row:
    """A new process from its start to a model with random weights: imports are most of it, on both sides."""
    ensure_torchvision()
    import open_clip

    def run(program: str) -> int:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program + _COUNT], check=True, capture_output=True, text=True
        )
        return json.loads(done.stdout.splitlines()[-1])

    return speed(
        "create_model",
        lambda i: None,
        lambda _: run(_OURS),
        lambda _: run(_THEIRS),
        equal=lambda a, b: a == b,
        count=1,
        unit="models/s",
        peer=f"open_clip {open_clip.__version__} create_model",
        note="ViTamin-S with random weights in a new process, imports included; equal: the number of parameters",
        num_pairs=5,
        num_warmups=1,
    )
