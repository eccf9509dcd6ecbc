"""Tasks from a user's file: what the examples of the docs give, what is refused, what an edited file does."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from eyesmith.errors import ConfigError
from eyesmith.eval import Settings, evaluate_suite
from eyesmith.eval.kinds.registry import KINDS
from eyesmith.eval.results import compare_folders, read_results
from eyesmith.eval.sets.file import register_task_file
from eyesmith.eval.sets.registry import TASKS
from eyesmith.models.clip import Clip

TASK = "from eyesmith.eval.sets import Task\nTASK = Task("
EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """What the tests register ends with them."""
    tasks, kinds = dict(TASKS), dict(KINDS)
    yield
    TASKS.clear()
    TASKS.update(tasks)
    KINDS.clear()
    KINDS.update(kinds)


def birds(folder: Path) -> None:
    for name, colour in (("owl_01", "red"), ("owl_02", "blue"), ("tit_01", "green"), ("tit_02", "grey")):
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), colour).save(folder / f"{name}.png")


def test_a_set_of_ones_own_in_a_few_lines(clip: Clip, tmp_path: Path) -> None:
    file = EXAMPLES / "birds_task.py"
    assert len([line for line in file.read_text().splitlines() if line.strip()]) <= 15
    birds(tmp_path / "birds")
    (task,) = register_task_file(file)
    (result,) = evaluate_suite(clip, [task], tmp_path, out=tmp_path / "out")
    assert result.problem == ""
    assert result.key == "mine/birds"
    assert result.main_metric == result.metrics["mean_per_class_recall"]
    assert {row.task for row in result.rows} == {"mine/birds"}
    assert result.rows[0].n == 4


def test_a_kind_of_ones_own_has_files_lines_and_comparisons(clip: Clip, miniatures: Path, tmp_path: Path) -> None:
    file = EXAMPLES / "confidence_kind.py"
    assert len([line for line in file.read_text().splitlines() if line.strip()]) <= 45
    (task,) = register_task_file(file)
    for side in "ab":
        (result,) = evaluate_suite(clip, [task], miniatures, out=tmp_path / side)
        assert result.problem == ""
    (row,) = result.rows
    assert (row.metric, row.value) == ("acc_margin", result.main_metric)
    assert row.low is not None
    assert row.low <= row.value
    (compared,) = compare_folders(tmp_path / "a", tmp_path / "b").tasks
    assert (compared.metric, compared.result.difference.value) == ("acc_margin", 0.0)


def test_results_are_read_without_running_anything(clip: Clip, tmp_path: Path) -> None:
    birds(tmp_path / "birds")
    (task,) = register_task_file(EXAMPLES / "birds_task.py")
    evaluate_suite(clip, [task], tmp_path, out=tmp_path / "out")
    del TASKS["mine/birds"]
    (model,) = read_results([tmp_path / "out"])
    assert "mine/birds" in model.records
    assert "mine/birds" not in TASKS


def test_an_edited_file_is_run_again_and_its_task_measured_again(clip: Clip, tmp_path: Path) -> None:
    birds(tmp_path / "birds")
    file, told = tmp_path / "task.py", list[str]()
    file.write_text((EXAMPLES / "birds_task.py").read_text())
    evaluate_suite(clip, register_task_file(file), tmp_path, out=tmp_path / "out")
    file.write_text(file.read_text() + "\n# another line\n")
    evaluate_suite(clip, register_task_file(file), tmp_path, out=tmp_path / "out", settings=Settings(note=told.append))
    assert any("since it was measured, code changed" in line for line in told)
    lines = (tmp_path / "out" / "eval_results.jsonl").read_text().splitlines()
    assert len({json.loads(line)["run"]["code"] for line in lines}) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1", "expected TASK"),
        ("x = ", "line 1: invalid syntax"),
        ("import math\nmath.nothing", "line 2: AttributeError"),
        (f"{TASK}key='cars', name='A', size=None, folder='a')", "already"),
        (f"{TASK}key='a', name='A', size=None, folder='a', kind='b')", "kind 'b'"),
        (f"KIND = 3\n{TASK}key='a', name='A', size=None, folder='a')", "Kind"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "task.py"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        register_task_file(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        register_task_file(tmp_path / "other.py")
