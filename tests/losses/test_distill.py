import pytest
import torch
import torch.nn.functional as F
from slow_loss import inputs, relative_error
from torch import Tensor

from eyesmith.errors import ConfigError, ShapeError
from eyesmith.losses.distill import affinity_distillation, feature_distillation, logit_distillation

COUNT = 11


def _slow_logit(student: list[Tensor], teacher: list[Tensor], temperature: float) -> Tensor:
    """Mean over images and texts of sum over the batch of p log(p / q)."""
    total = torch.zeros(()).double()
    for first, second in ((0, 1), (1, 0)):
        for i in range(COUNT):
            q = torch.stack([student[2] / temperature * (student[first][i] @ row) for row in student[second]]).softmax(
                0
            )
            p = torch.stack([teacher[2] / temperature * (teacher[first][i] @ row) for row in teacher[second]]).softmax(
                0
            )
            for j in range(COUNT):
                total = total + p[j] * torch.log(p[j] / q[j])
    return temperature**2 * total / (2 * COUNT)


def _slow_affinity(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    total = torch.zeros(()).double()
    for i in range(COUNT):
        for j in range(COUNT):
            total = total + (student[0][i] @ student[1][j] - teacher[0][i] @ teacher[1][j]) ** 2
    return total / COUNT**2


def _slow_feature(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    total = torch.zeros(()).double()
    for side in (0, 1):
        for i in range(COUNT):
            total = total + sum((a - b) ** 2 for a, b in zip(student[side][i], teacher[side][i], strict=True))
    return total / (2 * COUNT)


def _leaves(dtype: torch.dtype, *, seed: int = 0, width: int = 8, scale: float | None = None) -> list[Tensor]:
    values = inputs(COUNT, seed=seed, width=width)
    scale_value = values["scale"] if scale is None else torch.tensor(scale)
    return [leaf.to(dtype, copy=True).requires_grad_() for leaf in (values["image"], values["text"], scale_value)]


@pytest.mark.parametrize("name", ["feature", "logit", "affinity"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_each_equals_its_slow_loop(name: str, dtype: torch.dtype, bound: float) -> None:
    width = 8 if name == "feature" else 5
    sides = [_leaves(kind, seed=seed, width=w, scale=s) for kind in (dtype, torch.float64)
             for seed, w, s in ((0, 8, None), (1, width, 9.0))]  # fmt: skip
    student, teacher, exact_student, exact_teacher = sides
    if name == "feature":
        found = feature_distillation(*student[:2], *teacher[:2])
        exact = _slow_feature(exact_student, exact_teacher)
    elif name == "logit":
        found = logit_distillation(*student, *teacher, temperature=2.0, tile_rows=2)
        exact = _slow_logit(exact_student, exact_teacher, 2.0)
    else:
        found = affinity_distillation(*student[:2], *teacher[:2])
        exact = _slow_affinity(exact_student, exact_teacher)
    found.backward()
    exact.backward()
    assert found.dtype == dtype
    assert relative_error(found.detach(), exact.detach()) <= bound
    for ours, theirs in zip(student[: 3 if name == "logit" else 2], exact_student, strict=False):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert relative_error(ours.grad, theirs.grad) <= bound
    assert all(leaf.grad is None for leaf in teacher)


@pytest.mark.parametrize("tile_rows", [1, 2, 3, 64])
def test_tiles_change_nothing(tile_rows: int) -> None:
    student, teacher = _leaves(torch.float64), _leaves(torch.float64, seed=1, scale=9.0)
    found = logit_distillation(*student, *teacher, tile_rows=tile_rows)
    assert relative_error(found.detach(), _slow_logit(student, teacher, 1.0).detach()) <= 1e-12


def test_a_student_equal_to_its_teacher_has_nothing_to_learn() -> None:
    student, teacher = _leaves(torch.float64), _leaves(torch.float64)
    for value in (
        feature_distillation(*student[:2], *teacher[:2]),
        logit_distillation(*student, *teacher),
        affinity_distillation(*student[:2], *teacher[:2]),
    ):
        assert value.item() == pytest.approx(0, abs=1e-14)


def test_only_some_gradients_asked_for() -> None:
    student, teacher = _leaves(torch.float64), _leaves(torch.float64, seed=1)
    whole = _leaves(torch.float64)
    logit_distillation(*whole, *teacher).backward()
    logit_distillation(student[0], student[1].detach(), student[2].detach(), *teacher).backward()
    torch.testing.assert_close(student[0].grad, whole[0].grad, rtol=1e-12, atol=0)


def test_a_nan_is_passed_on() -> None:
    student, teacher = _leaves(torch.float64), _leaves(torch.float64, seed=1)
    with torch.no_grad():
        student[0][3, 1] = torch.nan
    for value in (
        feature_distillation(*student[:2], *teacher[:2]),
        logit_distillation(*student, *teacher),
        affinity_distillation(*student[:2], *teacher[:2]),
    ):
        assert value.isnan()


def test_what_is_refused() -> None:
    rows, scale = F.normalize(torch.ones(3, 4)), torch.tensor(1.0)
    with pytest.raises(ShapeError, match="project the student"):
        feature_distillation(rows, rows, rows[:, :2], rows[:, :2])
    with pytest.raises(ShapeError, match="teacher: expected images and texts of one shape"):
        affinity_distillation(rows, rows, rows[:2], rows[:2])
    with pytest.raises(ShapeError, match="teacher"):
        logit_distillation(rows, rows, scale, rows, rows[:, :2], scale)
    with pytest.raises(ConfigError, match="temperature"):
        logit_distillation(rows, rows, scale, rows, rows, scale, temperature=0.0)
