"""`bash bench/gpu_job.sh OUT`: what one GPU can show in ten minutes, each part by itself, into OUT/gpu_job.json.

Runs of tiny models on data made on the spot: the debug recipe, the same under DDP and FSDP with one process, a masked-
image run, a classifier, a run killed and gone on with; then the measurements of `bench gpu`, case by case, as long as
there is time. A part that fails or takes too long is written down with the end of what it printed; the others go on.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from eyesmith.files import write_json

RESULT = "gpu_job.json"
BUDGET_S = 570.0
PART_S = 90.0  # of one run
CASE_S = 150.0  # of one measurement, most of it compilation
TAIL = 1500  # characters of a failed part's output that are kept
_CLI = (sys.executable, "-m", "eyesmith.cli.main")


@dataclass(frozen=True, kw_only=True)
class Job:
    """When the job must end, and where its runs are; the result is written beside that folder.

    small: for a processor: fewer steps, nothing measured.
    """

    out: Path
    ends_at: float
    small: bool

    @property
    def left_s(self) -> float:
        """Seconds to the end."""
        return self.ends_at - time.monotonic()

    @property
    def scenes(self) -> tuple[str, ...]:
        """The words that let a recipe train on the scenes, without measuring."""
        return (f"data.path={self.out / 'scenes'}", "data.split=train", "eval.splits=", "eval.curve_splits=")

    def call(self, words: Sequence[str], *, limit_s: float = PART_S) -> str:
        """What a command prints. Raises PartFailed when it fails, or takes longer than `limit_s` or than is left."""
        limit_s = min(limit_s, self.left_s)
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired as error:
            told = error.stderr or b""
            raise PartFailed(
                f"took more than {limit_s:.0f} s",
                told.decode(errors="replace") if isinstance(told, bytes) else told,
            ) from None
        if done.returncode:
            raise PartFailed(f"exit status {done.returncode}", done.stdout + done.stderr)
        return done.stdout

    def train(self, recipe: str, name: str, *words: str) -> dict[str, Any]:
        """Numbers of a run by the command line."""
        self.call((*_CLI, "train", recipe, "--out", str(self.out / name), *self.scenes, *words))
        return run_facts(self.out / name)


class PartFailed(Exception):
    """A part that did not come to its end, and what it printed."""

    def __init__(self, message: str, told: str) -> None:
        super().__init__(message)
        self.told = told[-TAIL:]


def run_facts(folder: Path) -> dict[str, Any]:
    """What a run's log says: steps, losses, rates of its second half, when the GPU is warm."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "loss" in line]
    warm = steps[len(steps) // 2 :]
    rates = {
        name: statistics.median(values)
        for name in ("images_per_s", "wait_frac", "mfu", "peak_mib")
        if (values := [line[name] for line in warm if line.get(name) is not None])
    }
    finished = {"is_finished": (folder / "model.safetensors").is_file()}
    return {"steps": steps[-1]["step"], "losses": [line["loss"] for line in steps], **rates, **finished}


def facts() -> dict[str, Any]:
    """The machine and its torch."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "processors": os.cpu_count(),
        "has_gpu": torch.cuda.is_available(),
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "cudnn": torch.backends.cudnn.version(),
            "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        }
    return found


def make_data(job: Job) -> dict[str, Any]:
    """Scenes with captions, and class folders of one colour each."""
    samples = "64" if job.small else "2016"
    job.call((*_CLI, "data", "make", "scenes", str(job.out / "scenes"), "--samples", samples, "--size-px", "72"))
    from PIL import Image

    for label, color in enumerate(("red", "green", "blue", "black")):
        (folder := job.out / "classes" / color).mkdir(parents=True, exist_ok=True)
        for number in range(16 if job.small else 64):
            Image.new("RGB", (72 + number, 72), color).save(folder / f"{label}-{number:03}.png")
    return {"scenes": int(samples)}


def debug(job: Job) -> dict[str, Any]:
    """The debug recipe."""
    return job.train("debug", "debug", *_length(job))


def _length(job: Job) -> tuple[str, ...]:
    return ("batch_size=16", "epochs=1") if job.small else ("epochs=4",)


def _spread(job: Job, strategy: str) -> dict[str, Any]:
    """The debug recipe by one process under a strategy that is meant for several, and how far its losses are off."""
    job.call((sys.executable, "-m", "bench.gpu_job", str(job.out.parent), "--spread", strategy, *_small(job)))
    found, alone = run_facts(job.out / strategy), run_facts(job.out / "debug")
    pairs = zip(found["losses"], alone["losses"], strict=True)
    return {**found, "largest_difference": max(abs(one - other) for one, other in pairs)}


def _small(job: Job) -> tuple[str, ...]:
    return ("--small",) if job.small else ()


def spread(job: Job, strategy: str) -> None:
    """In a process of its own: train as one of one process, where a run would take no strategy at all."""
    import torch.distributed as dist

    from eyesmith.cli.overrides import parse_config
    from eyesmith.recipes import recipe
    from eyesmith.runs.train import start
    from eyesmith.train import sharding

    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "29541", "RANK": "0", "WORLD_SIZE": "1"}
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    sharding.choose_strategy = lambda *_: strategy  # pyright: ignore[reportAttributeAccessIssue]
    start(parse_config(recipe("debug"), [*job.scenes, *_length(job)], prog="debug"), job.out / strategy)
    dist.destroy_process_group()


def masked(job: Job) -> dict[str, Any]:
    """A masked-image run with the debug run's image tower as its teacher."""
    words = ("batch_size=16", "epochs=1") if job.small else ("epochs=4",)
    return job.train("mim-nano", "masked", f"target.teacher={job.out / 'debug'}", *words)


def classify(job: Job) -> dict[str, Any]:
    """A classifier of class folders, measured."""
    folder = job.out / "classify"
    words = (f"data.path={job.out / 'classes'}", "epochs=2", "log_every_steps=1")
    job.call((*_CLI, "train", "classify", "--out", str(folder), *words))
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    return {**run_facts(folder), "measured": {f"{row['split']}/{row['metric']}": row["value"] for row in rows}}


def resume_after_kill(job: Job) -> dict[str, Any]:
    """The debug run again, killed after a state, gone on with: the same losses, and how far they are off."""
    folder = job.out / "killed"
    words = (*_CLI, "train", "debug", "--out", str(folder), *job.scenes, *_length(job), "save_every_steps=1")
    running = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + min(PART_S, job.left_s)
    try:
        while running.poll() is None and not list((folder / "state").glob("step-*")):
            if time.monotonic() > end:
                raise PartFailed("no state was saved in time", "")
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
    finally:
        running.kill()
        running.wait()
    was_killed = not (folder / "model.safetensors").is_file()
    job.call((*_CLI, "resume", str(folder)))
    found, whole = run_facts(folder), run_facts(job.out / "debug")
    pairs = zip(found["losses"], whole["losses"], strict=True)
    difference = max(abs(one - other) for one, other in pairs)
    return {**found, "was_killed_before_the_end": was_killed, "largest_difference": difference}


def measure(job: Job) -> dict[str, Any]:
    """Rows of `bench gpu`, a case after the other while there is time; the errors of those that could not be had."""
    if job.small:
        return {"rows": [], "errors": {"all": "not measured, the job is small"}}
    rows: list[Any] = []
    errors: dict[str, str] = {}
    for case in bench_cases():
        if job.left_s < 30:
            errors[case] = "no time was left"
            continue
        try:
            told = job.call(
                (sys.executable, "-m", "bench.gpu_job", str(job.out.parent), "--case", case), limit_s=CASE_S
            )
            rows += json.loads(told.splitlines()[-1])
        except (PartFailed, ValueError, IndexError) as error:
            errors[case] = f"{error}: {getattr(error, 'told', '')}"
    return {"rows": rows, "errors": errors}


def bench_cases() -> dict[str, Callable[[], list[Any]]]:
    """What is measured, by name, the most telling first."""
    from bench import gpu_inference, gpu_training
    from bench.step import config

    def inference(case: gpu_inference.Case) -> list[Any]:
        return gpu_inference.inference_rows((case,), gpu_inference.Plan())

    def step(case: gpu_training.StepCase) -> list[Any]:
        return list(gpu_training.step_rows(case, config(case.name), gpu_training.StepPlan()))

    first = ("gpu_vitamin_s_infer", "gpu_vitamin_l_infer")
    infer = {case.row: (lambda case=case: inference(case)) for case in gpu_inference.CASES}
    steps = {case.row: (lambda case=case: step(case)) for case in gpu_training.CASES}
    loss = {"gpu_loss": lambda: list(gpu_training.loss_rows(gpu_training.StepPlan()))}
    return {name: infer[name] for name in first} | loss | steps | infer


PARTS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "data": make_data,
    "debug": debug,
    "ddp": lambda job: _spread(job, "ddp"),
    "fsdp": lambda job: _spread(job, "fsdp"),
    "masked": masked,
    "classify": classify,
    "resume after kill": resume_after_kill,
    "bench": measure,
}


