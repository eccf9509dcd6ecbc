"""Suites on miniature sets: every layout, going on after a stop, what is missing, caches, processes."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eyesmith.data.evaluation import open_evaluation_set
from eyesmith.data.evaluation.names import class_names, templates_for
from eyesmith.data.make import make_miniatures
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval import Settings, Wording, evaluate_suite, read_rows
from eyesmith.eval.features.store import FeatureStore
from eyesmith.eval.heads.imagenet_variants import subset_classes
from eyesmith.eval.sets import SUITES, TASKS
from eyesmith.eval.sets.choice import chosen_suite, summary_of
from eyesmith.eval.statistics.calibrated import calibration_values
from eyesmith.models import create
from eyesmith.models.clip import Clip

LAYOUTS = (
    "cifar10",
    "vtab/pets",
    "imagenet-real",
    "voc2007_multilabel",
    "retrieval/flickr_1k_test_image_text_retrieval",
    "misc/winogavil",
    "wilds/iwildcam",
    "wilds/fmow",
    "wilds/fmow-official",
    "fairness/dollar_street",
    "fairness/fairface",
    "video/kinetics400",
)


def tasks(*keys: str):
    return [TASKS[key] for key in keys]


@pytest.fixture(scope="module")
def whole(clip: Clip, miniatures: Path, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("out")
    return out, evaluate_suite(clip, tasks(*LAYOUTS), miniatures, out=out)


def test_every_layout_has_its_main_metric_and_an_interval_around_it(whole) -> None:
    out, results = whole
    assert [result.problem for result in results] == [""] * len(LAYOUTS)
    rows = {(row.task, row.metric): row for row in read_rows(out / "results.jsonl")}
    for result in results:
        metric = TASKS[result.key].metric
        if metric is None:
            assert result.main_metric is None
            continue
        assert result.main_metric == result.metrics[metric]
        row = rows[result.key, metric]
        assert row.low <= row.value <= row.high
        assert row.value == result.main_metric


def test_files_are_those_of_the_reference(whole) -> None:
    out, results = whole
    lines = [json.loads(line) for line in (out / "eval_results.jsonl").read_text().splitlines()]
    assert {line["key"] for line in lines} == set(LAYOUTS)
    fmow = next(line for line in lines if line["key"] == "wilds/fmow")
    assert fmow["dataset"] == "FMoW"
    assert fmow["metrics"]["main_metric"] == fmow["metrics"]["acc_worst_region"]
    assert fmow["metrics"]["count_region:5"] == 1
    assert fmow["run"]["ties"] == "lowest index"
    by_key = {result.key: result.metrics for result in results}
    regions = [by_key["wilds/fmow"][f"acc_region:{region}"] for region in range(6)]
    assert by_key["wilds/fmow"]["acc_worst_region"] == min(regions)
    assert by_key["wilds/fmow-official"]["acc_worst_region"] == min(regions[:5])


def test_predictions_give_the_metrics_again(whole) -> None:
    out, results = whole
    by_key = {result.key: result.metrics for result in results}
    pets = np.load(out / "predictions" / "vtab-pets.npz")
    assert (pets["ranks"] == 0).mean() == pytest.approx(by_key["vtab/pets"]["acc1"])
    assert ((pets["top"][:, 0] == pets["targets"]) == (pets["ranks"] == 0)).all()
    search = np.load(out / "predictions" / "retrieval-flickr_1k_test_image_text_retrieval.npz")
    metrics = by_key["retrieval/flickr_1k_test_image_text_retrieval"]
    assert (search["text_retrieval_ranks"] < 5).mean() == pytest.approx(metrics["text_retrieval_recall@5"])
    assert "groups" in np.load(out / "predictions" / "wilds-fmow.npz")


def test_a_stopped_run_goes_on(clip: Clip, miniatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ("cifar10", "vtab/pets", "wilds/fmow")
    expected = {one.key: one.metrics for one in evaluate_suite(clip, tasks(*keys), miniatures, out=None)}
    done = []
    encode = Clip.encode_image

    def stop(self: Clip, images, *, batch_size: int = 64):
        if done:
            raise KeyboardInterrupt
        done.append(len(images))
        return encode(self, images, batch_size=batch_size)

    with monkeypatch.context() as patch:
        patch.setattr(Clip, "encode_image", stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate_suite(clip, tasks(*keys), miniatures, out=tmp_path)
    with (tmp_path / "eval_results.jsonl").open("a") as stream:
        stream.write('{"key": "vtab/pets", "data')  # what a kill leaves
    results = evaluate_suite(clip, tasks(*keys), miniatures, out=tmp_path)
    assert {one.key: one.metrics for one in results} == expected
    lines = (tmp_path / "eval_results.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["key"] for line in lines) == sorted(keys)
    assert all(one.rows for one in results)


def test_results_of_another_model_are_not_taken_over(clip: Clip, miniatures: Path, tmp_path: Path) -> None:
    evaluate_suite(clip, tasks("cifar10"), miniatures, out=tmp_path, settings=Settings(limit=3))
    with pytest.raises(ConfigError, match="limit 3"):
        evaluate_suite(clip, tasks("cifar10"), miniatures, out=tmp_path)
    torch.manual_seed(1)
    with pytest.raises(ConfigError, match="weights"):
        evaluate_suite(
            create("ViTamin-Nano").eval(), tasks("cifar10"), miniatures, out=tmp_path, settings=Settings(limit=3)
        )


def test_what_is_missing_or_broken_is_named_and_never_averaged_over(clip: Clip, tmp_path: Path) -> None:
    make_miniatures(tmp_path, ["retrieval/flickr_1k_test_image_text_retrieval", "misc/winogavil"])
    (tmp_path / TASKS["misc/winogavil"].folder / "test" / "nshards.txt").unlink()
    suite = SUITES["retrieval"]
    told: list[str] = []
    results = evaluate_suite(clip, suite, tmp_path, out=None, settings=Settings(note=told.append))
    assert [one.is_measured for one in results] == [True, False, False]
    assert [one.is_missing for one in results] == [False, True, False]
    assert "nshards.txt" in results[2].problem
    summary = summary_of(suite, results)
    assert summary.averages == {}
    assert summary.status == 1
    assert "MSCOCO" in summary.notes[0]
    assert "WinoGAViL" in summary.notes[1]
    assert any("WinoGAViL" in line for line in told)
    with pytest.raises(DataError, match="holds none of the 27 sets"):
        chosen_suite("eva02", tmp_path)
    with pytest.raises(ConfigError, match="did you mean eva02"):
        chosen_suite("eva2", tmp_path)


def test_features_and_classifiers_are_kept(
    clip: Clip, miniatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ("cifar10", "retrieval/flickr_1k_test_image_text_retrieval")
    first = evaluate_suite(clip, tasks(*keys), miniatures, out=None, settings=Settings(cache=tmp_path))

    def none(*_: object) -> None:
        raise AssertionError("a text was encoded again")

    monkeypatch.setattr(Clip, "text_features", none)
    monkeypatch.setattr(FeatureStore, "_made", none)
    again = evaluate_suite(clip, tasks(*keys), miniatures, out=None, settings=Settings(cache=tmp_path))
    assert [one.metrics for one in again] == [one.metrics for one in first]


def test_one_bit_that_turned_in_what_is_kept_is_found_and_mended(clip: Clip, miniatures: Path, tmp_path: Path) -> None:
    settings = Settings(cache=tmp_path / "kept")
    keys = ("cifar10", "retrieval/flickr_1k_test_image_text_retrieval")
    evaluate_suite(clip, tasks(*keys), miniatures, out=None, settings=settings)
    kept = {path: path.read_bytes() for path in (tmp_path / "kept").rglob("*.npy")}
    assert len(kept) == 4  # pictures of two sets, classes of one, captions of the other
    for path, content in kept.items():
        place = len(content) - 32 - 3  # in the last row, which no probe reads
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    evaluate_suite(clip, tasks(*keys), miniatures, out=None, settings=settings)
    assert {path: path.read_bytes() for path in kept} == kept
    (facts,) = (
        path
        for path in (tmp_path / "kept").rglob("*.json")
        if '"CIFAR' in path.read_text() or "cifar" in path.read_text()
    )
    facts.write_text(facts.read_text().replace('"broken": []', '"broken": [[0, "x", "y"]]'))
    (result,) = evaluate_suite(clip, tasks("cifar10"), miniatures, out=None, settings=settings)
    assert result.facts is not None
    assert result.facts["images"] == 20


def test_the_store_notices_other_pictures_and_damage(clip: Clip, miniatures: Path, tmp_path: Path) -> None:
    source = open_evaluation_set(miniatures / TASKS["cifar10"].folder).source
    store = FeatureStore(clip, tmp_path)
    expected = store(source).features.clone()
    assert store.num_encoded == len(source)
    (path,) = tmp_path.glob("*.npy")
    rows = np.load(path)
    for damage in (-rows, rows[:-1]):
        np.save(path, damage)
        other = FeatureStore(clip, tmp_path)
        torch.testing.assert_close(other(source).features, expected)
        assert other.num_encoded == len(source)
    path.write_bytes(path.read_bytes()[:100])
    torch.testing.assert_close(FeatureStore(clip, tmp_path)(source).features, expected)
    half = FeatureStore(clip, tmp_path, stored="float16")
    torch.testing.assert_close(half(source).features, expected, atol=1e-3, rtol=0)
    assert len(list(tmp_path.glob("*.npy"))) == 2
    known = FeatureStore(clip, tmp_path)
    assert torch.equal(known(source).features, expected)
    assert known.num_encoded == 0


def test_an_interrupted_encoding_goes_on_where_it_was(
    clip: Clip, miniatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_evaluation_set(miniatures / TASKS["wilds/fmow"].folder).source
    expected = FeatureStore(clip, batch_size=8)(source).features
    encode, calls = Clip.encode_image, []

    def stop(self: Clip, images, *, batch_size: int = 64):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(len(images))
        return encode(self, images, batch_size=batch_size)

    with monkeypatch.context() as patch:
        patch.setattr(Clip, "encode_image", stop)
        with pytest.raises(KeyboardInterrupt):
            FeatureStore(clip, tmp_path, batch_size=8)(source)
    store = FeatureStore(clip, tmp_path, batch_size=8)
    assert torch.equal(store(source).features, expected)
    assert store.num_encoded == len(source) - 24
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".json", ".lock", ".npy"]


PROCESS = """
import json, sys, torch
torch.set_num_threads(1)
from eyesmith.eval import Settings, evaluate_suite
from eyesmith.eval.sets import TASKS
from eyesmith.models import create
from eyesmith.train.distributed import joined
torch.manual_seed(0)
clip = create("ViTamin-Nano").eval()
with joined() as world:
    tasks = [TASKS[key] for key in sys.argv[3:]]
    settings = Settings(cache=sys.argv[2] + "/kept", batch_size=8, world=world)
    evaluate_suite(clip, tasks, sys.argv[1], out=sys.argv[2], settings=settings)
