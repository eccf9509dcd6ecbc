from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from eyesmith.lab import budget
from eyesmith.lab.budget import samples_of, train_flops
from eyesmith.lab.cells import Cell
from eyesmith.lab.plan import LabPlan, changed

END_OF_TEXT = 49407


def test_operations_are_those_of_a_training_step(cells: list[Cell]) -> None:
    clip = cells[0].config.model.build()
    with FlopCounterMode(display=False) as counter:
        image = clip.image(torch.rand(1, 3, 32, 32))
        text = clip.text(torch.tensor([[*range(1, 77), END_OF_TEXT]]))  # of full length
        (image.sum() + text.sum()).backward()
    # pixels and token ids need no gradient, so the counter sees a little less than three passes
    assert counter.get_total_flops() == pytest.approx(train_flops(cells[0].config), rel=0.05)


def test_a_budget_of_operations(plan: LabPlan, cells: list[Cell], tmp_path: Path) -> None:
    buys = samples_of(changed(plan, budget_unit="tflop"), tmp_path, threads=1)
    assert buys(cells[0].config, 2.0) == round(2e12 / train_flops(cells[0].config))


def test_a_budget_of_seconds_is_measured_once(
    plan: LabPlan, cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Steady:
        def __init__(self, config: object, *, steps: int) -> None:
            built.append(config)

        def step_s(self) -> float:
            return 0.5

    built: list[object] = []
    monkeypatch.setattr(budget, "Trial", Steady)
    seconds = changed(plan, budget_unit="seconds")
    for _ in range(2):  # the second time from the file
        buys = samples_of(seconds, tmp_path, threads=1)
        assert buys(cells[0].config, 100.0) == 100 / 0.5 * 4
        assert buys(cells[2].config, 50.0) == 50 / 0.5 * 4
    assert len(built) == 1
