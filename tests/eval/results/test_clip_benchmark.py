"""CLIP_benchmark's JSON and CSV: names, columns and meaning as its own commands write them."""

import csv
import json
from pathlib import Path

import pytest

from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.results import read_run, read_runs_csv, run_file_name, run_task, write_run, write_runs_csv
from eyesmith.eval.sets import TASKS


def test_the_default_name() -> None:
    name = run_file_name("wds/vtab/dtd", model="ViT-B-32", pretrained="openai", task="zeroshot_classification")
    assert name == "wds-vtab-dtd_openai_ViT-B-32_en_zeroshot_classification.json"


def test_a_run_is_written_and_read(tmp_path: Path) -> None:
    path = write_run(
        tmp_path,
        dataset="wds/vtab/caltech101",
        model="ViTamin-S",
        pretrained="mine",
        task=run_task(TASKS["vtab/caltech101"]),
        metrics={"acc1": 0.5, "acc5": 0.75, "mean_per_class_recall": 0.25, "undefined": float("nan")},
        classnames=["cat", "dog"],
    )
    content = json.loads(path.read_text())
    assert set(content) == {"dataset", "model", "pretrained", "task", "metrics", "language", "classnames"}
    assert content["metrics"]["undefined"] is None
    got = read_run(path)
    record = got.records["vtab/caltech101"]
    assert (got.full_name, record.name, record.main) == ("ViTamin-S mine", "Caltech-101", 0.25)


def test_retrieval_gets_the_mean_of_both_directions(tmp_path: Path) -> None:
    metrics = {"image_retrieval_recall@1": 0.25, "text_retrieval_recall@1": 0.75}
    path = write_run(
        tmp_path, dataset="wds/mscoco_captions", model="m", pretrained="p", task="zeroshot_retrieval", metrics=metrics
    )
    record = read_run(path).records["retrieval/mscoco_2014_5k_test_image_text_retrieval"]
    assert record.main == 0.5


def test_a_probe_and_another_language_are_not_taken_for_zero_shot(tmp_path: Path) -> None:
    probe = write_run(
        tmp_path, dataset="cifar10", model="m", pretrained="p", task="linear_probe", metrics={"lp_acc1": 0.9}
    )
    assert list(read_run(probe).records) == ["cifar10:linear_probe"]
    italian = write_run(
        tmp_path,
        dataset="imagenet1k",
        model="m",
        pretrained="p",
        task="zeroshot_classification",
        metrics={"acc1": 0.4},
        language="it",
    )
    assert list(read_run(italian).records) == ["imagenet1k:it"]
    with pytest.raises(ConfigError, match="did you mean linear_probe"):
        write_run(tmp_path, dataset="x", model="m", pretrained="p", task="linearprobe", metrics={})


def test_many_runs_become_one_table_and_back(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path, dataset=key, model="m", pretrained="p", task="zeroshot_classification", metrics=metrics)
        for key, metrics in (("cifar10", {"acc1": 0.9, "acc5": 0.99}), ("pcam", {"acc1": 0.6, "acc5": None}))
    ]
    table = tmp_path / "benchmark.csv"
    write_runs_csv(table, runs)
    lines = list(csv.DictReader(table.read_text().splitlines()))
    assert [line["model_fullname"] for line in lines] == ["m p", "m p"]
    read = read_runs_csv(table)
    assert [next(iter(one.records)) for one in read] == ["cifar10", "vtab/pcam"]
    assert read[1].records["vtab/pcam"].metrics == {"acc1": 0.6}


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"dataset": "cifar10"}')
    with pytest.raises(DataError, match="a CLIP_benchmark run has"):
        read_run(path)
    table = tmp_path / "x.csv"
    table.write_text("dataset,model,pretrained,task,acc1\ncifar10,m,p,zeroshot_classification,high\n")
    with pytest.raises(DataError, match="line 2, acc1: expected a number, got 'high'"):
        read_runs_csv(table)
