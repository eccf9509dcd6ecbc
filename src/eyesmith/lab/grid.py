"""Running many cells: a few at a time, each apart from the others, none of them twice."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eyesmith.lab.folder import is_done, read_failure, write_failure
from eyesmith.lab.place import OUTPUT_FILE, STOP_S, Job, Place
from eyesmith.lab.work import BUSY, STOPPED

POLL_S = 0.2
OnChange = Callable[["GridState"], None]


@dataclass
class GridState:
    """Cells by id: waiting, running, finished in this call, failed in it, and left to another process."""

    waiting: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


def run_grid(folders: Sequence[Path], place: Place, *, on_change: OnChange = lambda state: None) -> GridState:
    """Run the cells asked for in `folders`, in that order, as many at a time as `place` has room for.

    A cell that fails leaves its message in its folder and stops no other; one that another process works on is left to
    it. On Ctrl-C the running ones are told to save their state, and KeyboardInterrupt is raised when they have ended.
    """
    state = GridState(waiting=[folder.name for folder in folders])
    by_id = {folder.name: folder for folder in folders}
    jobs: dict[str, Job] = {}
    try:
        while state.waiting or jobs:
            while state.waiting and len(jobs) < place.room:
                cell = state.waiting.pop(0)
                jobs[cell] = place.start(by_id[cell])
                state.running.append(cell)
                on_change(state)
            for cell, job in list(jobs.items()):
                if (status := job.status()) is None:
                    continue
                del jobs[cell]
                state.running.remove(cell)
                _file(state, by_id[cell], status)
                on_change(state)
            time.sleep(POLL_S)
    finally:
        _end(jobs)
    return state


def _file(state: GridState, folder: Path, status: int) -> None:
    if status == BUSY:
        state.elsewhere.append(folder.name)
    elif status == 0 and is_done(folder):
        state.done.append(folder.name)
    elif status == STOPPED:
        state.waiting.append(folder.name)
    else:
        state.failed.append(folder.name)
        if read_failure(folder) is None:  # killed, so it could say nothing itself
            write_failure(folder, _last_words(folder, status))


def _last_words(folder: Path, status: int) -> str:
    output = folder / OUTPUT_FILE
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines() if output.is_file() else []
    how = f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return f"{how}; last line: {lines[-1] if lines else 'none'}"


def _end(jobs: dict[str, Job]) -> None:
    """Stop what still runs and wait until it has saved its state."""
    for job in jobs.values():
        job.stop()
    until = time.monotonic() + STOP_S
    while any(job.status() is None for job in jobs.values()) and time.monotonic() < until:
        time.sleep(POLL_S)
