import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eyesmith.errors import ConfigError
from eyesmith.hub import load
from eyesmith.lab import measure, run, work
from eyesmith.lab.cells import Cell
from eyesmith.lab.folder import CELLS, read_failure
from eyesmith.lab.place import Job, Place, PlaceConfig
from eyesmith.lab.plan import LabPlan, changed
from eyesmith.lab.plans import read_plan
from eyesmith.lab.run import Lab, results, run_lab


class Done(Job):
    def __init__(self, status: int) -> None:
        self._status = status

    def status(self) -> int | None:
        return self._status

    def stop(self) -> None:
        pass


class InThisProcess(Place):
    room = 1

    def __init__(self) -> None:
        self.ran: list[str] = []

    def start(self, folder: Path) -> Job:
        self.ran.append(folder.name)
        return Done(work.main(folder))


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> InThisProcess:
    found = InThisProcess()
    monkeypatch.setattr(run, "open_place", lambda config, out: found)
    monkeypatch.setattr(run, "_measured", lambda *_: ())
    return found


def test_a_plan_is_run_once_and_shares_its_cells(plan: LabPlan, tmp_path: Path, place: InThisProcess) -> None:
    plan = changed(plan, budgets=(8.0,))
    lab = Lab(plan=plan, out=tmp_path)
    first = lab.cells()[0]
    some = run_lab(lab, only=[first.id])
    assert place.ran == [first.id]
    assert [cell.id for cell in some.cells] == [first.id]
    assert len(some.missing) == 1
    whole = run_lab(lab)
    assert len(place.ran) == len(set(place.ran)) == 2
    assert len(whole.cells) == 2
    assert whole.missing == whole.failed == ()
    other = Lab(plan=replace(changed(plan, encoders=("TrV",)), name="other"), out=tmp_path)
    assert len(run_lab(other).cells) == 1
    assert len(place.ran) == 2  # all of them had been run
    assert results(lab).cells == whole.cells
    assert read_plan(str(lab.folder / "plan.json")) == plan


def test_an_unknown_cell_is_refused(plan: LabPlan, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no cell nonsense"):
        run_lab(Lab(plan=plan, out=tmp_path), only=["nonsense"])


def test_failed_cells_are_reported_and_tried_again(
    plan: LabPlan, tmp_path: Path, place: InThisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Lab(plan=changed(plan, budgets=(8.0,), encoders=("TrV",)), out=tmp_path)
    real = work.evaluate
    monkeypatch.setattr(work, "evaluate", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(work, "main", lambda folder, main=work.main: _status(main, folder))
    found = run_lab(small)
    assert len(found.failed) == 1
    assert "ZeroDivisionError" in found.failed[0].message
    assert run_lab(small, retry=False).failed == found.failed
    assert len(place.ran) == 1
    monkeypatch.setattr(work, "evaluate", real)
    assert len(run_lab(small).cells) == 1
    assert read_failure(tmp_path / CELLS / place.ran[0]) is None


def test_an_encoder_of_a_users_own_enters_the_grid(plan: LabPlan, tmp_path: Path, place: InThisProcess) -> None:
    file = str(Path(__file__).parents[2] / "docs" / "examples" / "patch_mixer.py")
    own = changed(plan, encoders=("patch_mixer",), budgets=(8.0,))
    (cell,) = run_lab(Lab(plan=own, out=tmp_path, encoder_files=(file,))).cells
    assert (cell.family, cell.size, cell.paper) == ("patch_mixer", "pico", "")
    assert cell.rows


def _status(main, folder: Path) -> int:
    try:
        return main(folder)
    except ZeroDivisionError:
        return 1


def test_cells_in_processes_of_their_own(plan: LabPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "REPEATS", 3)
    small = changed(plan, budgets=(8.0,), encoders=("TrV",))
    found = run_lab(Lab(plan=small, out=tmp_path, place=PlaceConfig(workers=1)))
    assert len(found.cells) == 1
    assert found.failed == ()
    (cost,) = found.measured
    assert cost.latency_low[32] <= cost.latency_ms[32] <= cost.latency_high[32]
    assert cost.parameters == found.cells[0].parameters


COMMAND = """
import sys
from pathlib import Path
from eyesmith.lab.place import PlaceConfig
from eyesmith.lab.plans import read_plan
from eyesmith.lab.run import Lab, run_lab
run_lab(Lab(plan=read_plan(sys.argv[1]), out=Path(sys.argv[2]), place=PlaceConfig(workers=2)))
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_as_if_nothing_had_been(plan: LabPlan, pairs: Path, tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(
        f'data = "{pairs}"\nimage_px = 32\nbatch_size = 4\nkeep = "all"\n[[groups]]\nname = "grid"\nquestion = "grid"\n'
        'encoders = ["ViTamin", "TrV"]\nsizes = ["pico"]\nbudgets = [400, 1600]\nseeds = [0]\nrecipes = ["lab-joint"]\n'
    )
    command = [sys.executable, "-c", COMMAND, str(file)]
    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    for wait_s in (9, 12, 15):
        process = subprocess.Popen([*command, str(tmp_path / "killed")])
        time.sleep(wait_s)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, str(tmp_path / "killed")], check=True)
    names = sorted(folder.name for folder in (tmp_path / "whole" / CELLS).iterdir())
    assert names == sorted(folder.name for folder in (tmp_path / "killed" / CELLS).iterdir())
    assert len(names) == 4
    for name in names:
        one, two = (load(tmp_path / which / CELLS / name / "run") for which in ("whole", "killed"))
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True)), name


def test_what_was_measured_elsewhere_is_measured_again(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {name: {"1": 1.0, "32": 2.0} for name in ("median", "low", "high")}
    asked = []

    def answered(command: list[str], **given: str) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, json.dumps({**times, "peak_mib": float(len(asked))}), "")

    monkeypatch.setattr(measure.subprocess, "run", answered)
    cell = cells[0]
    for machine, peak in (("here", 1.0), ("here", 1.0), ("there", 2.0)):
        monkeypatch.setattr(measure, "machine_facts", lambda machine=machine: {"processor": machine})
        assert measure.measured(cell.contender, cell.config.model, tmp_path).peak_mib == peak