"""


def run_two(script: str, *arguments: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    command = [sys.executable, "-c", script, *arguments]
    processes = [
        subprocess.Popen(command, env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()


def test_two_processes_give_the_numbers_of_one(clip: Clip, miniatures: Path, tmp_path: Path) -> None:
    keys = ("wilds/fmow", "retrieval/flickr_1k_test_image_text_retrieval")
    expected = evaluate_suite(clip, tasks(*keys), miniatures, out=None, settings=Settings(batch_size=8))
    run_two(PROCESS, str(miniatures), str(tmp_path), *keys)
    lines = [json.loads(line) for line in (tmp_path / "eval_results.jsonl").read_text().splitlines()]
    found = {line["key"]: line["metrics"] for line in lines}
    for result in expected:
        assert {name: value for name, value in found[result.key].items() if name != "main_metric"} == result.metrics
    assert len(list((tmp_path / "kept" / "images").glob("*.npy"))) == 2


APART = """
import json, sys, torch
torch.set_num_threads(1)
from eyesmith.eval import Settings, evaluate_suite
from eyesmith.eval.sets import TASKS
from eyesmith.models import create
from eyesmith.models.clip import Clip
from eyesmith.train.distributed import joined
torch.manual_seed(0)
clip = create("ViTamin-Nano").eval()
encode = Clip.encode_image
with joined() as world:
    def fails_in_one(self, images, *, batch_size=64):
        if world.rank == 1 and "cifar10" in stage:
            raise torch.OutOfMemoryError("no room on this device")
        return encode(self, images, batch_size=batch_size)
    Clip.encode_image = fails_in_one
    stage = []
    settings = Settings(cache=f"{sys.argv[2]}/kept{world.rank}", batch_size=8, world=world)
    found = []
    for key in sys.argv[3:]:
        stage[:] = [key]
        found += evaluate_suite(clip, [TASKS[key]], sys.argv[1], out=None, settings=settings)
    with open(f"{sys.argv[2]}/found{world.rank}.json", "w") as stream:
        json.dump([[one.problem, one.metrics] for one in found], stream)
