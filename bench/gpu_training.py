"""Training on one GPU: CLIP steps beside open_clip's in the same run, the loss of a large batch, the largest batch.

Synthetic pairs that lie on the device already: the loader is measured by itself (`bench loader`).
"""

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.gpu_inference import forget
from bench.pairs import Row
from bench.step import Name, Ours, Pairs, Theirs, config, our_weights, pairs, peer_model, peer_title, ready
from eyesmith.losses.all_pairs import TILE_ROWS
from eyesmith.losses.softmax import softmax_loss
from eyesmith.models.clip import ClipConfig
from eyesmith.train.utilisation import StepCost, peak_flops

LOSS_BOUND = 2e-2  # of the first losses, relative: products in bfloat16, ours compiled
GRAD_BOUND = 2e-2  # of the gradients of a loss in bfloat16, against the dense one in the same run


@dataclass(frozen=True, kw_only=True)
class StepCase:
    """A model whose training step is measured. row: its name in results."""

    row: str
    name: Name
    batch: int


CASES = (
    StepCase(row="gpu_vitamin_l_train", name="vitamin_l", batch=384),
    StepCase(row="gpu_vitamin_b_train", name="vitamin_b", batch=768),
    StepCase(row="gpu_vitamin_s_train", name="vitamin_s", batch=1536),
    StepCase(row="gpu_vit_l14_train", name="vit_l14", batch=512),
    StepCase(row="gpu_eva02_l14_train", name="eva02_l14", batch=384),
    StepCase(row="gpu_vit_b16_train", name="vit_b16", batch=1024),
    StepCase(row="gpu_vit_b32_train", name="vit_b32", batch=2048),
)


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """How to measure: turns of `turn` steps of ours, then of theirs, after warm-ups in which ours compiles."""

    device: str = "cuda"
    num_warmups: int = 5
    num_steps: int = 20
    turn: int = 5
    compile_blocks: bool = True
    loss_pairs: int = 65_536
    loss_width: int = 768
    batches: tuple[int, ...] = (32_768, 131_072, 524_288)
    part: int = 2_048


def training_rows(cases: tuple[StepCase, ...], plan: StepPlan) -> list[Row]:
    """All rows; each is also written to stderr when it is finished, so that nothing is lost when a later one fails."""
    found: list[Row] = []
    for case in cases:
        found += _told(step_rows(case, config(case.name), plan))
        forget(plan.device)
    found += _told(loss_rows(plan))
    found += _told(_largest_batch("vitamin_s", config("vitamin_s"), plan))
    return found


def _told(rows: Iterator[Row]) -> Iterator[Row]:
    start = time.perf_counter()
    for row in rows:
        took_s = time.perf_counter() - start
        print(f"{row.row}: {row.ours:.4g} against {row.theirs:.4g} {row.unit} ({took_s:.0f} s)", file=sys.stderr)
        yield row


