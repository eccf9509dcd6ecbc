import pytest
import torch
import torch.nn.functional as F

from eyesmith.errors import EyesmithError, ShapeError
from eyesmith.eval.statistics import ranking
from eyesmith.eval.statistics.ranking import rank_classes


def test_equals_a_loop_with_ties_for_the_lower_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "_BLOCK", 4)
    torch.manual_seed(0)
    weights = F.normalize(torch.randn(7, 5), dim=1)
    weights[4] = weights[2]  # two classes of one name
    features = F.normalize(torch.cat([torch.randn(8, 5), weights[[2, 2]]]), dim=1)
    targets = torch.tensor([0, 1, 2, 3, 4, 5, 6, 4, 2, 4])
    found = rank_classes(features, weights, targets)
    for row in range(len(features)):
        scores = [round(float(features[row].double() @ weight.double()), 7) for weight in weights]
        order = sorted(range(7), key=lambda index: (-scores[index], index))
        assert found.top[row].tolist() == order[:5]
        assert int(found.ranks[row]) == order.index(int(targets[row]))
    assert found.ranks[-2:].tolist() == [0, 1]
    torch.testing.assert_close(found.top_score[:, 0], (features @ weights.T).max(1).values)


def test_fewer_classes_than_five_leave_places_empty() -> None:
    found = rank_classes(torch.eye(3), torch.eye(3), torch.arange(3))
    assert found.top[:, 3:].tolist() == [[-1, -1]] * 3
    assert bool(found.top_score[:, 3:].isnan().all())
    assert found.hits(1).tolist() == [True] * 3


def test_refuses_what_would_count_as_right() -> None:
    with pytest.raises(EyesmithError, match="not finite"):
        rank_classes(torch.full((2, 3), torch.nan), torch.eye(3), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ShapeError, match="outside 0..2"):
        rank_classes(torch.eye(3), torch.eye(3), torch.tensor([0, 1, 3]))
