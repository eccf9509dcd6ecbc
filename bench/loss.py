"""The contrastive losses against open_clip's dense ones, fp32 on the processor: time at 8k pairs, memory at 32k."""

import json
import math
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.memory import of_fresh_process, reset_peak_mib, status_mib
from bench.pairs import Row, speed
from eyesmith.losses import sigmoid_loss, softmax_loss
from eyesmith.models.foreign.torchvision import ensure_torchvision

Kind = Literal["softmax", "sigmoid"]
Loss = Callable[..., Tensor]
WIDTH = 512
SCALE, BIAS = 1 / 0.07, -10.0  # where CLIP's scale and SigLIP's bias start
NUM_PAIRS = 8192
COPIES = 4  # the memory rows repeat the 8k pairs, so that what open_clip says of 8k tells what 32k must give
BOUND = 1e-6  # of the distance of values and gradients, relative in norm


def rows() -> list[Row]:
    """Peak extra memory and time of both losses, forward and backward."""
    return [_memory("softmax"), _memory("sigmoid"), _time("softmax"), _time("sigmoid")]


def features(seed: int, num_pairs: int = NUM_PAIRS) -> tuple[Tensor, Tensor]:
    """Unit rows [B, D] of images and of texts, each text nearer to its image than to the others."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(num_pairs, WIDTH, generator=generator)
    text = torch.randn(num_pairs, WIDTH, generator=generator).add_(image, alpha=0.2)
    return F.normalize(image, dim=1), F.normalize(text, dim=1)


def value_and_grads(loss: Loss, kind: Kind, image: Tensor, text: Tensor) -> list[Tensor]:
    """[value, d image, d text, d scale] and d bias of the sigmoid loss."""
    scalars = [torch.tensor(SCALE)] + ([torch.tensor(BIAS)] if kind == "sigmoid" else [])
    leaves = [leaf.detach().requires_grad_() for leaf in (image, text, *scalars)]
    value = loss(*leaves)
    value.backward()
    return [value.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def side(who: str, kind: Kind) -> Loss:
    """The loss of one side, `ours` or `theirs`."""
    if who == "ours":
        return softmax_loss if kind == "softmax" else sigmoid_loss
    ensure_torchvision()
    from open_clip.loss import ClipLoss, SigLipLoss

    return ClipLoss() if kind == "softmax" else SigLipLoss()


def expected(kind: Kind, image: Tensor, text: Tensor, dense: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """What a batch of COPIES times these pairs must give, from what the dense loss gives for the pairs once.

    softmax: every sum has its terms COPIES times, so the value grows by log(COPIES) and a row's gradient is spread over
    its copies. sigmoid: the terms of other pairs come COPIES times, and a pair's copies are others to it. Also returns
    the larger term of each sum, whose rounding the sum has.
    """
    value, image_grad, text_grad, *scalars = dense
    if kind == "softmax":
        found = [value + math.log(COPIES), image_grad / COPIES, text_grad / COPIES, *scalars]
        return found, found

    def as_others(*leaves: Tensor) -> Tensor:
        logits = (leaves[0] * leaves[1]).sum(1) * leaves[2] + leaves[3]
        return (COPIES - 1) * logits.mean()  # softplus(x) - softplus(-x) = x: a negative more and an own pair less

    copied = value_and_grads(as_others, kind, image, text)
    found = [COPIES * a + b for a, b in zip(dense, copied, strict=True)]
    return [found[0], found[1] / COPIES, found[2] / COPIES, *found[3:]], dense


def equal(ours: list[Tensor], theirs: list[Tensor], terms: list[Tensor] | None = None) -> bool:
    """Whether value and every gradient agree: their distance is at most BOUND of the norm of theirs, or of `terms`."""
    compared = zip(ours, theirs, terms or theirs, strict=True)
    return all(float((a - b).norm() / term.norm()) <= BOUND for a, b, term in compared)


def _time(kind: Kind) -> Row:
    ours, theirs = side("ours", kind), side("theirs", kind)
    return speed(
        f"{kind}_8k_time",
        features,
        lambda pair: value_and_grads(ours, kind, *pair),
        lambda pair: value_and_grads(theirs, kind, *pair),
        equal=equal,
        count=1,
        unit="steps/s",
        peer=_peer(kind),
        note=f"B = {NUM_PAIRS}, D = {WIDTH}, fp32, forward and backward, {torch.get_num_threads()} threads; value and "
        f"gradients within {BOUND:.0e} relative",
        num_pairs=7,
        num_warmups=1,
    )


def _memory(kind: Kind) -> Row:
    """MiB above what was held before the loss, by the high-water mark of a fresh process a side."""
    with tempfile.TemporaryDirectory() as folder:
        peaks, results = {}, {}
        for who in ("ours", "theirs"):
            path = Path(folder) / f"{who}.pt"
            peaks[who] = of_fresh_process("bench.loss", who, kind, str(path))
            results[who] = torch.load(path, weights_only=True)
    theirs = peaks["theirs"] * COPIES**2
    ratio = theirs / peaks["ours"]
    return Row(
        row=f"{kind}_32k_memory",
        ours=peaks["ours"],
        theirs=theirs,
        unit="MiB",
        ratio=ratio,
        low=ratio,
        high=ratio,
        equal=equal(results["ours"], *expected(kind, *features(0), results["theirs"])),
        peer=_peer(kind),
        note=f"B = {COPIES * NUM_PAIRS}, D = {WIDTH}, fp32, forward and backward; open_clip was measured at "
        f"{NUM_PAIRS} ({peaks['theirs']:.0f} MiB) and multiplied by {COPIES**2}, as its B x B matrices grow",
    )


def _peak_mib(who: str, kind: Kind, path: Path) -> float:
    """Memory that one call of the loss adds, in this process; its results go to `path`."""
    loss = side(who, kind)
    image, text = features(0)
    value_and_grads(loss, kind, image[:64], text[:64])  # threads and libraries come up
    if who == "ours":
        image, text = image.repeat(COPIES, 1), text.repeat(COPIES, 1)
    before = reset_peak_mib()
    found = value_and_grads(loss, kind, image, text)
    peak = status_mib("VmHWM") - before
    torch.save([value[:NUM_PAIRS].clone() if value.ndim else value for value in found], path)
    return peak


def _peer(kind: Kind) -> str:
    return f"open_clip {version('open_clip_torch')} {'ClipLoss' if kind == 'softmax' else 'SigLipLoss'}"


if __name__ == "__main__":
    arguments: Any = sys.argv[1:]
    print(json.dumps(_peak_mib(arguments[0], arguments[1], Path(arguments[2]))))
