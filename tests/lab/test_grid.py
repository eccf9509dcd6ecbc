from pathlib import Path

import pytest

from eyesmith.lab import grid
from eyesmith.lab.folder import read_failure, write_result
from eyesmith.lab.grid import GridState, run_grid
from eyesmith.lab.place import Job, Place
from eyesmith.lab.work import BUSY, STOPPED


class Scripted(Job):
    """Runs for two looks, then ends as it is told."""

    def __init__(self, end: int, on_end: "list[str]") -> None:
        self.end, self.looks, self.stopped, self.log = end, 0, False, on_end

    def status(self) -> int | None:
        self.looks += 1
        if self.stopped:
            return STOPPED
        return self.end if self.looks > 2 else None

    def stop(self) -> None:
        self.stopped = True
        self.log.append("stop")


class Here(Place):
    def __init__(self, ends: dict[str, list[int]], room: int = 2) -> None:
        self.ends, self.room, self.log = ends, room, []
        self.most = 0
        self.alive: list[Scripted] = []

    def start(self, folder: Path) -> Job:
        end = self.ends[folder.name].pop(0)
        if end == 0:
            write_result(folder, {}, [])
        self.log.append(folder.name)
        self.alive = [job for job in self.alive if job.looks <= 2]
        job = Scripted(end, self.log)
        self.alive.append(job)
        self.most = max(self.most, len(self.alive))
        return job


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "POLL_S", 0.0)


def folders(tmp_path: Path, names: str) -> list[Path]:
    found = [tmp_path / name for name in names]
    for folder in found:
        folder.mkdir()
    return found


def test_a_failure_stays_with_its_cell(tmp_path: Path) -> None:
    place = Here({"a": [0], "b": [-9], "c": [1], "d": [0], "e": [BUSY]})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "output.txt").write_text("one\nout of memory\n")
    state = run_grid([tmp_path / "b", *folders(tmp_path, "acde")], place)
    assert (state.done, state.failed, state.elsewhere) == (["a", "d"], ["b", "c"], ["e"])
    failure = read_failure(tmp_path / "b")
    assert failure is not None
    assert failure.message == "killed by signal 9; last line: out of memory"
    assert place.most == 2


def test_a_cell_that_was_stopped_is_run_again(tmp_path: Path) -> None:
    place = Here({"a": [STOPPED, 0]}, room=1)
    assert run_grid(folders(tmp_path, "a"), place).done == ["a"]


def test_ended_well_without_a_result_is_a_failure(tmp_path: Path) -> None:
    place = Here({"a": [0]})
    (folder,) = folders(tmp_path, "a")
    start = place.start

    def forgets(cell: Path) -> Job:
        job = start(cell)
        (cell / "result.json").unlink()
        return job

    place.start = forgets
    assert run_grid([folder], place).failed == ["a"]


def test_ctrl_c_tells_running_cells_and_waits_for_them(tmp_path: Path) -> None:
    place = Here({"a": [0], "b": [0], "c": [0]})

    def interrupt(state: GridState) -> None:
        if len(state.running) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_grid(folders(tmp_path, "abc"), place, on_change=interrupt)
    assert place.log.count("stop") == 2
    assert "c" not in place.log
