import math

import torch

from eyesmith.data.evaluation.evaluation_set import Instance
from eyesmith.eval.kinds.association import association_metrics, cue_prompt, jaccard_scores
from eyesmith.eval.kinds.classification import mean_per_class_recall
from eyesmith.eval.kinds.groups import macro_scores
from eyesmith.eval.kinds.multilabel import average_precisions


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
        Instance("Iron", (3, 2, 1, 0, 1, 2, 3, 0, 1, 2), (True,) + (False,) * 9),
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
