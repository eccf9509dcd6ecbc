from dataclasses import replace
from pathlib import Path

import pytest

from eyesmith.errors import ConfigError, DataError
from eyesmith.lab.cells import Cell, cells_of, data_facts, data_of, samples_as_stated
from eyesmith.lab.plan import LabPlan, changed
from eyesmith.lab.plans import read_plan
from eyesmith.models.vitamin.model import ViTaminConfig


def of(plan: LabPlan) -> list[Cell]:
    return cells_of(plan, data_facts(data_of(plan)), samples_as_stated)


def test_cells_are_the_product_and_train_what_they_say(plan: LabPlan, cells: list[Cell]) -> None:
    assert [(cell.contender.encoder, cell.budget) for cell in cells] == [
        ("ViTamin", 8.0),
        ("TrV", 8.0),
        ("ViTamin", 16.0),
        ("TrV", 16.0),
    ]
    cell = cells[2]
    assert (cell.steps, cell.samples, cell.level) == (4, 16, 1)
    run = cell.config
    assert isinstance(run.model.image, ViTaminConfig)
    assert run.model.image.widths == (16, 32, 96)
    assert run.model.image.image_size == run.model.preprocess.image_size == (32, 32)
    assert run.model.image.embed_dim == run.model.text.embed_dim
    assert run.epochs * (16 // 4) == cell.steps  # 16 samples, 4 a step
    assert (run.data.path, run.batch_size, run.seed, run.eval.splits) == (plan.data, 4, 0, ())


def test_a_cell_of_two_groups_is_run_once(plan: LabPlan) -> None:
    again = replace(plan.groups[0], name="again", question="hybrid", budgets=(16.0,))
    cells = of(replace(plan, groups=(*plan.groups, again)))
    assert len(cells) == 4
    assert [cell.groups for cell in cells] == [("grid",), ("grid",), ("grid", "again"), ("grid", "again")]


def test_names_differ_where_runs_differ(plan: LabPlan, cells: list[Cell]) -> None:
    assert {cell.id for cell in of(plan)} == {cell.id for cell in cells}  # and stay the same
    others = [
        changed(plan, seeds=(1,)),
        changed(plan, image_px=64),
        changed(plan, batch_size=8),
        changed(plan, eval_data="elsewhere"),
    ]
    names = [cell.id for other in (plan, *others) for cell in of(other)]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() and "/" not in name for name in names)


def test_the_order_gives_a_whole_picture_early(plan: LabPlan) -> None:
    cells = of(changed(plan, seeds=(1, 0)))
    assert [(cell.seed, cell.budget) for cell in cells] == sorted((cell.seed, cell.budget) for cell in cells)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoders": ("ViTamim",)}, "did you mean ViTamin"),
        ({"sizes": ("picco",)}, "did you mean pico"),
        ({"recipes": ("lab-lt",)}, "lab-ltt"),
        ({"recipes": ("mim-nano",)}, "runs that train with text"),
        ({"batch_size": 32}, "has 16 samples to train on, fewer than 32"),
    ],
)
def test_a_wrong_plan_is_refused_before_anything_runs(plan: LabPlan, change: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        of(changed(plan, **change))


def test_missing_data_is_said(plan: LabPlan) -> None:
    with pytest.raises(DataError):
        of(changed(plan, data="nowhere"))


@pytest.mark.parametrize("content", ["null", "[]", '"plan"', "7", "{", "[" * 5000])
def test_a_plan_file_that_holds_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(ConfigError, match="plan.json"):
        read_plan(str(tmp_path / "plan.json"))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_plan(str(tmp_path / "none.json"))
