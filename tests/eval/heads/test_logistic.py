import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from eyesmith.errors import ConfigError, DataError, EyesmithError, ShapeError
from eyesmith.eval.heads import fit_logistic, logistic


def made(count=120, classes=4, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, width, generator=generator)
    rows = centres[labels] + torch.randn(count, width, generator=generator)
    return torch.nn.functional.normalize(rows, dim=-1), labels


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("c", [0.1, 10.0, 1000.0])
def test_equals_scikit_learn(classes, c):
    features, labels = made(classes=classes)
    theirs = LogisticRegression(C=c, solver="newton-cg", tol=1e-10, max_iter=10_000)  # lbfgs stops early at large C
    theirs.fit(features.double().numpy(), labels.numpy())
    ours = fit_logistic(features, labels, classes, c=c, tolerance=1e-9)
    logits = ours(features)
    np.testing.assert_allclose(logits.softmax(1).numpy(), theirs.predict_proba(features.double().numpy()), atol=1e-6)
    if classes > 2:
        np.testing.assert_allclose(ours.weight.numpy(), theirs.coef_, atol=1e-4 * max(1, np.abs(theirs.coef_).max()))


def test_a_start_changes_the_way_but_not_the_end():
    features, labels = made()
    start = fit_logistic(features, labels, 4, c=1.0)
    cold, warm = (fit_logistic(features, labels, 4, c=30.0, start=s, tolerance=1e-9) for s in (None, start))
    torch.testing.assert_close(cold.weight, warm.weight, atol=1e-5, rtol=1e-5)


def test_what_has_no_optimum_in_reach_is_said():
    with pytest.raises(EyesmithError, match="did not reach its optimum in 2 steps"):
        fit_logistic(*made(), 4, c=1e6, max_steps=2)


def test_wrong_input_is_named():
    features, labels = made()
    with pytest.raises(DataError, match="class 4 has no training sample"):
        fit_logistic(features, labels, 5, c=1.0)
    with pytest.raises(DataError, match=r"0\.\.2, got 0\.\.3"):
        fit_logistic(features, labels, 3, c=1.0)
    with pytest.raises(ConfigError, match="positive"):
        fit_logistic(features, labels, 4, c=0)
    with pytest.raises(ShapeError, match="int64"):
        fit_logistic(features, labels.float(), 4, c=1.0)
    with pytest.raises(DataError, match="at least 2 classes"):
        fit_logistic(features, labels * 0, 1, c=1.0)
    with pytest.raises(EyesmithError, match="not finite"):
        fit_logistic(features * float("nan"), labels, 4, c=1.0)


def test_blocks_of_rows_reach_the_same_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    features = F.normalize(torch.randn(90, 8, generator=generator), dim=-1)
    labels = torch.arange(90) % 3
    whole = fit_logistic(features, labels, 3, c=10.0, tolerance=1e-9)
    monkeypatch.setattr(logistic, "_BLOCK_NUMBERS", 9 * 7)  # seven rows
    monkeypatch.setattr(logistic, "_HELD_NUMBERS", 0)
    parts = fit_logistic(features, labels, 3, c=10.0, tolerance=1e-9, device=torch.device("cpu"))
    torch.testing.assert_close(parts.weight, whole.weight, atol=1e-7, rtol=0)
    torch.testing.assert_close(parts(features), whole(features), atol=1e-7, rtol=0)
    assert whole(features[:0]).shape == (0, 3)