def step_rows(case: StepCase, clip_config: ClipConfig, plan: StepPlan) -> Iterator[Row]:
    """Pairs a second and model-FLOP utilisation of a training step, beside open_clip's step."""
    peer = peer_model(case.name)
    ours = Ours(
        clip_config,
        our_weights(case.name, peer),
        batch_size=case.batch,
        device=plan.device,
        precision="bf16",
        compile_blocks=plan.compile_blocks,
    )
    theirs = Theirs(peer.to(plan.device), precision="bf16")
    size = clip_config.image.image_size
    given = [pairs(seed, case.batch, image_size=size, device=plan.device) for seed in range(2)]
    prepared = [ready(one) for one in given]
    losses: tuple[list[float], list[float]] = ([], [])
    seconds: tuple[list[float], list[float]] = ([], [])

    def timed(side: int, step: int) -> float:
        start = _now(plan.device)
        which = step % len(given)
        losses[side].append(ours(given[which]) if side == 0 else theirs(*prepared[which]))
        return _now(plan.device) - start

    for side in (0, 1):
        for step in range(plan.num_warmups):
            timed(side, step)
    for first in range(0, plan.num_steps, plan.turn):
        for side in (0, 1):
            seconds[side] += [timed(side, step) for step in range(first, min(first + plan.turn, plan.num_steps))]
    ratios = [their_s / our_s for our_s, their_s in zip(*seconds, strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
    our_rate, their_rate = (case.batch / statistics.median(side) for side in seconds)
    text_len = int(ours.clip.text.tokenize(given[0].texts).shape[1])
    flops = StepCost(ours.clip).flops(text_len)
    device = _device_name(plan.device)
    peak = peak_flops(device)
    first_losses = list(zip(*losses, strict=True))[: plan.num_warmups]
    row = partial(
        Row,
        ratio=ratio,
        low=low,
        high=high,
        equal=all(abs(a - b) <= LOSS_BOUND * abs(b) for a, b in first_losses),
        peer=f"{peer_title()}, bf16, not compiled (ours: {'blocks' if plan.compile_blocks else 'not'}), "
        f"batch {case.batch}, {device}, torch {torch.__version__}",
        note=f"captions of 5 to 25 words, {text_len} tokens in ours, 77 in theirs; AdamW fused in ours; "
        f"first {len(first_losses)} losses within {LOSS_BOUND}",
    )
    yield row(row=case.row, unit="pairs/s", ours=our_rate, theirs=their_rate)
    if peak is not None and flops is not None:
        share = flops / peak
        yield row(row=f"{case.row}_mfu", unit="of peak", ours=our_rate * share, theirs=their_rate * share)


def loss_rows(plan: StepPlan) -> Iterator[Row]:
    """Memory and time of the softmax loss of a large batch, forward and backward, beside the dense one."""
    generator = torch.Generator(plan.device).manual_seed(0)
    shape = (plan.loss_pairs, plan.loss_width)
    image, text = (torch.randn(shape, generator=generator, device=plan.device) for _ in range(2))
    image, text = (F.normalize(side, dim=-1).bfloat16().requires_grad_() for side in (image, text))
    scale = torch.tensor(100.0, device=plan.device, requires_grad=True)

    def dense(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
        logits = scale * image @ text.mT
        right = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, right) + F.cross_entropy(logits.mT, right)) / 2

    def tiled(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
        return softmax_loss(image, text, scale, tile_rows=TILE_ROWS)

    results: list[list[Tensor]] = []
    peaks: list[float] = []
    seconds: tuple[list[float], list[float]] = ([], [])
    for side, loss in enumerate((tiled, dense)):
        for _ in range(2 + 5):
            gc.collect()
            _reset_peak(plan.device)
            before = _allocated(plan.device)
            start = _now(plan.device)
            value = loss(image, text, scale)
            grads = torch.autograd.grad(value, (image, text, scale))
            seconds[side].append(_now(plan.device) - start)
            peak = _peak(plan.device) - before
        results.append([value.detach(), *grads])
        peaks.append(peak / 2**20)
        del value, grads
    is_equal = all(
        float((a.float() - b.float()).norm()) <= GRAD_BOUND * float(b.float().norm())
        for a, b in zip(*results, strict=True)
    )
    our_s, their_s = (statistics.median(side[2:]) for side in seconds)
    low, _, high = statistics.quantiles([b / a for a, b in zip(*seconds, strict=True)][2:], n=4, method="inclusive")
    row = partial(
        Row,
        equal=is_equal,
        peer=f"dense cross entropy as open_clip's ClipLoss, bf16, {_device_name(plan.device)}",
        note=f"B = {plan.loss_pairs}, D = {plan.loss_width}, forward and backward; gradients within {GRAD_BOUND}",
    )
    if torch.device(plan.device).type == "cuda":
        ratio = peaks[1] / peaks[0]
        yield row(row="gpu_loss_memory", unit="MiB", ours=peaks[0], theirs=peaks[1], ratio=ratio, low=ratio, high=ratio)
    yield row(
        row="gpu_loss_time",
        unit="steps/s",
        ours=1 / our_s,
        theirs=1 / their_s,
        ratio=their_s / our_s,
        low=low,
        high=high,
    )


def _largest_batch(name: Name, clip_config: ClipConfig, plan: StepPlan) -> Iterator[Row]:
    """The largest batch of `plan.batches` whose exact gradient fits, beside the largest step open_clip makes whole."""
    peer = peer_model(name)
    weights = our_weights(name, peer)
    size = clip_config.image.image_size
    whole_step = Theirs(peer.to(plan.device), precision="bf16")
    their_largest, tried = 0, plan.part
    while tried <= max(plan.batches) and _fits(partial(_whole_step, whole_step, tried, size, plan.device)):
        their_largest, tried = tried, 2 * tried
    del whole_step, peer
    forget(plan.device)
    largest = 0
    for batch in plan.batches:

        def step(batch: int = batch) -> float:
            ours = Ours(
                clip_config,
                weights,
                batch_size=batch,
                accumulate=max(1, batch // plan.part),
                device=plan.device,
                precision="bf16",
                compile_blocks=plan.compile_blocks,
            )
            return ours(_repeated(batch, size, plan.part))

        if not _fits(step):
            break
        largest = batch
        forget(plan.device)
    ratio = largest / their_largest if their_largest else float("inf")
    yield Row(
        row="gpu_largest_batch",
        ours=float(largest),
        theirs=float(their_largest),
        unit="pairs",
        ratio=ratio,
        low=ratio,
        high=ratio,
        equal=True,
        peer=f"{peer_title()}, one step without accumulation, doubled from {plan.part} until it does not fit",
        note=f"{name}, bf16, parts of {plan.part}; tried: {', '.join(map(str, plan.batches))}; the gradient is that of "
        "the whole batch",
    )


def _fits(step: Callable[[], Any]) -> bool:
    try:
        step()
    except torch.OutOfMemoryError:
        return False
    return True


def _whole_step(theirs: Theirs, count: int, size: tuple[int, int], device: str) -> float:
    return theirs(*ready(pairs(0, count, image_size=size, device=device)))


def _repeated(count: int, size: tuple[int, int], distinct: int) -> Pairs:
    """`count` pairs in main memory: `distinct` pictures again and again, as views, and captions all different."""
    one = pairs(0, min(distinct, count), image_size=size)
    times = count // len(one.texts)
    pixels = one.pixels.expand(times, *one.pixels.shape).reshape(-1, *one.pixels.shape[1:])
    return Pairs(pixels, [f"{text} {turn}" for turn in range(times) for text in one.texts])


def _now(device: str) -> float:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _allocated(device: str) -> float:
    return torch.cuda.memory_allocated(device) if torch.device(device).type == "cuda" else 0.0


def _peak(device: str) -> float:
    return torch.cuda.max_memory_allocated(device) if torch.device(device).type == "cuda" else 0.0


def _reset_peak(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device
