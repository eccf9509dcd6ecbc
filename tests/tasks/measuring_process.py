"""One of several processes that measure finished runs together; what it read, and what it found while training."""

import json
import sys
from pathlib import Path

import torch
from rich.console import Console

from eyesmith.eval.features import batches
from eyesmith.runs.folder import read_run_config
from eyesmith.runs.train import resume
from eyesmith.runs.work import Work
from eyesmith.train.distributed import World, joined

NUM_READ = [0]


def count_reading() -> None:
    """Count the images that this process decodes to measure on."""
    read = batches.read_pixels

    def counted(*given: object) -> object:
        NUM_READ[0] += 1
        return read(*given)  # pyright: ignore[reportArgumentType]

    batches.read_pixels = counted  # pyright: ignore[reportAttributeAccessIssue]


def while_training(run: Path, world: World) -> dict[str, float]:
    """What `run` would find on its splits while it trains, with the weights that it begins with."""
    work = Work(read_run_config(run), run, Console(quiet=True), world)
    try:
        measure = work.task.curve(work.context, ())
        assert measure is not None
        return measure(work.state.whole_model().eval())
    finally:
        work.batches.close()


def main(runs: list[Path]) -> None:
    """Measure `runs` at their end, and as while they train."""
    torch.set_num_threads(1)
    count_reading()
    with joined() as world:
        for run in runs:
            NUM_READ[0] = 0
            resume(run)
            found = {"read": NUM_READ[0], "while_training": while_training(run, world)}
            (run / f"rank{world.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
