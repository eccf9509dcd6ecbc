"""One reader for every kind of result file, and for folders that hold several."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from eyesmith.errors import DataError
from eyesmith.eval.results import append_eval_result, read_result, read_results, write_info, write_run
from eyesmith.eval.results.rows import ResultRow, append_rows
from eyesmith.eval.sets import SUITES


def row(task: str = "cifar10", metric: str = "acc1", value: float = 0.5, *, split: str = "test", model: str = "m"):
    return ResultRow(
        model=model,
        task=task,
        split=split,
        metric=metric,
        value=value,
        low=value - 0.1,
        high=value + 0.1,
        n=100,
        chance=0.1,
    )


def test_our_own_lines_of_tasks_and_of_a_users_set(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_rows(
        path, [row(), row("zero_shot", "acc1", 0.3, split="unseen"), row("zero_shot", "acc5", 0.7, split="unseen")]
    )
    (model,) = read_result(path)
    assert model.records["cifar10"].low == 0.4
    own = model.records["zero_shot/unseen"]
    assert (own.main_metric, own.main, own.metrics) == ("acc1", 0.3, {"acc1": 0.3, "acc5": 0.7})


def test_a_folder_joins_what_its_files_say_of_one_model(tmp_path: Path) -> None:
    append_rows(tmp_path / "results.jsonl", [row(model="ViTamin-S")])
    append_eval_result(
        tmp_path / "eval_results.jsonl", key="cifar10", name="CIFAR-10", metrics={"acc1": 0.5, "acc5": 0.9}, main=0.5
    )
    append_eval_result(tmp_path / "eval_results.jsonl", key="mnist", name="MNIST", metrics={"acc1": 0.7}, main=0.7)
    (tmp_path / "config.json").write_text(json.dumps({"kind": "another file"}))
    (model,) = read_result(tmp_path)
    assert model.model == "ViTamin-S"  # results.jsonl names it, the folder does not
    assert model.records["cifar10"].high == 0.6
    assert model.records["cifar10"].metrics == {"acc1": 0.5, "acc5": 0.9}
    assert model.main_values(SUITES["datacomp"]) == {"cifar10": 0.5, "mnist": 0.7}


def test_eva02s_suite_takes_top1_and_never_another_metric(tmp_path: Path) -> None:
    metrics = {"acc1": 0.8, "mean_per_class_recall": 0.9}
    append_eval_result(
        tmp_path / "eval_results.jsonl", key="vtab/caltech101", name="Caltech-101", metrics=metrics, main=0.9
    )
    append_rows(tmp_path / "results.jsonl", [row("vtab/pets", "mean_per_class_recall", 0.7)])
    (model,) = read_result(tmp_path)
    assert model.main_values(SUITES["eva02"]) == {"vtab/caltech101": 0.8, "vtab/pets": None}
    assert model.main_values(SUITES["datacomp"]) == {"vtab/caltech101": 0.9, "vtab/pets": 0.7}


def test_many_files_of_several_models(tmp_path: Path) -> None:
    one = write_run(
        tmp_path, dataset="cifar10", model="a", pretrained="x", task="zeroshot_classification", metrics={"acc1": 0.1}
    )
    two = write_run(
        tmp_path, dataset="mnist", model="a", pretrained="x", task="zeroshot_classification", metrics={"acc1": 0.2}
    )
    folder = tmp_path / "b"
    append_eval_result(folder / "eval_results.jsonl", key="mnist", name="MNIST", metrics={"acc1": 0.7}, main=0.7)
    write_info(folder, model="b", pretrained="y", image_gmacs=3.0)
    models = read_results([one, two, folder])
    assert [model.full_name for model in models] == ["a x", "b y"]
    assert models[0].main_values(SUITES["datacomp"]) == {"cifar10": 0.1, "mnist": 0.2}
    assert models[1].facts == {"image_gmacs": 3.0}
    assert [model.full_name for model in read_result(tmp_path)] == ["a x"]  # a folder is read without those below it


@pytest.mark.parametrize("name", ["nothing.jsonl", "folder", "x.pkl", "empty.jsonl"])
def test_what_holds_no_result_says_what_would(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "x.pkl").write_bytes(b"\x80")
    (tmp_path / "empty.jsonl").write_bytes(b"")
    with pytest.raises(DataError, match=r"no such result file|holds no result file|expected eval_results|is empty"):
        read_result(tmp_path / name)


def test_one_model_used_in_several_ways_keeps_the_numbers_apart(tmp_path: Path) -> None:
    run = {"weights": "w", "precision": "fp32"}
    used = {"X detector": ("detect", 0.1), "X dense": ("detect", 0.2), "X crop": ("detect", 0.3)}
    used |= {"X": ("chat", 0.4), "X wrong-image": ("chat", 0.5)}
    folders = [tmp_path / name for name in "ab"]  # the second says half of it
    for folder, names in zip(folders, (list(used), ["X crop", "X"]), strict=True):
        rows = [replace(row(used[name][0], "ap50", used[name][1], model=name), run=run) for name in names]
        folder.mkdir()
        append_rows(folder / "results.jsonl", rows)
    found = {model.line: list(model.records.values()) for model in read_results([folders[1], folders[0]])}
    assert {name: [one.main for one in records] for name, records in found.items()} == {
        name: [value] for name, (_, value) in used.items()
    }


def test_the_lines_of_a_run_folder_are_told_apart_by_their_use(tmp_path: Path) -> None:
    run = {"weights": "w", "precision": "fp32", "source": str(tmp_path)}
    append_rows(
        tmp_path / "results.jsonl",
        [
            replace(row("boxes", value=value, model=f"X {way}"), run=run)
            for way, value in (("dense", 0.3), ("crop", 0.6))
        ],
    )
    found = {model.line: model.records["boxes/test"].main for model in read_results([tmp_path])}
    assert found == {f"{tmp_path} (dense)": 0.3, f"{tmp_path} (crop)": 0.6}


def test_two_sets_of_one_name_do_not_take_each_others_place(tmp_path: Path) -> None:
    def own(model: str, value: float, samples: str, task: str = "own:test"):
        return replace(row(task, value=value, model=model), run={"weights": model, "samples": samples})

    append_rows(tmp_path / "a.jsonl", [own("a", 0.1, "1" * 64), own("a", 0.9, "2" * 64), own("a", 0.4, "2" * 64)])
    append_rows(tmp_path / "b.jsonl", [own("b", 0.2, "1" * 64), own("b", 0.3, "3" * 64, "probe_linear")])
    found = {
        model.line: {record.name: record.main for record in model.records.values()}
        for model in read_results([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    }
    assert found == {
        "a": {"own:test [111111]": 0.1, "own:test [222222]": 0.4},
        "b": {"own:test [111111]": 0.2, "probe_linear/test": 0.3},
    }
    (alone,) = read_result(tmp_path / "b.jsonl")
    assert {key: record.name for key, record in alone.records.items()} == {
        "own:test": "own:test",
        "probe_linear/test": "probe_linear/test",
    }


def test_lines_that_do_not_say_their_samples_are_of_the_one_set_there_is(tmp_path: Path) -> None:
    append_rows(tmp_path / "old.jsonl", [replace(row("own:x", value=0.1), run={"weights": "w"})])
    append_rows(tmp_path / "new.jsonl", [replace(row("own:x", value=0.2), run={"weights": "w", "samples": "1" * 64})])
    (model,) = read_results([tmp_path / "old.jsonl", tmp_path / "new.jsonl"])
    assert {key: record.main for key, record in model.records.items()} == {"own:x": 0.2}


def test_a_caption_test_of_both_files_is_one_set(tmp_path: Path) -> None:
    run = {"weights": "w", "samples": "1" * 64}
    append_rows(tmp_path / "results.jsonl", [replace(row("own:x", "accuracy", split="all"), run=run)])
    entry = {"key": "own:x", "dataset": "own:x", "metrics": {"accuracy": 0.5, "main_metric": 0.5}, "run": run}
    (tmp_path / "eval_results.jsonl").write_text(json.dumps(entry) + "\n")
    (model,) = read_result(tmp_path)
    assert [(key, record.name, record.low) for key, record in model.records.items()] == [("own:x", "own:x", 0.4)]
