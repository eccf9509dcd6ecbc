"""How much of the machine a step uses: floating-point operations of the model against the device's peak, and memory."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from eyesmith.errors import MissingDependencyError
from eyesmith.models.clip import Clip
from eyesmith.models.cost import encoder_cost, text_cost
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.train.precision import HALF, Precision

# dense bfloat16 FLOP/s (a multiply-add counts two) by a part of the device's name; of several the longest holds.
# From NVIDIA's data sheets, without sparsity; cards for desks with fp32 accumulation, which training and torch use.
PEAK_BF16 = {
    "A100": 312e12,
    "H100": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H200": 989e12,
    "H200 NVL": 835e12,
    "L4": 121e12,
    "L40": 181e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
    "RTX 5090": 209e12,
}
_Result = TypeVar("_Result")
_FLOPS_PER_MAC = 2
_BACKWARD = 2  # the backward pass multiplies twice as much as the forward: once for inputs, once for weights


def peak_flops(device_name: str) -> float | None:
    """Dense bfloat16 FLOP/s of a device by the name torch gives it ("NVIDIA H200"); None for one not in the table."""
    words = f" {device_name.replace('-', ' ')} "
    known = [name for name in PEAK_BF16 if f" {name} " in words]
    return PEAK_BF16[max(known, key=len)] if known else None


def device_flops(device: torch.device, precision: Precision) -> tuple[float, str]:
    """FLOP/s that 100 % stand for, and where the number is from: "data sheet" or "measured".

    A device in the table has its bfloat16 peak, whatever the run computes in. Of others the rate of a large matrix
    product in `precision` is measured (0.1 s): no peak, but what this machine reaches.
    """
    known = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return (known, "data sheet") if known else (measured_flops(device, precision), "measured")


def measured_flops(device: torch.device, precision: Precision) -> float:
    """FLOP/s of the best of some products of two square matrices."""
    side = 4096 if device.type == "cuda" else 768
    dtype = HALF.get(precision, torch.float32)
    a = torch.full((side, side), 0.5, dtype=dtype, device=device)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(4):
            start = time.perf_counter()
            _ = a @ a
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - start)
    return _FLOPS_PER_MAC * side**3 / best


class StepCost:
    """Floating-point operations that one sample of a training step needs in the model.

    3 times the forward pass for a tower that trains, once for one that does not (no gradient passes through it), none
    for locked texts, which are not encoded in a step. What is computed again to save memory does not count. Texts count
    at the length they have in the batch.
    """

    def __init__(self, clip: Clip) -> None:
        self._text = clip.config.text if isinstance(clip.config.text, ClipTextConfig) else None
        self._text_passes = 0 if clip.config.lock_text else _passes(clip.text)
        try:
            self._image = encoder_cost(clip.config.image).tower.macs * _passes(clip.image)
        except MissingDependencyError:
            self._image = None

    def flops(self, text_len: int | None) -> float | None:
        """FLOP a sample; text_len: tokens of a text, padding included. None where a tower's cost is not known."""
        if self._image is None:
            return None
        macs = self._image
        if self._text_passes:
            if self._text is None or text_len is None:
                return None
            macs += self._text_passes * text_cost(replace(self._text, context_len=max(2, text_len))).macs
        return float(_FLOPS_PER_MAC * macs)


def _passes(tower: nn.Module) -> int:
    return 1 + _BACKWARD * any(parameter.requires_grad for parameter in tower.parameters())


def peak_memory_mib(device: torch.device) -> float:
    """The most memory so far, MiB: of torch's tensors on a GPU, of the whole process on a CPU; 0 where no one tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kibibytes; bytes on macOS
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def added_memory_mib(work: Callable[[], _Result], device: torch.device) -> tuple[_Result, float]:
    """What `work` returns, and the memory that it adds at most, MiB; 0 where the system does not tell."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        found = work()
        return found, (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if not os.access("/proc/self/clear_refs", os.W_OK):
        return work(), 0.0
    _release()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again
    before = _status_mib("VmRSS")
    found = work()
    return found, max(_status_mib("VmHWM") - before, 0.0)


def _release() -> None:
    """Give freed memory back to the system, so that the next pass has to ask for its own."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024
