"""The Gaussian-discriminant head: class means, one shared shrunk covariance; no training, one linear system."""

import torch
from torch import Tensor

from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.heads.logistic import LinearHead, check_labelled


class GaussianStatistics:
    """Class means [K, D], the covariance within classes [D, D] (divided by N) and priors [K], float64.

    Computed once; `head` solves for any shrinkage. priors: "uniform", or each class's share of the samples.
    """

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int, *, uniform_priors: bool = False) -> None:
        """features: [N, D]; labels: [N] int64, each of the classes at least once. Errors as `fit_logistic`."""
        check_labelled(features, labels, num_classes)
        x = features.double()
        counts = torch.bincount(labels, minlength=num_classes).double()
        sums = torch.zeros(num_classes, x.shape[1], dtype=torch.float64).index_add_(0, labels, x)
        self.means = sums / counts[:, None]  # [K, D]
        centred = x - self.means[labels]
        # each class's covariance weighted by its prior, as discriminant analysis has it
        shares = counts / counts.sum() if not uniform_priors else torch.full_like(counts, 1 / num_classes)
        weight = (shares / counts)[labels].sqrt()  # [N]
        weighted = centred * weight[:, None]
        self.covariance = weighted.mT @ weighted  # [D, D]
        self.priors = shares

    def head(self, shrinkage: float) -> LinearHead:
        """The linear discriminant of covariance (1 - shrinkage) * S + shrinkage * (trace(S) / D) * I.

        shrinkage: 0..1; 0 works only where there are enough samples for S to have full rank (DataError else).
        Logits are log posteriors but for a constant a row. Source: Ledoit and Wolf 2004 for the target of shrinkage;
        with a fixed shrinkage equal to scikit-learn's LinearDiscriminantAnalysis(solver="lsqr"). For image-text
        features: Wang et al. 2024 (arXiv 2402.04087), who take uniform priors and another ridge.
        """
        if not 0 <= shrinkage <= 1:
            raise ConfigError(f"shrinkage: expected a number from 0 to 1, got {shrinkage}")
        size = len(self.covariance)
        level = float(self.covariance.trace()) / size
        if level <= 0:
            raise DataError("Gaussian head: the samples of every class are equal, so there is no covariance to fit")
        shrunk = (1 - shrinkage) * self.covariance + shrinkage * level * torch.eye(size, dtype=torch.float64)
        factor, failed = torch.linalg.cholesky_ex(shrunk)
        if int(failed) or float(factor.diagonal().min()) ** 2 < 1e-12 * level:
            raise DataError(
                f"Gaussian head: the covariance of {size} feature dimensions cannot be inverted at shrinkage "
                f"{shrinkage:g}; use more samples or a shrinkage above 0"
            )
        weight = torch.cholesky_solve(self.means.mT, factor).mT  # [K, D]
        bias = -0.5 * (weight * self.means).sum(1) + self.priors.log()
        return LinearHead(weight=weight, bias=bias)


def fit_gaussian(
    features: Tensor, labels: Tensor, num_classes: int, *, shrinkage: float, uniform_priors: bool = False
) -> LinearHead:
    """`GaussianStatistics` and `head` in one call."""
    return GaussianStatistics(features, labels, num_classes, uniform_priors=uniform_priors).head(shrinkage)


def mix(zero_shot: Tensor, gaussian: Tensor, alpha: float) -> Tensor:
    """Logits of the zero-shot classifier plus alpha times those of the Gaussian head, both [N, K] -> [N, K] fp64.

    zero_shot: at the model's own scale. alpha 0 is zero-shot alone. Source: arXiv 2402.04087, section 3.
    """
    if alpha < 0:
        raise ConfigError(f"alpha: expected a number of at least 0, got {alpha}")
    return zero_shot.double() + alpha * gaussian.double()
