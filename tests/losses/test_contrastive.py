import math

import pytest
import torch
import torch.nn.functional as F

from eyesmith.errors import ShapeError
from eyesmith.losses import contrastive_loss


def _rows(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 8, generator=generator, dtype=torch.float64).float(), dim=-1)


def _slow_loss(image: torch.Tensor, text: torch.Tensor, scale: float, same: torch.Tensor) -> float:
    """The definition, one pair at a time."""
    total, count = 0.0, len(image)
    for i in range(count):
        for a, b, is_image in ((image, text, True), (text, image, False)):
            own = scale * float(a[i] @ b[i])
            terms = [
                scale * float(a[i] @ b[j])
                for j in range(count)
                if j == i or not (same[i, j] if is_image else same[j, i])
            ]
            total += math.log(sum(math.exp(term - own) for term in terms))
    return total / (2 * count)


def test_loss_of_equal_rows_is_log_batch() -> None:
    rows = torch.ones(4, 8) / 8**0.5  # every pair equally similar
    torch.testing.assert_close(contrastive_loss(rows, rows, torch.tensor(1.0)), torch.tensor(4.0).log())


@pytest.mark.parametrize("has_same", [False, True])
def test_loss_equals_a_slow_loop(has_same: bool) -> None:
    image, text = _rows(6, 0), _rows(6, 1)
    same = torch.zeros(6, 6, dtype=torch.bool)
    if has_same:
        same[0, 3] = same[3, 0] = same[1, 4] = True  # one way only: image 1 and text 4
    loss = contrastive_loss(image, text, torch.tensor(7.0), same if has_same else None)
    assert loss.item() == pytest.approx(_slow_loss(image, text, 7.0, same), rel=1e-6)


def test_the_diagonal_is_kept() -> None:
    rows = _rows(3, 4)
    every = torch.ones(3, 3, dtype=torch.bool)
    assert contrastive_loss(rows, rows, torch.tensor(2.0), every).item() == pytest.approx(0.0, abs=1e-7)


def test_shapes_are_checked() -> None:
    with pytest.raises(ShapeError, match="equal shapes"):
        contrastive_loss(torch.zeros(3, 8), torch.zeros(4, 8), torch.tensor(1.0))
    with pytest.raises(ShapeError, match="same"):
        contrastive_loss(torch.zeros(3, 8), torch.zeros(3, 8), torch.tensor(1.0), torch.ones(2, 3, dtype=torch.bool))
