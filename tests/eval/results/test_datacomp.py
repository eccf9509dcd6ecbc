"""`eval_results.jsonl` in the reference's form: written so that its scripts read it, read as it stands."""

import json
from pathlib import Path

import pytest

from eyesmith.errors import DataError
from eyesmith.eval.results import append_eval_result, read_eval_results, read_info, read_result_folder, write_info
from eyesmith.eval.sets import SUITES


def test_a_line_has_the_references_form(tmp_path: Path) -> None:
    path = tmp_path / "eval_results.jsonl"
    append_eval_result(path, key="vtab/pcam", name="PatchCamelyon", metrics={"acc1": 0.5, "acc5": None}, main=0.5)
    append_eval_result(
        path, key="fairness/fairface", name="FairFace", metrics={"acc_race_avg": float("nan")}, main=None
    )
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {
            "key": "vtab/pcam",
            "dataset": "PatchCamelyon",
            "metrics": {"acc1": 0.5, "acc5": None, "main_metric": 0.5},
        },
        {"key": "fairness/fairface", "dataset": "FairFace", "metrics": {"acc_race_avg": None, "main_metric": None}},
    ]


def test_the_references_aggregator_finds_its_38_values(tmp_path: Path) -> None:
    """Its script reads `dataset` and `metrics.main_metric` only, and wants 38 that are not null."""
    path = tmp_path / "eval_results.jsonl"
    for place, task in enumerate(SUITES["datacomp"].tasks):
        main = None if task.metric is None else place / 100
        append_eval_result(path, key=task.key, name=task.name, metrics={str(task.metric): main}, main=main)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = {line["dataset"]: line["metrics"]["main_metric"] for line in lines}
    assert len([value for value in found.values() if value is not None]) == 38
    records = read_eval_results(path)
    assert list(records) == list(SUITES["datacomp"].keys)
    assert records["vtab/dtd"].main_metric == "acc1"
    assert records["fairness/fairface"].main_metric is None


def test_a_half_line_of_a_killed_writer_is_left_out_and_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "eval_results.jsonl"
    append_eval_result(path, key="cifar10", name="CIFAR-10", metrics={"acc1": 0.9}, main=0.9)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:30])
    assert list(read_eval_results(path)) == ["cifar10"]
    append_eval_result(path, key="mnist", name="MNIST", metrics={"acc1": 0.8}, main=0.8)
    assert path.read_bytes().startswith(whole)
    assert list(read_eval_results(path)) == ["cifar10", "mnist"]
    path.write_bytes(path.read_bytes().rstrip(b"\n"))  # edited by hand: whole, without its newline
    append_eval_result(path, key="cars", name="Stanford Cars", metrics={"acc1": 0.7}, main=0.7)
    assert list(read_eval_results(path)) == ["cifar10", "mnist", "cars"]


def test_of_a_key_that_comes_twice_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "eval_results.jsonl"
    for value in (0.1, 0.2):
        append_eval_result(path, key="cifar10", name="CIFAR-10", metrics={"acc1": value}, main=value)
    assert read_eval_results(path)["cifar10"].main == 0.2


def test_a_line_without_key_is_found_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "eval_results.jsonl"
    path.write_text('{"dataset": "FMoW", "metrics": {"acc_worst_region": 0.25, "main_metric": 0.25}}\n')
    assert read_eval_results(path)["wilds/fmow"].main == 0.25


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"key": "a"}\n', "line 1: expected an object with key, dataset and metrics"),
        ("nonsense\n{}\n", "line 1 is no JSON object"),
        ('{"dataset": "MNIST", "metrics": {"acc1": 0.5, "main_metric": true}}\n', None),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: str, message: str | None) -> None:
    path = tmp_path / "eval_results.jsonl"
    path.write_text(content)
    if message is None:
        assert read_eval_results(path)["mnist"].main is None
        return
    with pytest.raises(DataError, match=message):
        read_eval_results(path)


def test_the_model_is_named_by_info_or_by_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    append_eval_result(folder / "eval_results.jsonl", key="mnist", name="MNIST", metrics={"acc1": 0.5}, main=0.5)
    assert read_result_folder(folder).model == "my-model"
    write_info(folder, model="ViTamin-S", pretrained="mine", image_gmacs=5.5, samples_b=1.28)
    named = read_result_folder(folder)
    assert named.full_name == "ViTamin-S mine"
    assert named.facts == {"image_gmacs": 5.5, "samples_b": 1.28}
    with pytest.raises(DataError, match="unknown fact 'gigamacs'"):
        write_info(folder, model="x", gigamacs=3)
    (folder / "info.json").write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        read_info(folder)
