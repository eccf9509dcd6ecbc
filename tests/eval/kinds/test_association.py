import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from eyesmith.data.evaluation.evaluation_set import Instance
from eyesmith.eval.kinds.association import association_metrics, cue_prompt, jaccard_scores
from eyesmith.eval.kinds.classification import mean_per_class_recall
from eyesmith.eval.kinds.groups import macro_scores
from eyesmith.eval.kinds.multilabel import average_precisions
from eyesmith.eval.kinds.registry import KINDS
from eyesmith.eval.sets.task import Task


def test_recall_and_f1_count_classes_of_the_truth_only() -> None:
    predicted, targets = torch.tensor([0, 0, 1, 5, 2]), torch.tensor([0, 1, 1, 1, 3])
    assert mean_per_class_recall(predicted, targets) == (1 + 1 / 3 + 0) / 3
    recall, f1 = macro_scores(predicted, targets)
    assert math.isclose(recall, (1 + 1 / 3 + 0) / 3)
    # class 0: precision 1/2, recall 1; class 1: precision 1, recall 1/3; class 3: never predicted
    assert math.isclose(f1, (2 / 3 + 1 / 2 + 0) / 3)


def test_average_precision_is_the_mean_precision_at_the_positives() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.5, 0.1], [0.7, 0.1], [0.1, 0.1]])
    marks = torch.tensor([[True, False], [True, False], [False, False], [True, False]])
    found = average_precisions(scores, marks)
    assert math.isclose(float(found[0]), (1 / 1 + 2 / 3 + 3 / 4) / 3)
    assert float(found[1]) == 0.0  # a class that no image has, as clip-benchmark counts it


def test_winogavil_chooses_as_many_as_are_gold() -> None:
    images = torch.eye(4)
    instances = [
        Instance("egg", (0, 1, 2, 3, 0), (True, True, False, False, False)),
        Instance("Iron", (3, 2, 1, 0, 1, 2, 1, 0, 1, 2), (True,) + (False,) * 9),
    ]
    cues = torch.tensor([[0.9, 0.1, 0.2, 0.0], [0.0, 0.0, 0.0, 1.0]])
    scores = jaccard_scores(images, cues, instances, half=None)
    # the first image comes twice among the candidates of the first: chosen 0 and 4, gold 0 and 1
    assert scores.tolist() == [1 / 3, 1.0]
    found = association_metrics(scores, [5, 10])
    assert found["jaccard_score_5"] == found["jaccard_score_5-6"] == 1 / 3
    assert found["jaccard_score_10-12"] == 1.0
    assert found["jaccard_score_12"] is None
    assert (cue_prompt("Iron"), cue_prompt("night")) == ("An iron", "A night")


def test_equal_candidates_are_chosen_as_numpy_orders_them() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(40, 8, generator=generator).round(), dim=1, eps=1e-3)
    cues = images[torch.randint(0, 40, (200,), generator=generator)]
    instances, expected = [], []
    for row in range(200):
        count = (5, 6, 10, 12)[row % 4]
        candidates = torch.randint(0, 40, (count,), generator=generator)
        gold = torch.arange(count) < 1 + row % 3
        instances.append(Instance("cue", tuple(candidates.tolist()), tuple(gold.tolist())))
        close = (cues[row] @ images[candidates].T).half().numpy()  # as the reference has them: numpy, in fp16
        chosen = np.isin(np.arange(count), np.argsort(close)[-int(gold.sum()) :])
        expected.append((chosen & gold.numpy()).sum() / (chosen | gold.numpy()).sum())
    assert jaccard_scores(images, cues, instances, half=torch.float16).tolist() == expected


def test_classes_without_an_image_do_not_lower_the_mean() -> None:
    rng = np.random.default_rng(0)
    scores, marks = rng.random((40, 6)), rng.random((40, 6)) < 0.3
    marks[:, [1, 4]] = False  # as a part of a set may have it
    found = average_precisions(torch.from_numpy(scores), torch.from_numpy(marks))
    records = {"average_precision": found.float().numpy(), "keys": np.arange(40).astype(str)}
    oracle = [average_precision_score(marks[:, place], scores[:, place]) for place in (0, 2, 3, 5)]
    task = Task(key="own:x", name="own:x", size=None, layout="multilabel", folder="x")
    kind = KINDS["multilabel"]
    value = kind.metrics(task, records)["mean_average_precision"]
    assert value == pytest.approx(np.mean(oracle), abs=1e-6)
    low, high, count = kind.spans(task, records)["mean_average_precision"]
    assert min(oracle) - 1e-6 <= low <= value <= high <= max(oracle) + 1e-6
    assert count == 4
    paired = kind.paired(task, records, records, "main")
    assert paired is not None
    assert len(paired.left) == 4
