"""Linear probes of maps beside scikit-learn's regressions on the same cells."""

import numpy as np
import pytest
import torch

from eyesmith.dense.probes import cell_shares, depth_errors, fit_depth, fit_segmentation
from eyesmith.errors import ConfigError, DataError, ShapeError


@pytest.fixture
def maps() -> torch.Tensor:
    return torch.randn(3, 5, 4, 6, generator=torch.Generator().manual_seed(0))


def blocks(cells: torch.Tensor, side: int = 4) -> torch.Tensor:
    """A value a cell, [B, h, w], as pixels."""
    return cells.repeat_interleave(side, 1).repeat_interleave(side, 2)


def test_classes_are_scikit_learns_logistic_regression(maps: torch.Tensor) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    target = (maps[:, :3] + 0.8 * torch.randn(3, 3, 4, 6, generator=torch.Generator().manual_seed(1))).argmax(1)
    probe = fit_segmentation(maps, blocks(target), 3, c=0.7)
    cells = maps.movedim(1, 3).reshape(-1, 5).double().numpy()
    scaled = (cells - cells.mean(0)) / cells.std(0)
    theirs = linear.LogisticRegression(C=0.7, tol=1e-10, max_iter=5000).fit(scaled, target.flatten().numpy())
    ours = probe.logits(maps, (4, 6)).softmax(1).movedim(1, 3).reshape(-1, 3).numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(scaled), atol=1e-4)
    assert (probe(maps, (16, 24)) == blocks(target)).double().mean() > 0.6


def test_depth_is_scikit_learns_ridge_regression(maps: torch.Tensor) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    target = maps @ torch.eye(6)
    depth = 5 + (target[:, 0] - 0.5 * target[:, 1]).double()
    probe = fit_depth(maps, blocks(depth), penalty=2.0)
    cells = maps.movedim(1, 3).reshape(-1, 5).double().numpy()
    scaled = (cells - cells.mean(0)) / cells.std(0)
    theirs = linear.Ridge(alpha=2.0).fit(scaled, depth.flatten().numpy())
    np.testing.assert_allclose(probe.weight.numpy(), theirs.coef_, atol=1e-8)
    assert float(probe.bias) == pytest.approx(float(theirs.intercept_))
    found = probe(maps, (4, 6))
    np.testing.assert_allclose(found.flatten().numpy(), theirs.predict(scaled), atol=1e-8)


def test_unknown_pixels_do_not_count(maps: torch.Tensor) -> None:
    depth = blocks(5 + maps[:, 0].double())
    whole = fit_depth(maps, depth)
    holes = depth.clone()
    holes[:, ::4] = torch.nan
    holes[:, 1::4, ::4] = 0
    assert torch.allclose(fit_depth(maps, holes).weight, whole.weight)
    labels = blocks(maps[:, :2].argmax(1))
    void = labels.clone()
    void[:, ::4] = -1
    one, other = fit_segmentation(maps, labels, 2), fit_segmentation(maps, void, 2)
    torch.testing.assert_close(one.head.weight, other.head.weight)


def test_shares_of_cells_and_errors_by_hand() -> None:
    labels = torch.tensor([[[0, 0, 1, -1], [0, 1, 1, 1]]])
    assert cell_shares(labels, 2, (1, 2)).tolist() == [[[[0.75, 0.25], [0.0, 0.75]]]]
    errors = depth_errors(torch.tensor([2.0, 4.0, 9.0]), torch.tensor([2.0, 2.0, float("nan")]))
    assert errors == {"rmse": pytest.approx(2**0.5), "abs_rel": 0.5, "delta1": 0.5}


def test_what_cannot_be_fitted_is_told(maps: torch.Tensor) -> None:
    labels = blocks(maps[:, :2].argmax(1))
    with pytest.raises(DataError, match=r"classes \[2\] fill 50 % of no cell"):
        fit_segmentation(maps, labels, 3)
    with pytest.raises(DataError, match="expected -1 to 0"):
        fit_segmentation(maps, labels, 1)
    with pytest.raises(DataError, match="not finite"):
        fit_segmentation(maps * torch.nan, labels, 2)
    with pytest.raises(ShapeError, match="labels"):
        cell_shares(labels[0], 2, (1, 1))
    with pytest.raises(ConfigError, match="least_share"):
        fit_segmentation(maps, labels, 2, least_share=0)
    with pytest.raises(DataError, match="not one pixel"):
        fit_depth(maps, torch.zeros(3, 16, 24))
    with pytest.raises(DataError, match="infinite or negative"):
        fit_depth(maps, -torch.ones(3, 16, 24))
    with pytest.raises(ConfigError, match="penalty"):
        fit_depth(maps, torch.ones(3, 16, 24), penalty=0)
    with pytest.raises(ShapeError, match="as what was found"):
        depth_errors(torch.ones(2), torch.ones(3))
