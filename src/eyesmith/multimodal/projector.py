"""From the tokens of an eye to the embeddings of a language model: Linear, GELU, Linear (LLaVA-1.5's mlp2x_gelu)."""

import torch
from torch import Tensor, nn


class Projector(nn.Module):
    """Parts and names are those of transformers' LlavaMultiModalProjector."""

    def __init__(self, width: int, language_width: int) -> None:
        """width: of the eye's tokens."""
        super().__init__()
        self.linear_1 = nn.Linear(width, language_width)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(language_width, language_width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., width] -> [..., language_width]."""
        return self.linear_2(self.act(self.linear_1(tokens)))

    @torch.no_grad()
    def fit(self, tokens: Tensor, rms: float) -> None:
        """Fold into the layers what brings each channel of the eye to mean 0 and deviation 1, and results to `rms`.

        A language model trained on embeddings of its own scale is else shown vectors several times as long. tokens:
        [n, N, width], of some pictures. rms: root mean square of its embeddings.
        """
        flat = tokens.flatten(0, -2).float()
        deviation, mean = torch.std_mean(flat, dim=0)
        self.linear_1.weight.div_(deviation.clamp(min=1e-6))
        self.linear_1.bias.sub_(self.linear_1.weight @ mean)
        found = self(flat).square().mean().sqrt()
        for value in (self.linear_2.weight, self.linear_2.bias):
            value.mul_(rms / found)
