import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.heads import GaussianStatistics, fit_gaussian, mix


def made(counts=(30, 12, 25), width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    rows = torch.randn(len(counts), width, generator=generator)[labels]
    return rows + torch.randn(len(labels), width, generator=generator), labels


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 0.7, 1.0])
@pytest.mark.parametrize("uniform", [False, True])
def test_equals_scikit_learn(shrinkage, uniform):
    features, labels = made()
    priors = np.full(3, 1 / 3) if uniform else None
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage or None, priors=priors)
    theirs.fit(features.double().numpy(), labels.numpy())
    ours = fit_gaussian(features, labels, 3, shrinkage=shrinkage, uniform_priors=uniform)
    np.testing.assert_allclose(ours.weight.numpy(), theirs.coef_, atol=1e-9)
    np.testing.assert_allclose(ours.bias.numpy(), theirs.intercept_, atol=1e-9)
    expected = theirs.predict_proba(features.double().numpy())
    np.testing.assert_allclose(ours(features).softmax(1).numpy(), expected, atol=1e-9)


def test_two_classes_equal_scikit_learn_too():
    features, labels = made((20, 30))
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(features.double().numpy(), labels.numpy())
    found = fit_gaussian(features, labels, 2, shrinkage=0.3)(features).softmax(1).numpy()
    np.testing.assert_allclose(found, theirs.predict_proba(features.double().numpy()), atol=1e-9)


def test_fewer_samples_than_dimensions_need_shrinkage():
    features, labels = made((2, 2), width=8)
    statistics = GaussianStatistics(features, labels, 2)
    with pytest.raises(DataError, match="cannot be inverted at shrinkage 0"):
        statistics.head(0.0)
    assert torch.isfinite(statistics.head(0.1).weight).all()
    with pytest.raises(DataError, match="no covariance"):
        GaussianStatistics(torch.eye(3), torch.arange(3), 3).head(0.5)
    with pytest.raises(ConfigError, match="0 to 1"):
        statistics.head(2)


def test_mixing_weighs_the_gaussian_logits():
    one, other = torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, -2.0]])
    torch.testing.assert_close(mix(one, other, 0.5), torch.tensor([[3.0, 1.0]], dtype=torch.float64))
    with pytest.raises(ConfigError, match="alpha"):
        mix(one, other, -1)
