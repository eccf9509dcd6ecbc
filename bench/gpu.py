"""`eyesmith bench gpu`: all that is measured on one GPU, inference first."""

import torch

from bench import gpu_inference, gpu_training
from bench.pairs import Row
from eyesmith.errors import EyesmithError


def rows() -> list[Row]:
    """All rows. Raises EyesmithError where torch sees no CUDA device."""
    if not torch.cuda.is_available():
        raise EyesmithError(
            f"bench gpu: needs a CUDA device, and torch {torch.__version__} sees none; run it on a machine with an "
            "NVIDIA GPU and a CUDA build of torch, or measure this processor: eyesmith bench models"
        )
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True  # both sides get the fastest convolutions there are
    try:
        inference = gpu_inference.inference_rows(gpu_inference.CASES, gpu_inference.Plan())
        return inference + gpu_training.training_rows(gpu_training.CASES, gpu_training.StepPlan())
    finally:
        torch.backends.cudnn.benchmark = before
