"""Reads what `test_fuzz_files.py` sends: a process of its own, so that nothing it meets can hurt the tests.

Argument: a folder with a finished run `run`, a folder of results `results`, a model of timm's `hub`. In: a line of JSON
{"file": path below it, "bytes": base64}. The file is replaced, everything that reads it is asked, the file put back.
Out: a line of JSON, what went wrong or null.
"""

import base64
import json
import os
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

import eyesmith
from eyesmith.data.sources import open_source
from eyesmith.errors import EyesmithError
from eyesmith.eval.results import compare_folders, read_results
from eyesmith.hub.verification import verify
from eyesmith.hub.weights import read_tensors
from eyesmith.lab.plans import read_plan
from eyesmith.report.leaderboard import write_leaderboard
from eyesmith.runs.folder import is_measured, read_run_config
from eyesmith.runs.origin import Origin
from eyesmith.runs.work import summary
from eyesmith.train.checkpoint import read_into, states
from eyesmith.train.replay import read_replay

MAX_GROWTH_BYTES = 1 << 30
TIME_LIMIT_S = 10  # of processor time: what else the machine does is of no account


def readers(root: Path) -> dict[str, list[Callable[[], object]]]:
    """What reads the files of each folder."""
    run, results, hub = root / "run", root / "results", root / "hub"
    step = {"step": torch.zeros((), dtype=torch.int64)}
    return {
        "run": [
            lambda: verify(run),
            lambda: read_run_config(run),
            lambda: is_measured(run),
            lambda: summary(run),
            lambda: Origin.read(run),
            lambda: read_results([run]),
            lambda: [read_into(state, step) for state in states(run)],
        ],
        "hub": [lambda: eyesmith.load(hub), lambda: eyesmith.load(hub / "model.pt")],
        "average": [lambda: read_tensors(root / "average" / "model.pt", weights="ema")],
        "replay": [lambda: read_replay(root / "replay")],
        "lab": [lambda: read_plan(str(root / "lab" / "plan.json"))],
        "data": [lambda: open_source(root / "data", split="train")],
        "results": [
            lambda: write_leaderboard([results], root / "page.html", with_published=False),
            lambda: compare_folders(results, results, replicates=20),
        ],
    }


def main(root: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.fsync = lambda _: None  # what is written here need not outlive the machine
    torch.set_num_threads(1)
    asked = readers(root)
    for ask in (one for several in asked.values() for one in several):  # as they are, nothing is wrong
        ask()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print("ready", flush=True)
    for line in sys.stdin:
        given = json.loads(line)
        file = root / given["file"]
        whole = file.read_bytes()
        file.write_bytes(base64.b64decode(given["bytes"]))
        wrong = None
        for ask in asked[given["file"].partition("/")[0]]:
            used = resource.getrusage(resource.RUSAGE_SELF)
            seconds = int(used.ru_utime + used.ru_stime) + 1 + TIME_LIMIT_S
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))  # past it, SIGXCPU ends it
            try:
                ask()
            except EyesmithError:
                pass
            except Exception:
                wrong = wrong or traceback.format_exc()
        file.write_bytes(whole)
        growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        if growth > MAX_GROWTH_BYTES:
            wrong = f"memory grew by {growth:,} bytes"
        print(json.dumps(wrong), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
