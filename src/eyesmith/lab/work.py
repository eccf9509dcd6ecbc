"""One cell in a process of its own: `python -m eyesmith.lab.work FOLDER` trains, measures and answers there."""

import ctypes
import os
import shutil
import signal
import statistics
import sys
from pathlib import Path

from rich.console import Console

from eyesmith.errors import EyesmithError
from eyesmith.eval import evaluate
from eyesmith.hub.load import load_clip
from eyesmith.lab.folder import RUN, held, is_done, read_request, write_failure, write_result
from eyesmith.lab.queries import write_ranks
from eyesmith.models.cost import encoder_cost
from eyesmith.models.registry import register_encoder
from eyesmith.runs.train import start_or_resume
from eyesmith.tasks import run_from_dict
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train.callbacks.logging import read_lines

BUSY = 75  # exit status: another process works on the cell
STOPPED = 130


def run_cell(folder: Path) -> None:
    """Train the cell's run or go on with it, measure it, and write the result. Nothing where it is done already."""
    request = read_request(folder)
    if is_done(folder):
        return
    for file in request["encoder_files"]:
        register_encoder(file)
    config = run_from_dict(request["train"])
    assert isinstance(config, TrainConfig)
    run = folder / RUN
    summary = start_or_resume(config, run, console=Console(quiet=True))
    clip = load_clip(run)
    rows = evaluate(clip, request["eval_data"], request["splits"] or None, model_name=request["id"], note=_note)
    write_ranks(folder, clip, request["eval_data"], request["splits"] or None)
    cost = encoder_cost(config.model.image)
    user_s, system_s = os.times()[:2]
    facts = {
        "parameters": cost.tower.params,
        "gmacs": cost.tower.macs / 1e9,
        "train_s": summary.train_s,
        "cpu_s": user_s + system_s,
        "loss": _last_loss(run),
    }
    write_result(folder, facts, rows)
    shutil.rmtree(run / "state", ignore_errors=True)  # a finished run is not gone on with
    if not request["keeps_weights"]:
        (run / "model.safetensors").unlink()


def _note(text: str) -> None:
    sys.stderr.write(text + "\n")


def _last_loss(run: Path) -> float:
    losses = [line["loss"] for line in read_lines(run) if "loss" in line]
    return statistics.fmean(losses[-max(len(losses) // 10, 1) :])


def main(folder: Path) -> int:
    """Run the cell in `folder`; the exit status. What went wrong is left there as error.txt."""
    with held(folder) as is_ours:
        if not is_ours:
            return BUSY
        try:
            run_cell(folder)
        except KeyboardInterrupt:
            return STOPPED
        except EyesmithError as error:
            write_failure(folder, str(error))
            return 1
        except Exception as error:  # whatever it is, it belongs to this cell and not to the grid
            write_failure(folder, f"{type(error).__name__}: {error}")
            raise
    return 0


def end_with(parent: int) -> None:
    """Let this process be told to save and end when the process `parent`, which started it, is gone. Linux."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it was gone before
        sys.exit(STOPPED)


if __name__ == "__main__":
    if "--end-with" in sys.argv:
        end_with(int(sys.argv[3]))
    sys.exit(main(Path(sys.argv[1])))
