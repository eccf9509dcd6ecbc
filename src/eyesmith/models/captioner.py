"""A decoder that tells a picture's caption word by word from what an image encoder says of its cells."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eyesmith.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CaptionerConfig:
    """The size of a caption decoder."""

    width: int = 256
    """Channels."""
    depth: int = 2
    """Blocks of self-attention, attention to the cells, and an MLP."""
    heads: int = 4
    """Attention heads; must divide the width."""

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads) < 1 or self.width % self.heads:
            raise ConfigError(f"caption: expected a width that its heads divide and a depth of 1 or more, got {self}")


class Captioner(nn.Module):
    """Causal blocks that read cells; words come out by the table that they go in by.

    As CoCa's multimodal decoder (arXiv 2205.01917). Departs: it has a word table of its own in place of the states of
    the text tower, which so may be of any kind, or be left out (GenLIP, arXiv 2605.00809).
    """

    def __init__(self, config: CaptionerConfig, *, cells: int, vocab_size: int, context_len: int) -> None:
        """cells: channels of what it reads."""
        super().__init__()
        width = config.width
        self.words = nn.Embedding(vocab_size, width)
        self.positions = nn.Parameter(torch.empty(context_len, width))
        self.cells = nn.Linear(cells, width)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                width, config.heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.words.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)

    def forward(self, cells: Tensor, ids: Tensor) -> Tensor:
        """States after each token but the last: cells [b, N, C], ids int64 [b, L] -> [b, L - 1, W].

        Their products with the table `words` are the logits of what may follow.
        """
        seen = self.cells(cells)  # [b, N, W]
        length = ids.shape[1] - 1
        x = self.words(ids[:, :-1]) + self.positions[:length]  # [b, L - 1, W]
        later = torch.ones(length, length, dtype=torch.bool, device=ids.device).triu(1)
        for layer in self.layers:
            x = layer(x, seen, tgt_mask=later)
        return self.norm(x)
