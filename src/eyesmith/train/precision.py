"""In what number format the towers compute, and the switches of a GPU that decide it further."""

from contextlib import AbstractContextManager
from typing import Literal

import torch

from eyesmith.train.config import ParallelConfig

Precision = Literal["fp32", "bf16"]


def choose_precision(wanted: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """`wanted`, with auto decided: bf16 where the device multiplies in it faster than in fp32."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # without these instructions a CPU emulates bf16, slower than fp32
    has_bf16 = device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return "bf16" if has_bf16 else "fp32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the towers run; weights, norms' statistics, loss and optimiser stay fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def set_switches(config: ParallelConfig) -> None:
    """Set TensorFloat-32 and cuDNN's choice of convolutions for this process, whatever they were before."""
    torch.backends.cuda.matmul.allow_tf32 = config.tf32
    torch.backends.cudnn.allow_tf32 = config.tf32
    torch.backends.cudnn.benchmark = config.cudnn_benchmark
