import math

import pytest
import torch

from eyesmith.errors import ShapeError
from eyesmith.losses.class_labels import class_losses


def _slow(logits: torch.Tensor, target: list[list[float]]) -> list[float]:
    found = []
    for row, wanted in zip(logits.tolist(), target, strict=True):
        total = math.log(sum(math.exp(value) for value in row))
        found.append(-sum(share * (value - total) for value, share in zip(row, wanted, strict=True)))
    return found


def test_smoothing_spreads_over_all_classes() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 3, 1])
    target = [[0.9 * (k == label) + 0.1 / 4 for k in range(4)] for label in labels.tolist()]
    found = class_losses(logits, labels, smoothing=0.1)
    assert found.tolist() == pytest.approx(_slow(logits, target), rel=1e-5)


def test_a_mixed_image_has_both_labels() -> None:
    logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    labels, partners, share = torch.tensor([1, 2]), torch.tensor([4, 2]), torch.tensor([0.3, 0.6])
    target = [
        [0.8 * (s * (k == a) + (1 - s) * (k == b)) + 0.2 / 5 for k in range(5)]
        for a, b, s in zip(labels.tolist(), partners.tolist(), share.tolist(), strict=True)
    ]
    found = class_losses(logits, labels, smoothing=0.2, partners=partners, share=share)
    assert found.tolist() == pytest.approx(_slow(logits, target), rel=1e-5)


def test_equal_logits_cost_log_of_the_classes_whatever_the_smoothing() -> None:
    for smoothing in (0.0, 0.3):
        found = class_losses(torch.zeros(2, 7), torch.tensor([0, 5]), smoothing=smoothing)
        torch.testing.assert_close(found, torch.full((2,), math.log(7)))


def test_rows_must_fit() -> None:
    with pytest.raises(ShapeError, match="B labels"):
        class_losses(torch.zeros(2, 3), torch.tensor([0]))
