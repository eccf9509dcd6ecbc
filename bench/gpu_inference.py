"""On one GPU: images a second and share of the peak, beside timm compiled with the same weights in the same run."""

import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.pairs import Row
from eyesmith.models.acceleration import Scope, prepare_for_inference
from eyesmith.models.cost import encoder_cost
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.vitamin.model import VITAMIN, ViTaminConfig
from eyesmith.models.vitamin.weights import from_timm
from eyesmith.train.utilisation import peak_flops

DTYPE = torch.bfloat16
NUM_CHECKED = 32  # images whose features are compared with those of float64
NUM_BATCHES = 3  # different inputs in turn, so that none is left in the cache
SAME = 1e-9  # of unit features in float64
MAX_ERROR_RATIO = 1.5  # our error in bfloat16 over timm's, both against float64


@dataclass(frozen=True, kw_only=True)
class Case:
    """One encoder against timm's. row: the name in results; scope: what of ours is one compiled graph."""

    row: str
    config: ViTaminConfig
    peer: str
    batch: int
    scope: Scope = "blocks"


CASES = (
    Case(row="gpu_vitamin_s_infer", config=VITAMIN["small"], peer="vitamin_small_224", batch=512),
    Case(row="gpu_vitamin_s_infer_whole", config=VITAMIN["small"], peer="vitamin_small_224", batch=512, scope="whole"),
    Case(row="gpu_vitamin_b_infer", config=VITAMIN["base"], peer="vitamin_base_224", batch=256),
    Case(row="gpu_vitamin_l_infer", config=VITAMIN["large"], peer="vitamin_large_224", batch=256),
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to measure. Steps run in turns of `turn` (A..A B..B A..A B..B); each is timed by itself."""

    device: str = "cuda"
    num_warmups: int = 20
    num_steps: int = 50
    turn: int = 5
    backend: str = "inductor"


def inference_rows(cases: Sequence[Case], plan: Plan) -> list[Row]:
    """Two rows a case: images a second, and model-FLOP utilisation where the device's peak is known.

    A finished row is also written to stderr: on a lent machine nothing measured is lost when a later case fails.
    """
    found = []
    for case in cases:
        start = time.perf_counter()
        for row in _inference(case, plan):
            found.append(row)
            took_s = time.perf_counter() - start
            print(f"{row.row}: {row.ours:.4g} against {row.theirs:.4g} {row.unit} ({took_s:.0f} s)", file=sys.stderr)
        forget(plan.device)
    return found


def _inference(case: Case, plan: Plan) -> list[Row]:
    device = torch.device(plan.device)
    theirs = peer_model(case)
    ours = case.config.build()
    ours.load_state_dict(from_timm(theirs.state_dict(), case.config))
    batches = [pictures(case.batch, case.config.image_size, seed).to(device) for seed in range(NUM_BATCHES)]
    checked = batches[0][:NUM_CHECKED]
    with torch.no_grad():
        exact = unit(theirs.to(device).double()(checked.double()))
        is_same = _distance(unit(ours.to(device).eval().double()(checked.double())), exact) <= SAME
        theirs = theirs.to(dtype=DTYPE, memory_format=torch.channels_last)
        run_theirs = torch.compile(theirs, backend=plan.backend)
        run_ours = prepare_for_inference(ours, dtype=DTYPE, compile=case.scope, backend=plan.backend)
        inputs = [batch.to(DTYPE, memory_format=torch.channels_last) for batch in batches]
        seconds = interleaved(run_ours, run_theirs, inputs, plan)
        errors = [_distance(unit(run(inputs[0])[:NUM_CHECKED]), exact) for run in (run_ours, run_theirs)]
    is_equal = is_same and errors[0] <= MAX_ERROR_RATIO * errors[1]  # not for NaN

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    our_rate, their_rate = (case.batch / statistics.median(side) for side in zip(*seconds, strict=True))
    low, ratio, high = statistics.quantiles([their_s / our_s for our_s, their_s in seconds], n=4, method="inclusive")
    flops = 2 * encoder_cost(case.config).tower.macs
    peak = peak_flops(name)

    def row(suffix: str, unit: str, ours: float, theirs: float) -> Row:
        return Row(
            row=case.row + suffix,
            ours=ours,
            theirs=theirs,
            unit=unit,
            ratio=ratio,
            low=low,
            high=high,
            equal=is_equal,
            peer=f"{_timm_version()} {case.peer} under torch.compile (default mode, whole; ours: {case.scope}), "
            f"bf16, batch {case.batch}, {name}, torch {torch.__version__}",
            note=f"error of unit features against float64: ours {errors[0]:.1e}, theirs {errors[1]:.1e}; "
            f"{flops / 1e9:.1f} GFLOP an image, peak {'unknown' if peak is None else f'{peak / 1e12:.0f} TFLOP/s'}",
        )

    made = [row("", "images/s", our_rate, their_rate)]
    if peak is not None:
        made.append(row("_mfu", "of peak", our_rate * flops / peak, their_rate * flops / peak))
    return made


def interleaved(
    ours: Callable[[Tensor], Any], theirs: Callable[[Tensor], Any], inputs: Sequence[Tensor], plan: Plan
) -> list[tuple[float, float]]:
    """Seconds of `num_steps` steps of both sides in turns, after `num_warmups` of each, in which they compile."""
    sides: tuple[list[float], list[float]] = ([], [])
    for run in (ours, theirs):
        _timed(run, inputs, plan.num_warmups, plan.device)
    for start in range(0, plan.num_steps, plan.turn):
        for times, run in zip(sides, (ours, theirs), strict=True):
            times += _timed(run, inputs, min(plan.turn, plan.num_steps - start), plan.device)
    return list(zip(*sides, strict=True))


def _timed(run: Callable[[Tensor], Any], inputs: Sequence[Tensor], count: int, device: str) -> list[float]:
    """Seconds of each of `count` steps: by CUDA events, so that no step waits for the host in between."""
    if torch.device(device).type != "cuda":
        times = []
        for i in range(count):
            start = time.perf_counter()
            run(inputs[i % len(inputs)])
            times.append(time.perf_counter() - start)
        return times
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    torch.cuda.synchronize(device)
    marks[0].record()
    for i in range(count):
        run(inputs[i % len(inputs)])
        marks[i + 1].record()
    torch.cuda.synchronize(device)
    return [before.elapsed_time(after) / 1e3 for before, after in pairwise(marks)]


def peer_model(case: Case) -> nn.Module:
    """timm's model of a case, in evaluation mode, with weights where no two tensors are alike."""
    ensure_torchvision()
    import timm

    config = case.config
    torch.manual_seed(0)
    model: Any = timm.create_model(
        case.peer, num_classes=config.embed_dim, img_size=config.image_size, depth=config.depths[2]
    ).eval()
    with torch.no_grad():  # biases start at 0 and norms at 1, where a swap of two of them would not show
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
        model.head.bias.zero_()  # a projection has none
    return model


def pictures(count: int, image_size: tuple[int, int], seed: int) -> Tensor:
    """Normalised pixels [B, 3, H, W] of soft coloured shapes with noise: no two with like features, none zero."""
    generator = torch.Generator().manual_seed(seed)
    shapes = F.interpolate(torch.randn(count, 3, 4, 4, generator=generator), image_size, mode="bilinear")
    return shapes + 0.3 * torch.randn(shapes.shape, generator=generator)


def unit(features: Tensor) -> Tensor:
    """Rows [B, D] of length 1, float64."""
    return F.normalize(features.double(), dim=-1)


def _distance(left: Tensor, right: Tensor) -> float:
    """Root mean square over the rows of the distance between unit rows."""
    return float((left - right).square().sum(-1).mean().sqrt())


def _timm_version() -> str:
    import timm

    return f"timm {timm.__version__}"


def forget(device: str) -> None:
    """Free what compiled graphs and dropped models hold."""
    torch.compiler.reset()
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
