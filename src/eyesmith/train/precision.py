"""In what number format the towers compute, the scale that fp16 needs, and the switches of a GPU."""

# pyright: reportPrivateImportUsage=false
# torch has no public names for operations on lists of tensors

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor

from eyesmith.optim.held import parts_here
from eyesmith.train.config import ParallelConfig, WantedPrecision

Precision = Literal["fp32", "bf16", "fp16"]
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
FIRST_SCALE, LAST_SCALE = 2.0**16, 1.0
GROWTH_STEPS = 2000  # without an overflow, after which the scale is doubled


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device multiplies in bf16 faster than in fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # without these instructions a CPU emulates bf16, slower than fp32
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def choose_precision(wanted: WantedPrecision, device: torch.device) -> Precision:
    """`wanted`, with auto decided: bf16 where the device multiplies in it faster than in fp32."""
    if wanted != "auto":
        return wanted
    return "bf16" if multiplies_bf16(device) else "fp32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the towers run; weights, norms' statistics, loss and optimiser stay fp32."""
    return torch.autocast(device.type, HALF.get(precision, torch.bfloat16), enabled=precision in HALF)


class LossScale:
    """What the loss is multiplied by in fp16, whose small gradients would else vanish; it follows them step by step.

    A step whose gradient overflows is left out and the scale halved; after GROWTH_STEPS without one it is doubled. At
    LAST_SCALE an overflow is the model's own, and no longer excused. Both tensors belong to the run's state.
    Source: mixed-precision training (arXiv 1710.03740); numbers of torch.amp.GradScaler, whose waiting for the device
    at each step is avoided.
    """

    def __init__(self, device: torch.device) -> None:
        self.value = torch.full((), FIRST_SCALE, device=device)
        self.good_steps = torch.zeros((), device=device)

    def tensors(self) -> dict[str, Tensor]:
        """Both by name, the very ones that change."""
        return {"value": self.value, "good_steps": self.good_steps}

    def unscale(self, grads: Iterable[Tensor]) -> None:
        """Divide gradients by the scale, in place."""
        torch._foreach_mul_(parts_here(grads), 1 / self.value)

    def is_excused(self, is_finite: Tensor) -> Tensor:
        """bool []: whether a step is only to be left out; is_finite: [] whether its gradient is."""
        return ~is_finite & (self.value > LAST_SCALE)

    def follow(self, is_left_out: Tensor, held: Tensor) -> None:
        """Change by one step; where `held`, [] fp32, is 1 nothing changes."""
        good = torch.where(is_left_out, 0, self.good_steps + 1)
        is_grown = good >= GROWTH_STEPS
        value = self.value * torch.where(is_left_out, 0.5, torch.where(is_grown, 2.0, 1.0))
        self.value.copy_(torch.where(held > 0, self.value, value))
        self.good_steps.copy_(torch.where(held > 0, self.good_steps, torch.where(is_grown, 0, good)))


def set_switches(config: ParallelConfig) -> None:
    """Set TensorFloat-32 and cuDNN's choice of convolutions for this process, whatever they were before."""
    torch.backends.cuda.matmul.allow_tf32 = config.tf32
    torch.backends.cudnn.allow_tf32 = config.tf32
    torch.backends.cudnn.benchmark = config.cudnn_benchmark
