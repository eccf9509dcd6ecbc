import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from eyesmith.config import to_dict
from eyesmith.errors import ConfigError
from eyesmith.lab import budget
from eyesmith.lab.budget import samples_of, train_flops
from eyesmith.lab.cells import Cell
from eyesmith.lab.plan import LabPlan, changed
from eyesmith.tasks.caption import CaptionTaskConfig
from eyesmith.tasks.contrastive import TrainConfig

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


def test_operations_that_are_not_counted_are_no_budget(cells: list[Cell]) -> None:
    config = cells[0].config
    told = CaptionTaskConfig(**{name: getattr(config, name) for name in TrainConfig.__dataclass_fields__})
    with pytest.raises(ConfigError, match="of CaptionTaskConfig are not counted; take samples or seconds"):
        train_flops(told)


def test_a_budget_of_seconds_is_measured_once(
    plan: LabPlan, cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Steady:
        samples_per_step = 4.0

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


def test_a_rate_is_of_one_batch_size_recipe_and_number_of_threads(
    plan: LabPlan, cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AsLargeAsItsBatch:
        def __init__(self, config: TrainConfig, *, steps: int) -> None:
            self._config = config
            self.samples_per_step = float(config.batch_size)

        def step_s(self) -> float:
            slow = 2 if self._config.optim.name == "muon" else 1
            return slow * self._config.batch_size / 100 / torch.get_num_threads()

    monkeypatch.setattr(budget, "Trial", AsLargeAsItsBatch)
    seconds, config = changed(plan, budget_unit="seconds"), cells[0].config
    slower = replace(config, optim=replace(config.optim, name="muon"))
    images = [
        samples_of(seconds, tmp_path, threads=threads)(one, 10.0)
        for one, threads in ((config, 1), (replace(config, batch_size=8), 1), (slower, 1), (config, 2))
    ]
    assert images == [1000, 1000, 500, 2000]


def test_rates_of_a_version_before_are_kept(plan: LabPlan, cells: list[Cell], tmp_path: Path) -> None:
    config = cells[0].config
    (tmp_path / "rates.json").write_text(json.dumps({json.dumps(to_dict(config.model), sort_keys=True): 0.5}))
    assert samples_of(changed(plan, budget_unit="seconds"), tmp_path, threads=1)(config, 100.0) == 100 / 0.5 * 4


def test_a_rate_is_of_images_where_steps_have_fewer_than_a_batch(
    plan: LabPlan, cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OfHalfABatch:
        samples_per_step = 2.0

        def __init__(self, config: TrainConfig, *, steps: int) -> None:
            assert config.batch_size == 4

        def step_s(self) -> float:
            return 0.5

    monkeypatch.setattr(budget, "Trial", OfHalfABatch)
    assert samples_of(changed(plan, budget_unit="seconds"), tmp_path, threads=1)(cells[0].config, 100.0) == 400
