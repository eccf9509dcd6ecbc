import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eyesmith.eval import evaluate
from eyesmith.hub import load
from eyesmith.lab import work
from eyesmith.lab.cells import Cell
from eyesmith.lab.folder import read_failure, read_result, write_request
from eyesmith.lab.plan import LabPlan, changed
from eyesmith.models.clip import Clip
from eyesmith.runs.train import start


def test_a_cell_is_the_run_that_it_names(tmp_path: Path, plan: LabPlan, cells: list[Cell]) -> None:
    cell, folder = cells[0], tmp_path / "cell"
    folder.mkdir()
    write_request(folder, cell, changed(plan, keep="all"), [])
    assert work.main(folder) == 0
    found = read_result(folder, cell)
    start(cell.config, tmp_path / "alone")
    alone, ours = load(tmp_path / "alone"), load(folder / "run")
    assert isinstance(alone, Clip)
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), ours.parameters(), strict=True))
    expected = {(row.task, row.metric): row.value for row in evaluate(alone, plan.data)}
    assert {(row.task, row.metric): row.value for row in found.rows} == expected
    assert found.parameters == sum(p.numel() for p in alone.image.parameters())
    losses = [json.loads(line).get("loss") for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert found.loss == [loss for loss in losses if loss is not None][-1]
    assert not (folder / "run" / "state").exists()


def test_a_finished_cell_is_not_run_again(
    tmp_path: Path, plan: LabPlan, cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_request(tmp_path, cells[0], plan, [])
    assert work.main(tmp_path) == 0
    assert not (tmp_path / "run" / "model.safetensors").exists()  # measured, not of the largest budget
    monkeypatch.setattr(work, "start_or_resume", lambda *_, **__: pytest.fail("ran again"))
    assert work.main(tmp_path) == 0


def test_a_failing_cell_leaves_its_message(tmp_path: Path, plan: LabPlan, cells: list[Cell]) -> None:
    broken = replace(cells[0], config=replace(cells[0].config, data=replace(cells[0].config.data, path="nowhere")))
    write_request(tmp_path, broken, plan, [])
    assert work.main(tmp_path) == 1
    failure = read_failure(tmp_path)
    assert failure is not None
    assert "nowhere" in failure.message