def run_parts(job: Job, parts: dict[str, Callable[[Job], dict[str, Any]]]) -> dict[str, Any]:
    """Each part's status, seconds and numbers; the file is written anew after each, so that a cut leaves what was."""
    content: dict[str, Any] = {"facts": facts(), "parts": {}}
    for name, part in parts.items():
        began = time.monotonic()
        found: dict[str, Any]
        if job.left_s < 5:
            found = {"status": "skipped", "why": "no time was left"}
        else:
            try:
                found = {"status": "done", **part(job)}
            except Exception as error:  # whatever it is, the others go on
                found = {"status": "failed", "why": f"{type(error).__name__}: {error}"}
                found |= {"told": error.told} if isinstance(error, PartFailed) else {}
        content["parts"][name] = {**found, "seconds": round(time.monotonic() - began, 1)}
        print(f"{name}: {found['status']} {found.get('why', '')}", file=sys.stderr, flush=True)
        write_json(job.out.parent / RESULT, content)
    return content


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/gpu_job.sh", description=__doc__)
    parser.add_argument("out", type=Path, help="the folder of gpu_job.json, and of runs/")
    parser.add_argument("--small", action="store_true", help="fewer steps and no measurement, for a processor")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, help="seconds for all")
    parser.add_argument("--spread", choices=("ddp", "fsdp"), help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    job = Job(out=given.out.absolute() / "runs", ends_at=time.monotonic() + given.budget_s, small=given.small)
    if given.spread:
        spread(job, given.spread)
    elif given.case:
        print(json.dumps([asdict(row) for row in bench_cases()[given.case]()]))
    else:
        job.out.mkdir(parents=True, exist_ok=True)
        if any(job.out.iterdir()):
            parser.error(f"{job.out}: is not empty, take another folder")
        run_parts(job, PARTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
