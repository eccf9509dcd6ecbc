"""The files under clusters/, with stand-ins for the programs of a cluster; the slow test starts real processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
CLUSTERS = ROOT / "clusters"


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, str]:
    """An environment where torchrun, srun and scontrol write down how they were called; `srun` runs its command."""
    folder = tmp_path / "bin"
    folder.mkdir()
    record = 'printf "%s\\n" "$(basename "$0") $*" >> "$CALLS"\n'
    bodies = {
        "torchrun": record + 'trap "exit 7" TERM\nfor _ in $(seq "${WORK:-0}"); do sleep 0.1; done\n',
        "srun": record + "shift\n\"$@\" &\nwork=$!\ntrap 'kill -TERM $work' TERM\nwait $work\nwait $work\n",
        "scontrol": record + 'if [ "$1" = show ]; then printf "node-a\\nnode-b\\n"; fi\n',
    }
    for name, body in bodies.items():
        (folder / name).write_text("#!/usr/bin/env bash\n" + body)
        (folder / name).chmod(0o755)
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("MASTER_", "NODES", "SLURM_"))}
    return keep | {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"), "WORK": "0"}


def calls(environment: dict[str, str]) -> list[str]:
    return Path(environment["CALLS"]).read_text().splitlines()


def test_one_machine_needs_nothing_but_the_command(programs: dict[str, str]) -> None:
    subprocess.run([CLUSTERS / "torchrun.sh", "train", "debug", "epochs=1"], env=programs, check=True)
    assert calls(programs) == [
        "torchrun --standalone --nproc-per-node gpu --max-restarts 3 -m eyesmith.cli.main train debug epochs=1"
    ]


def test_several_machines_meet_at_the_first(programs: dict[str, str]) -> None:
    settings = {"NODES": "2", "MASTER_ADDR": "node-a", "MASTER_PORT": "21000", "RUN_ID": "7", "PROCESSES": "4"}
    subprocess.run([CLUSTERS / "torchrun.sh", "resume", "runs/x"], env=programs | settings, check=True)
    (call,) = calls(programs)
    assert "--nnodes 2 --rdzv-backend c10d --rdzv-endpoint node-a:21000 --rdzv-id 7 --nproc-per-node 4" in call
    assert call.endswith("-m eyesmith.cli.main resume runs/x")


def test_several_machines_without_a_first_one_are_refused(programs: dict[str, str]) -> None:
    done = subprocess.run([CLUSTERS / "torchrun.sh"], env=programs | {"NODES": "2"}, capture_output=True, text=True)
    assert done.returncode != 0
    assert "set MASTER_ADDR" in done.stderr


def slurm(programs: dict[str, str], place: Path, *words: str, stderr: int | None = None) -> subprocess.Popen[str]:
    settings = {"SLURM_NNODES": "2", "SLURM_JOB_ID": "40001", "SLURM_JOB_NODELIST": "node-[a-b]"}
    settings["SLURM_SUBMIT_DIR"] = str(ROOT)
    command = ["bash", CLUSTERS / "slurm.sbatch", *words]
    return subprocess.Popen(command, cwd=place, env=programs | settings, stderr=stderr, text=True)


def test_a_slurm_job_starts_a_run_and_then_goes_on_with_it(programs: dict[str, str], tmp_path: Path) -> None:
    assert slurm(programs, tmp_path, "debug", "run", "epochs=1").wait() == 0
    last = calls(programs)[-1]
    assert "--nnodes 2" in last
    assert "--rdzv-endpoint node-a:20001 --rdzv-id 40001" in last
    assert last.endswith("eyesmith.cli.main train debug --out run epochs=1")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    assert slurm(programs, tmp_path, "debug", "run", "epochs=1").wait() == 0
    assert calls(programs)[-1].endswith("eyesmith.cli.main resume run")
    assert not any("requeue" in call for call in calls(programs))


def test_a_slurm_job_that_runs_out_of_time_queues_itself_again(programs: dict[str, str], tmp_path: Path) -> None:
    job = slurm(programs | {"WORK": "600"}, tmp_path, "debug", "run")
    deadline = time.monotonic() + 60
    while not (Path(programs["CALLS"]).exists() and "torchrun" in Path(programs["CALLS"]).read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)
    job.terminate()
    assert job.wait(60) == 7  # what the processes ended with
    assert calls(programs)[-1] == "scontrol requeue 40001"


@pytest.mark.parametrize("fault", ["at once", "after a state", "without a new one", "in what comes after the model"])
def test_a_slurm_job_that_fails_is_repeated_while_it_gets_further(
    programs: dict[str, str], tmp_path: Path, fault: str
) -> None:
    """As when a machine is lost; a mistake in the command, or a step that fails each time, is not."""
    states = tmp_path / "run" / "state"
    states.mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text("{}")
    (states / "step-00000099.pt").touch()
    does = {
        "after a state": f"touch {states}/step-00000100.pt",
        "without a new one": f"touch {states}/step-00000099.pt",
    }
    does["in what comes after the model"] = f"touch {states}/step-00000100.pt {tmp_path}/run/model.safetensors"
    torchrun = Path(programs["PATH"].partition(":")[0]) / "torchrun"
    torchrun.write_text(f"#!/usr/bin/env bash\n{does.get(fault, '')}\nexit 3\n")
    assert slurm(programs, tmp_path, "debug", "run").wait() == 3
    assert any("requeue" in call for call in calls(programs)) == (fault == "after a state")


def test_a_slurm_job_without_a_recipe_says_how_it_is_called(programs: dict[str, str], tmp_path: Path) -> None:
    job = slurm(programs, tmp_path, stderr=subprocess.PIPE)
    _, err = job.communicate()
    assert job.returncode != 0
    assert "usage: sbatch" in err


def test_the_container_copies_what_is_there_and_starts_what_it_copied() -> None:
    lines = (CLUSTERS / "Containerfile").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY "):
            *sources, _ = line.split()[1:]
            assert all((ROOT / source).exists() for source in sources), line
    (entry,) = (json.loads(line.partition(" ")[2]) for line in lines if line.startswith("ENTRYPOINT"))
    script = ROOT / entry[0].removeprefix("/opt/eyesmith/")
    assert os.access(script, os.X_OK)
    (extra,) = re.findall(r"pip install .*\[(\w+)\]", "\n".join(lines))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extra in project["optional-dependencies"]
    version = next(line for line in lines if line.startswith("FROM ")).partition(":")[2].partition("-")[0]
    assert float(version) >= float(project["requires-python"].lstrip(">="))
    assert {"pyproject.toml", project["readme"]} <= {word for line in lines for word in line.split()}


def _real(tmp_path: Path, *words: str) -> subprocess.Popen[bytes]:
    for color in ("red", "green", "blue"):
        for number in range(4):
            path = tmp_path / "discs" / color / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (48, 48), color).save(path)
    words = ("train", "debug", "--out", "run", "data.path=discs", "data.split=None", "batch_size=4", *words)
    words += ("eval.splits=", "eval.curve_splits=")
    environment = os.environ | {"PROCESSES": "2", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.Popen([CLUSTERS / "torchrun.sh", *words], cwd=tmp_path, env=environment)


def _log(tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "run" / "log.jsonl"
    text = path.read_text() if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.slow
def test_two_real_processes_train_one_run(tmp_path: Path) -> None:
    assert _real(tmp_path, "epochs=1").wait(timeout=600) == 0
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert [line["step"] for line in _log(tmp_path) if "loss" in line] == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes by Linux's /proc")
def test_a_run_whose_process_died_comes_back_without_a_person(tmp_path: Path) -> None:
    job = _real(tmp_path, "epochs=8", "save_every_steps=4")
    deadline = time.monotonic() + 300
    while not any(line.get("step", 0) >= 6 for line in _log(tmp_path)):
        assert job.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    try:
        assert job.wait(timeout=200) == 0
    finally:
        job.terminate()
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert [line["step"] for line in _log(tmp_path) if "loss" in line] == list(range(1, 25))
    (again,) = (line for line in _log(tmp_path) if line.get("event") == "resume")
    assert again["step"] in (4, 8, 12, 16, 20)