"""


def test_processes_with_their_own_disks_agree_and_an_error_in_one_costs_one_set(
    clip: Clip, miniatures: Path, tmp_path: Path
) -> None:
    keys = ("cifar10", "vtab/pets")
    expected = evaluate_suite(
        clip, tasks("vtab/pets"), miniatures, out=None, settings=Settings(cache=tmp_path / "kept0", batch_size=8)
    )  # the first process has kept features and texts of this set, the second has not
    run_two(APART, str(miniatures), str(tmp_path), *keys)
    for rank in range(2):
        (problem, _), (nothing, metrics) = json.loads((tmp_path / f"found{rank}.json").read_text())
        assert ("no room" if rank else "another process") in problem
        assert (nothing, metrics) == ("", expected[0].metrics)


IN_ANSWER = """
import json, sys, torch
torch.set_num_threads(1)
import eyesmith.eval.kinds.retrieval as retrieval
from eyesmith.eval import Settings, evaluate_suite
from eyesmith.eval.kinds.classification import Classification
from eyesmith.eval.sets import TASKS
from eyesmith.models import create
from eyesmith.train.distributed import joined
torch.manual_seed(0)
clip = create("ViTamin-Nano").eval()
with joined() as world:
    answer = Classification.answer
    def fails_before_its_texts(self, asked):
        if asked.task.key == "cifar10" and world.rank == 1:
            raise MemoryError("no room")
        return answer(self, asked)
    def fails_after_its_texts(*_, **__):
        if world.rank == 0:
            raise MemoryError("no room")
        return torch.zeros(1), torch.zeros(1)
    Classification.answer, retrieval.pair_ranks = fails_before_its_texts, fails_after_its_texts
    settings = Settings(cache=sys.argv[2] + "/kept", batch_size=8, world=world)
    found = evaluate_suite(clip, [TASKS[key] for key in sys.argv[3:]], sys.argv[1], out=None, settings=settings)
    with open(f"{sys.argv[2]}/found{world.rank}.json", "w") as stream:
        json.dump({one.key: [one.problem, one.metrics] for one in found}, stream)
