import os
import time
from pathlib import Path

import pytest

from eyesmith.errors import ConfigError
from eyesmith.lab import place
from eyesmith.lab.cells import Cell
from eyesmith.lab.folder import is_done, write_request
from eyesmith.lab.grid import run_grid
from eyesmith.lab.place import PlaceConfig, open_place, room_of
from eyesmith.lab.plan import LabPlan


def test_room_is_one_for_each_share_of_the_cores() -> None:
    cores = os.cpu_count() or 1
    assert room_of(PlaceConfig(workers=3)) == 3
    assert room_of(PlaceConfig(threads=cores + 1)) == 1


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="threads"):
        PlaceConfig(threads=0)


def test_slurm_without_slurm_says_so(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    with pytest.raises(ConfigError, match=r"place\.kind=slurm: .*place\.kind=local"):
        open_place(PlaceConfig(kind="slurm"), tmp_path)


@pytest.mark.slow
def test_a_scheduler_runs_the_same_cell(tmp_path: Path, plan: LabPlan, cells: list[Cell]) -> None:
    """submitit's own executor for one machine stands in for Slurm; what it hands over is the same."""
    pytest.importorskip("submitit")
    folder = tmp_path / cells[0].id
    folder.mkdir()
    write_request(folder, cells[0], plan, [])
    scheduler = place._Submitit(PlaceConfig(minutes=5), tmp_path / "jobs", cluster="local")
    assert run_grid([folder], scheduler).done == [folder.name]
    assert is_done(folder)


@pytest.mark.slow
def test_ray_runs_the_same_cell(tmp_path: Path, plan: LabPlan, cells: list[Cell]) -> None:
    pytest.importorskip("ray")
    folders = []
    for cell in cells[:2]:
        folders.append(tmp_path / cell.id)
        folders[-1].mkdir()
        write_request(folders[-1], cell, plan, [])
    here = open_place(PlaceConfig(kind="ray", workers=2), tmp_path)
    try:
        assert sorted(run_grid(folders, here).done) == sorted(folder.name for folder in folders)
    finally:
        here.close()


def test_a_cell_imports_nothing_of_the_folder_it_is_started_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark, here = tmp_path / "mark", tmp_path / "here"
    here.mkdir()
    for name in ("numpy", "torch", "ctypes", "json"):
        (here / f"{name}.py").write_text(f"import os\nos.makedirs({str(mark)!r}, exist_ok=True)\n")
    monkeypatch.chdir(here)
    job = open_place(PlaceConfig(workers=1), tmp_path).start(here)  # which asks for no cell
    while job.status() is None:
        time.sleep(0.05)
    assert "no cell of a lab" in (here / "error.txt").read_text()
    assert not mark.exists()
