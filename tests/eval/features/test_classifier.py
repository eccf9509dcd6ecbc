"""A classifier through the suites' engine, beside the plain rules on its logits."""

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from eyesmith.data.evaluation.imagenet import published_classes
from eyesmith.data.evaluation.opening import open_evaluation_set
from eyesmith.data.make import make_miniatures
from eyesmith.errors import DataError
from eyesmith.eval import Settings, evaluate_own, evaluate_suite
from eyesmith.eval.features.classified import class_logits, split_rows
from eyesmith.eval.features.classifier import ClassColumns, LogitTower, is_imagenet_order, objectnet_ids
from eyesmith.eval.heads.imagenet_variants import (
    objectnet_answers,
    real_answers,
    robustness,
    subset_answers,
    subset_classes,
)
from eyesmith.eval.sets import TASKS
from eyesmith.eval.sets.suite import aggregate
from eyesmith.images.transforms import PreprocessConfig
from eyesmith.models.classifier import Classifier, ClassifierConfig
from eyesmith.models.eva02.model import Eva02Config

TRV = Eva02Config(
    image_size=(16, 16), patch_px=8, width=16, depth=1, num_heads=1, hidden_dim=24, embed_dim=0, pooling="mean"
)
NUMBERS = tuple(map(str, range(1000)))


def _classifier(classes: Sequence[str]) -> Classifier:
    torch.manual_seed(0)
    size = PreprocessConfig(image_size=(16, 16))
    made = ClassifierConfig(name="tiny", image=TRV, classes=tuple(classes), preprocess=size).build().eval()
    nn.init.normal_(made.head.weight)
    return made


def _set(task: str, classes: Sequence[str], where: Path):
    key = TASKS[task]
    found = open_evaluation_set(make_miniatures(where, ["imagenet1k"])["imagenet1k"])
    return key, replace(found, classes=tuple(classes), path=where)


def _scores(columns: ClassColumns, names: Sequence[str], logits: torch.Tensor) -> torch.Tensor:
    return logits @ columns.class_weights(names, ()).T


@pytest.fixture(scope="module")
def logits() -> torch.Tensor:
    return torch.randn(40, 1000, generator=torch.Generator().manual_seed(3))


def test_a_and_r_are_decided_among_their_200(tmp_path: Path, logits: torch.Tensor) -> None:
    if importlib.util.find_spec("timm") is None:
        pytest.skip("the lists of classes are in timm")
    targets = torch.arange(40) * 5
    for name in ("imagenet-a", "imagenet-r"):
        subset = subset_classes(name)
        task, found = _set(name, [f"name {k}" for k in subset], tmp_path)
        scores = _scores(ClassColumns(NUMBERS, task, found), found.classes, logits)
        assert torch.equal(scores.argmax(1) == targets, subset_answers(logits, targets, subset))


def test_objectnet_is_decided_among_all_and_counts_first_ids(tmp_path: Path, logits: torch.Tensor) -> None:
    logits = logits + 4 * torch.eye(1000)[torch.arange(40) * 2]
    ids = [[2 * k, 999 - k] for k in range(40)]
    task, found = _set("objectnet", [f"thing {k}" for k in range(40)], tmp_path)
    with pytest.raises(DataError, match=r"imagenet_ids\.json"):
        ClassColumns(NUMBERS, task, found).class_weights(found.classes, ())
    (tmp_path / "imagenet_ids.json").write_text(json.dumps({f"Thing {k}": one for k, one in enumerate(ids)}))
    assert objectnet_ids(tmp_path, found.classes) == ids
    scores = _scores(ClassColumns(NUMBERS, task, found), found.classes, logits)
    targets = torch.arange(40).roll(1)
    for wanted in (torch.arange(40), targets):
        assert torch.equal(scores.argmax(1) == wanted, objectnet_answers(logits, wanted, ids))


def test_known_orders_of_imagenet() -> None:
    assert is_imagenet_order(NUMBERS)
    assert is_imagenet_order([f"n{k:08}" for k in range(1000)])
    assert not is_imagenet_order([f"n{k:08}" for k in reversed(range(1000))])
    assert not is_imagenet_order([f"class {k}" for k in range(1000)])
    assert not is_imagenet_order(NUMBERS[:10])
    assert is_imagenet_order(published_classes(1000))


def test_real_is_measured_by_the_engine_as_by_the_rule(tmp_path: Path) -> None:
    home = make_miniatures(tmp_path, ["imagenet-real"])["imagenet-real"]
    names = (home / "classnames.txt").read_text().splitlines()
    names = [f"{name} {place}" for place, name in enumerate(names)]  # some of ImageNet's are equal
    (home / "classnames.txt").write_text("\n".join(names))
    found = open_evaluation_set(home, layout="multilabel")
    classifier = _classifier([*names, *NUMBERS[:5]])
    (result,) = evaluate_suite(LogitTower(classifier), [TASKS["imagenet-real"]], tmp_path, out=tmp_path / "out")
    own = class_logits(classifier, found.source).rows[:, : len(found.classes)]
    assert found.multilabels is not None
    labels = [np.flatnonzero(row).tolist() for row in found.multilabels]
    assert result.metrics["acc1"] == pytest.approx(real_answers(own, labels).double().mean().item())


def test_the_average_and_the_gap_are_those_of_table_6() -> None:
    values = {
        "imagenet1k": 0.90,
        "imagenetv2": 0.824,
        "imagenet-real": 0.911,
        "imagenet-a": 0.877,
        "imagenet-r": 0.899,
        "imagenet_sketch": 0.701,
    }
    found = aggregate("imagenet-variants", values)
    assert (found["average"], found["delta"]) == pytest.approx((0.852, 0.048), abs=5e-4)
    assert robustness(values).delta == pytest.approx(found["delta"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from PIL import Image

    for name, color in (("red_disc", "red"), ("sky", "blue"), ("grass", "green")):
        (tmp_path / "own" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (20 + number, 20), color).save(tmp_path / "own" / name / f"{number}.png")
    return tmp_path / "own"


def test_an_own_folder_is_measured_by_names_in_any_order(folder: Path, tmp_path: Path) -> None:
    classifier = _classifier(("sky", "sea", "grass", "red disc"))
    result = evaluate_own(LogitTower(classifier), folder, tmp_path / "results.jsonl")
    found = open_evaluation_set(folder)
    logits = class_logits(classifier, found.source).rows
    assert found.labels is not None
    own = [classifier.classes.index(name) for name in found.classes]
    hits = logits[:, own].argmax(1).numpy() == found.labels
    assert result.metrics["acc1"] == pytest.approx(hits.mean())
    with pytest.raises(DataError, match="none of the classifier's"):
        evaluate_own(LogitTower(_classifier(("sky", "sea"))), folder, tmp_path / "results.jsonl")


def test_features_are_kept_between_evaluations(folder: Path, tmp_path: Path) -> None:
    classifier = _classifier(("sky", "grass", "red disc"))
    first, second = (
        evaluate_own(
            LogitTower(classifier), folder, tmp_path / "results.jsonl", settings=Settings(cache=tmp_path / "cache")
        ).metrics
        for _ in range(2)
    )
    assert first == second
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1


def test_splits_of_a_data_set_are_measured_by_names(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    folder.rename(tmp_path / "two" / "val")
    said: list[str] = []
    rows = split_rows(_classifier(("grass", "sky")), tmp_path / "two", ("val",), note=said.append)
    assert [(row.split, row.metric, row.n, row.chance) for row in rows] == [("val", "acc1", 8, 0.5)]
    assert "red disc" in said[0]
