"""What several processes tell each other, and how long they wait: real processes over gloo."""

import sys
from datetime import timedelta

import pytest
import torch
from test_sharding import start_processes

from eyesmith.train import World, distributed

LIMITS = """
import os, sys, time, torch
from datetime import timedelta
from eyesmith.train import distributed
distributed.STEP_TIMEOUT = timedelta(seconds=1)
with distributed.joined() as world:
    # the others wait for a first process that measures for longer than a step may take
    assert world.once(lambda: (time.sleep(2), "measured")[1]) == "measured"
    try:
        world.once(lambda: 1 / 0)
        raise SystemExit("no error")
    except ZeroDivisionError:
        pass
    assert world.any(world.rank == 1) and not world.any(False)
    assert world.fewest(5 - world.rank) == 4
    assert world.total(torch.tensor(2.0)).item() == 4
    if world.rank == 1:
        time.sleep(2)
        world.wait()
    else:
        world.wait()
    if world.is_first:  # is dead, or as good as
        time.sleep(4)
        os._exit(0)
    try:
        world.total(torch.tensor(1.0))
    except RuntimeError:
        os._exit(7)
    os._exit(1)
"""


LEFT = """
from pathlib import Path
from eyesmith.train import distributed
with distributed.joined() as world:
    world.wait()
names = {file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")}
assert world.patient is None  # nobody could wait on it any more
raise SystemExit(", ".join(name for name in names if "gloo" in name or "store" in name) or 0)
"""


def ended(script: str) -> list[int]:
    """Exit statuses of two processes that run a script."""
    processes = start_processes(["-c", script], 2)
    try:
        return [process.wait(timeout=100) for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="threads by name are Linux's")
def test_no_thread_of_an_exchange_outlives_it() -> None:
    """One that was still tidying up when Python ended aborted the process, whose work was done."""
    assert ended(LEFT) == [0, 0]


def test_a_dead_peer_is_noticed_and_a_long_measurement_waited_for() -> None:
    assert ended(LIMITS) == [0, 7]


def test_limits_are_minutes_in_a_step_and_hours_beside_it() -> None:
    assert timedelta(minutes=2) < distributed.STEP_TIMEOUT < timedelta(minutes=30)
    assert timedelta(hours=12) <= distributed.LONG_TIMEOUT


def test_one_process_asks_nobody() -> None:
    world = World()
    assert world.any(True)
    assert not world.any(False)
    assert world.fewest(3) == 3
    assert world.total(torch.tensor(2.0)).item() == 2
    with pytest.raises(ZeroDivisionError):
        world.once(lambda: 1 / 0)
