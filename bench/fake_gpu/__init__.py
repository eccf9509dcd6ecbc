"""Runs on a GPU that is not there: tensors of device `cuda` without numbers, so that their devices are checked."""

from bench.fake_gpu.device import FakeGpu

__all__ = ["FakeGpu"]
