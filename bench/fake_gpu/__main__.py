"""`python -m bench.fake_gpu [PART ...]`: every task's run as on a GPU, on one that is not there.

Whole runs of tiny models: batches, masks, losses, updates, averages, measuring while training, states, replay, texts,
teachers. Fails on an operation with tensors of two devices and where the host waits for the device, but for the places
of `ALLOWED`. Needs torch's CUDA build (`make fake-gpu`), no device.
"""

import argparse
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from bench.fake_gpu.device import FakeGpu
from bench.fake_gpu.runs import PARTS

ALLOWED = {
    "train/readings.py:__getitem__": "what a logged step shows, in one copy",
    "train/state.py:save": "a state is saved",
    "train/callbacks/evaluation.py:__call__": "measuring while training, and the best weights",
    "runs/work.py:__init__": "before the first step: kept texts and targets, hashes of frozen weights",
    "runs/work.py:measure_before": "before the first step",
    "runs/origin.py:keep_frozen": "before the first step: frozen weights are written",
    "runs/work.py:_finish": "after the last step: the weights are written and measured",
    "runs/work.py:save_replay": "a broken step is kept",
    "train/replay.py:traced": "a broken step is looked at value by value",
    "train/replay.py:see": "the same, of each module's output",
    "train/replay.py:_see_gradient": "the same, of each gradient",
}
"""Where the host may wait for the device, and in all that is called from there. Training steps are not among them."""

ALLOWED_UPLOADS = {
    "train/rng.py:__init__": "some probabilities",
    "train/rng.py:give": "a part's places in the batch, 8 bytes a row",
    "images/pixels.py:_column": "three numbers, kept where tensors are real",
    "models/clip.py:features": "token ids of captions that are encoded as they pass",
}
"""What a training step may copy to the device by itself: the loader has pinned the rest, and sent it ahead."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fake_gpu", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all without")
    check_itself()
    wanted = parser.parse_args().parts or list(PARTS)
    failed = [name for name in wanted if not _passes(name, PARTS[name])]
    print(f"{len(wanted) - len(failed)} of {len(wanted)} parts pass" + (f"; not {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def check_itself() -> None:
    """Raise AssertionError unless the faults that this looks for are found, and autocast is on."""
    with FakeGpu({}) as gpu:
        here, there = torch.rand(2, 2), torch.rand(2, 2, device="cuda")
        assert isinstance(here.sum().item(), float), "tensors of the CPU are real"
        try:
            torch.mm(here, there)
        except RuntimeError:
            pass
        else:
            raise AssertionError("a product of tensors on two devices is not found")
        for wait in (lambda: there.sum().item(), lambda: there.cpu(), lambda: there[there > 0], there.nonzero):
            before = gpu.unexpected.total()
            wait()
            assert gpu.unexpected.total() == before + 1, "a wait for the device is not found"
        with torch.autocast("cuda", torch.bfloat16):
            product = torch.mm(there.requires_grad_(), there)
        assert product.dtype == torch.bfloat16, "autocast is off"
        product.float().sum().backward()
        assert there.grad is not None, "there is no gradient"


def _passes(name: str, part: Callable[[Path], None]) -> bool:
    gpu = FakeGpu(ALLOWED, ALLOWED_UPLOADS)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with gpu:
                part(Path(folder))
        except Exception as error:
            frames = [
                frame
                for frame in traceback.extract_tb(error.__traceback__)
                if "eyesmith" in frame.filename or "bench" in frame.filename
            ]
            print(f"{name}: FAILS, {type(error).__name__}: {error}")
            print("".join(traceback.format_list(frames)))
            return False
    if gpu.unexpected:
        print(f"{name}: FAILS, waits and uploads in places that are not allowed")
        print("".join(f"  {count} x {place}\n" for place, count in gpu.unexpected.items()))
        return False
    print(f"{name}: passes; host waits {dict(gpu.waits)}; uploads in steps {dict(gpu.uploads)}")
    return True


if __name__ == "__main__":
    sys.exit(main())
