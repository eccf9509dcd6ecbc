"""Stochastic depth whose draws can be made outside: for the rows of a whole batch, whoever computes which of them."""

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Drops a residual branch for some samples, and scales it up for the others so that its mean stays.

    Draws from torch's global generator, unless `factors` were given: [B], 0 or 1 / (1 - prob), row i for sample i.
    Given factors make a pass repeatable, and one graph serves blocks of every rate when they are compiled.
    """

    def __init__(self, prob: float) -> None:
        super().__init__()
        self.prob = prob
        self.factors: Tensor | None = None

    def forward(self, branch: Tensor) -> Tensor:
        """branch: [B, ...]. Returns the same shape; the branch itself outside of training."""
        if not self.training:
            return branch
        factors = self.factors
        if factors is None:
            if self.prob == 0:
                return branch
            factors = self.draw(len(branch), branch.device)
        return branch * factors.view(-1, *(1,) * (branch.ndim - 1)).to(branch.dtype)

    def draw(self, num_rows: int, device: torch.device | None = None) -> Tensor:
        """[num_rows] fp32 factors from the device's global generator (None: the CPU's)."""
        keep = 1 - self.prob
        return torch.empty(num_rows, device=device).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        """What a print of the module shows."""
        return f"prob={self.prob:.3g}"