"""


def test_an_error_before_or_after_the_exchange_of_texts_costs_one_set_in_all_processes(
    clip: Clip, miniatures: Path, tmp_path: Path
) -> None:
    before, after, good = "cifar10", "retrieval/flickr_1k_test_image_text_retrieval", "vtab/pets"
    expected = evaluate_suite(clip, tasks(good), miniatures, out=None, settings=Settings(batch_size=8))
    run_two(IN_ANSWER, str(miniatures), str(tmp_path), before, after, good)
    for rank in range(2):
        found = json.loads((tmp_path / f"found{rank}.json").read_text())
        assert ("no room" if rank == 1 else "another process") in found[before][0]
        assert ("no room" if rank == 0 else "another process") in found[after][0]
        assert found[good] == ["", expected[0].metrics]


def test_no_memory_for_one_set_costs_that_set_alone(
    clip: Clip, miniatures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Clip.encode_image

    def fails(self: Clip, images: torch.Tensor, *, batch_size: int = 64) -> torch.Tensor:
        if len(images) == 20:  # cifar10, whose 20 images are one batch
            raise torch.OutOfMemoryError("no room on this device")
        return encode(self, images, batch_size=batch_size)

    monkeypatch.setattr(Clip, "encode_image", fails)
    first, second = evaluate_suite(clip, tasks("cifar10", "vtab/pets"), miniatures, out=None)
    assert "no room" in first.problem
    assert second.is_measured


@pytest.mark.slow
def test_the_whole_suite_runs_on_miniatures(clip: Clip, tmp_path: Path) -> None:
    make_miniatures(tmp_path / "sets")
    results = evaluate_suite(
        clip, SUITES["datacomp"], tmp_path / "sets", out=tmp_path, settings=Settings(cache=tmp_path / "kept")
    )
    assert len(summary_of(SUITES["datacomp"], results).averages) == len(SUITES["datacomp"].aggregates)
    for name in ("eva02", "imagenet-variants", "video"):
        results = evaluate_suite(
            clip, SUITES[name], tmp_path / "sets", out=tmp_path, settings=Settings(cache=tmp_path / "kept")
        )
        assert len(summary_of(SUITES[name], results).averages) == len(SUITES[name].aggregates)


KILLED = """
import sys, time, torch
from eyesmith.eval import Settings, evaluate_suite
from eyesmith.eval.sets import TASKS
from eyesmith.models import create
from eyesmith.models.clip import Clip
torch.manual_seed(0)
clip = create("ViTamin-Nano").eval()
encode, batches = Clip.encode_image, []
def slow(self, images, *, batch_size=64):
    batches.append(len(images))
    time.sleep(60 if len(batches) > 3 else 0)
    return encode(self, images, batch_size=batch_size)
Clip.encode_image = slow
tasks = [TASKS[key] for key in sys.argv[3:]]
evaluate_suite(clip, tasks, sys.argv[1], out=sys.argv[2], settings=Settings(cache=sys.argv[2] + "/kept", batch_size=8))
"""


def test_a_killed_run_goes_on(clip: Clip, miniatures: Path, tmp_path: Path) -> None:
    keys = ("cifar10", "vtab/pets")
    expected = evaluate_suite(clip, tasks(*keys), miniatures, out=None, settings=Settings(batch_size=8))
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(miniatures), str(tmp_path), *keys])
    try:
        for _ in range(1200):
            if (tmp_path / "eval_results.jsonl").is_file() or process.poll() is not None:
                break
            time.sleep(0.05)
        time.sleep(0.5)
    finally:
        process.kill()  # SIGKILL
        process.wait()
    done = [json.loads(line)["key"] for line in (tmp_path / "eval_results.jsonl").read_text().splitlines()]
    assert done == ["cifar10"]
    told: list[str] = []
    results = evaluate_suite(
        clip,
        tasks(*keys),
        miniatures,
        out=tmp_path,
        settings=Settings(cache=tmp_path / "kept", batch_size=8, note=told.append),
    )
    assert [one.metrics for one in results] == [one.metrics for one in expected]
    assert any("1 of 2 tasks were measured before" in line for line in told)
    assert [file.name for file in tmp_path.rglob("*.part*")] == []


def test_results_of_other_data_are_measured_again_and_it_is_said(clip: Clip, tmp_path: Path) -> None:
    sets, told = tmp_path / "sets", list[str]()
    make_miniatures(sets, ["cifar10", "vtab/pets"])
    first = evaluate_suite(clip, tasks("cifar10", "vtab/pets"), sets, out=tmp_path)
    names = sets / TASKS["cifar10"].folder / "classnames.txt"
    names.write_text("\n".join(reversed(names.read_text().split())))
    again = evaluate_suite(clip, tasks("cifar10", "vtab/pets"), sets, out=tmp_path, settings=Settings(note=told.append))
    assert any(line.startswith("CIFAR-10: measured again: since it was measured, data, words changed") for line in told)
    assert any("1 of 2 tasks were measured before" in line for line in told)
    assert first[1].metrics == again[1].metrics
    assert first[0].facts is not None
    assert again[0].facts is not None
    assert first[0].facts["words"] != again[0].facts["words"]


def test_own_sentences_and_other_languages(clip: Clip, miniatures: Path, tmp_path: Path) -> None:
    wording = Wording(language="cn")
    found = open_evaluation_set(miniatures / TASKS["cifar10"].folder)
    whole = replace(found, classes=class_names("imagenet1k"))
    changed = wording.applied(TASKS["imagenet1k"], whole)
    assert changed.classes == class_names("imagenet1k", language="cn")
    assert changed.templates == templates_for("imagenet1k", language="cn")
    part = wording.applied(TASKS["imagenet-r"], replace(found, classes=tuple("abcdefgh" * 25)))
    assert part.classes == tuple(changed.classes[index] for index in subset_classes("imagenet-r"))
    with pytest.raises(DataError, match="has 10 classes, the language's list 1000"):
        wording.applied(TASKS["imagenet1k"], found)
    (result,) = evaluate_suite(clip, tasks("cifar10"), miniatures, out=None, settings=Settings(wording=wording))
    assert "no class names in language 'cn'" in result.problem
    own = Wording(templates=("a {c}", "the {}"))
    (result,) = evaluate_suite(clip, tasks("cifar10"), miniatures, out=tmp_path, settings=Settings(wording=own))
    assert result.is_measured
    with pytest.raises(ConfigError, match="wording"):
        evaluate_suite(clip, tasks("cifar10"), miniatures, out=tmp_path)
    with pytest.raises(ConfigError, match="has no place"):
        Wording(templates=("a photo",))


def test_other_evaluators_files_and_the_models_facts(clip: Clip, miniatures: Path, tmp_path: Path) -> None:
    keys, told = ("cifar10", "retrieval/flickr_1k_test_image_text_retrieval"), list[str]()
    formats: tuple[Any, ...] = ("clip_benchmark", "open_clip")
    results = evaluate_suite(
        clip, tasks(*keys), miniatures, out=tmp_path, formats=formats, settings=Settings(note=told.append)
    )
    runs = [json.loads(file.read_text()) for file in sorted((tmp_path / "clip_benchmark").iterdir())]
    assert [run["dataset"] for run in runs] == [f"wds/{key}" for key in keys]
    assert [run["task"] for run in runs] == ["zeroshot_classification", "zeroshot_retrieval"]
    assert runs[0]["metrics"]["acc1"] == results[0].metrics["acc1"]
    assert any(line.startswith("no openclip_results.csv") and "36 of 38" in line for line in told)
    info = json.loads((tmp_path / "info.json").read_text())
    assert info["model"] == "ViTamin-Nano"
    assert info["image_px"] == clip.preprocess.image_size[0]
    assert info["image_params_m"] == sum(one.numel() for one in clip.image.parameters()) / 1e6
    (tmp_path / "info.json").write_text(json.dumps(info | {"samples_b": 1.5}))
    evaluate_suite(clip, tasks(*keys), miniatures, out=tmp_path)
    assert json.loads((tmp_path / "info.json").read_text())["samples_b"] == 1.5


def test_calibration_is_reported_where_there_are_enough_images() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.eye(4)
    targets = torch.randint(4, (400,), generator=generator)
    sharp = torch.nn.functional.normalize(weights[targets] + 0.6 * torch.randn(400, 4, generator=generator), dim=1)
    found = calibration_values(sharp, weights, targets, scale=100.0)
    assert found["ece"][0] > 0.05  # far too sure of itself
    assert found["temperature"][0] > 2
    assert found["ece_fitted"][0] < found["ece"][0]
    assert [count for _, count in found.values()] == [400, 200, 200]
    assert calibration_values(sharp[:10], weights, targets[:10], scale=100.0) == {}
