"""OpenCLIP's text transformer: token ids in, one projected vector a text out.

Parameter names are OpenCLIP's own. Shapes: T texts, L tokens of the longest text, C channels, D projected width.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.config import check_choices
from eyesmith.errors import ConfigError, ShapeError
from eyesmith.models.activation import Activation
from eyesmith.models.cpu_ops import attend
from eyesmith.models.linear import Linear, can_fuse
from eyesmith.tokenizer import Cleaning, ClipTokenizer, PieceTokenizer, TokenizerName
from eyesmith.tokenizer.vocabulary import BYTES, find_vocabulary, read_vocabulary

Pooling = Literal["largest", "end", "last"]
Projection = Literal["plain", "biased", "none"]
GROUP_MACS = 3_000_000  # multiply-adds that take as long as one more group in one block, forward and backward, 2 cores


@dataclass(frozen=True, kw_only=True)
class ClipTextConfig:
    """OpenCLIP's text transformer, trained from nothing or loaded from published weights."""

    width: int
    """Channels of the transformer."""
    depth: int
    """Transformer blocks."""
    heads: int
    """Attention heads; must divide the width."""
    embed_dim: int
    """Width of the projected feature."""
    context_len: int = 77
    """Longest text in tokens, start and end token included."""
    vocab_size: int = 49408
    """Tokens of the vocabulary; the end-of-text token must be the largest id. 514: bytes alone, which need no file."""
    mlp_ratio: float = 4.0
    """Hidden channels of the MLP over the width."""
    activation: Activation = "gelu"
    """Inside the MLPs. Weights do not tell which they were trained with."""
    is_causal: bool = True
    """Whether no token sees a later one. Without, padding is seen, and a text is always context_len tokens long."""
    pooling: Pooling = "largest"
    """Whose state is the text's: the first token of the largest id (CLIP's end of text), the first `end_id`, or the
    last token of context_len."""
    end_id: int = 0
    """With pooling `end`: the id of the end token."""
    projection: Projection = "plain"
    """A matrix, a matrix with a bias, or none, where embed_dim is the width."""
    norm_eps: float = 1e-5
    """Of every LayerNorm."""
    tokenizer: TokenizerName = "clip"
    """Whose vocabulary cuts texts into tokens."""
    cleaning: Cleaning = "lower"
    """What is done to a text first. Hugging Face and OpenCLIP clean for the same SigLIP in different ways."""

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads, self.embed_dim) < 1 or self.mlp_ratio <= 0:
            raise ConfigError(f"width, depth, heads, embed_dim and mlp_ratio must be positive, got {self}")
        if self.width % self.heads:
            raise ConfigError(f"heads: {self.heads} does not divide the width {self.width}")
        if self.context_len < 2:
            raise ConfigError(f"context_len: expected at least 2 (start and end token), got {self.context_len}")
        if self.vocab_size < 3:
            raise ConfigError(f"vocab_size: expected at least 3, got {self.vocab_size}")
        if self.norm_eps <= 0:
            raise ConfigError(f"norm_eps: expected a number above 0, got {self.norm_eps}")
        check_choices(self)
        if not self.is_causal and self.pooling != "last":
            raise ConfigError(f"pooling: without causal attention the feature is the last token's, got {self.pooling}")
        if self.projection == "none" and self.embed_dim != self.width:
            raise ConfigError(f"embed_dim: without projection it is the width, {self.width}, got {self.embed_dim}")
        if self.tokenizer == "clip" and self.cleaning != "lower":
            raise ConfigError(f"cleaning: CLIP's tokenizer has its own, 'lower', got {self.cleaning!r}")

    @property
    def hidden_dim(self) -> int:
        """Channels inside the MLPs."""
        return int(self.width * self.mlp_ratio + 1e-6)  # a ratio of two whole numbers may be a hair too small

    @property
    def reads_bytes(self) -> bool:
        """Whether its tokens are bytes, in place of CLIP's vocabulary."""
        return self.tokenizer == "clip" and self.vocab_size == BYTES.end_id + 1

    def of_bytes(self) -> Self:
        """The same tower with bytes for tokens: what can be trained where CLIP's vocabulary is not at hand."""
        return replace(self, vocab_size=BYTES.end_id + 1)

    def build(self) -> "ClipText":
        """A new tower with the reference's random initialisation."""
        return ClipText(self)


CLIP_TEXT: dict[str, ClipTextConfig] = {
    size: ClipTextConfig(width=width, depth=depth, heads=heads, embed_dim=width)
    for size, (width, depth, heads) in {
        "nano": (128, 4, 2),
        "small": (384, 12, 6),
        "base": (512, 12, 8),
        "large": (768, 12, 12),
        "large2": (1024, 24, 16),
        "xlarge": (1152, 27, 16),
        "enormous": (1280, 32, 20),
    }.items()
}
"""OpenCLIP's text towers by size; the projection is that of the model that one is part of."""


@dataclass(frozen=True, slots=True)
class Packing:
    """A batch of texts without its padding: the true tokens of one text after the other, in groups of equal length.

    Linear layers, norms and MLPs see rows of tokens and do not care which text a row is of; attention runs group by
    group. Captions of 5 to 25 words, 16 of a batch: 23 tokens a text in place of 39.
    """

    groups: tuple[tuple[int, int], ...]
    """(texts, tokens of each) of the groups, in the order of their rows."""
    texts: Tensor
    """int64 [rows]: the text of each row."""
    places: Tensor
    """int64 [rows]: the place of each row in its text, from 0."""
    ends: Tensor
    """int64 [T]: the row of each text's last token, in the order of the batch."""


def pack_texts(lengths: Sequence[int], spare: int) -> Packing:
    """Texts of equal length make a group; shorter ones join it while that pads less than `spare` tokens in all.

    lengths: tokens of each text, at least 1. A row of padding stands behind its text's end, where the causal attention
    keeps it from all that counts.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    groups: list[tuple[int, int]] = []
    padded = 0
    for text in order:
        padded += groups[-1][1] - lengths[text] if groups else 0
        if groups and (lengths[text] == groups[-1][1] or padded < spare):
            groups[-1] = groups[-1][0] + 1, groups[-1][1]
        else:
            groups.append((1, lengths[text]))
            padded = 0
    texts = torch.tensor(order)
    widths = torch.tensor([length for count, length in groups for _ in range(count)])  # [T], sorted as the texts
    starts = widths.cumsum(0) - widths
    ends = torch.empty_like(texts)
    ends[texts] = starts + torch.tensor(lengths)[texts] - 1
    rows = torch.arange(int(widths.sum()))
    return Packing(tuple(groups), texts.repeat_interleave(widths), rows - starts.repeat_interleave(widths), ends)


def attend_causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention where no token sees a later one. q, k, v: [T, heads, L, C/heads]; returns the same shape.

    Training in bfloat16 on a CPU takes plain products: torch 2.13's fused kernel needs 3 to 6 times as long there,
    forward and backward (12 to 77 tokens, 128 texts). The numbers are the same within rounding.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad:
        later = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).triu(1)
        scores = (q * q.shape[-1] ** -0.5 @ k.mT).float().masked_fill(later, float("-inf"))
        return scores.softmax(dim=-1).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class Attention(nn.Module):
    """Multi-head self-attention with one packed projection."""

    def __init__(self, width: int, heads: int, *, is_causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.is_causal = is_causal
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = Linear(width, width)

    def forward(
        self, x: Tensor, *, plus: Tensor | None = None, packing: Packing | None = None, kept: Tensor | None = None
    ) -> Tensor:
        """x: [T, L, C], or packed rows [R, C] with their packing, of which `kept` come out (None: all). plus: as they.

        Returns x's shape, or [K, C] of K kept rows.
        """
        packed = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # [T, L, 3C] or [R, 3C]
        if packing is None:
            return self.out_proj(self._mix(packed), plus=plus)
        sizes = [count * length for count, length in packing.groups]
        parts = [
            self._mix(part.view(count, length, -1)).flatten(0, 1)
            for part, (count, length) in zip(packed.split(sizes), packing.groups, strict=True)
        ]
        mixed = torch.cat(parts)  # [R, C]
        return self.out_proj(mixed if kept is None else mixed[kept], plus=plus)

    def of_last(self, x: Tensor, *, plus: Tensor) -> Tensor:
        """The same for the last token alone, which sees all: x [T, L, C] -> [T, 1, C]; plus: as the result."""
        width = x.shape[-1]
        q = F.linear(x[:, -1:], self.in_proj_weight[:width], self.in_proj_bias[:width])
        k, v = F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:]).chunk(2, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, width // self.heads)).transpose(1, 2) for part in (q, k, v))
        return self.out_proj(attend(q, k, v).transpose(1, 2).flatten(2), plus=plus)

    def _mix(self, packed: Tensor) -> Tensor:
        num_texts, length, width = packed.shape[0], packed.shape[1], packed.shape[2] // 3
        q, k, v = packed.view(num_texts, length, 3, self.heads, width // self.heads).permute(
            2, 0, 3, 1, 4
        )  # 3 x [T, heads, L, C/heads]
        mixed = attend_causal(q, k, v) if self.is_causal else attend(q, k, v)
        return mixed.transpose(1, 2).reshape(num_texts, length, width)


class Mlp(nn.Module):
    """Two linear layers around an activation."""

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.c_fc = Linear(width, hidden)
        self.c_proj = Linear(hidden, width)

    def forward(self, x: Tensor, *, plus: Tensor | None = None) -> Tensor:
        return self.c_proj(self.c_fc(x, act=self.activation), plus=plus)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attn = Attention(config.width, config.heads, is_causal=config.is_causal)
        self.ln_2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = Mlp(config.width, config.hidden_dim, config.activation)

    def forward(self, x: Tensor, *, packing: Packing | None = None, kept: Tensor | None = None) -> Tensor:
        """x: [T, L, C], or packed rows [R, C], of which `kept` come out; see Attention."""
        y = self.ln_1(x)
        x = x if kept is None else x[kept]
        if can_fuse(x, self.attn.out_proj.weight):  # sums in the products' epilogues
            x = self.attn(y, plus=x, packing=packing, kept=kept)
            return self.mlp(self.ln_2(x), plus=x)
        x = x + self.attn(y, packing=packing, kept=kept)
        return x + self.mlp(self.ln_2(x))

    def of_last(self, x: Tensor) -> Tensor:
        """What forward gives for the last token: [T, L, C] -> [T, 1, C]."""
        x = self.attn.of_last(self.ln_1(x), plus=x[:, -1:])
        return self.mlp(self.ln_2(x), plus=x)


class Transformer(nn.Module):
    """The blocks in order; exists so that parameters carry OpenCLIP's names."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(config) for _ in range(config.depth))

    def forward(self, x: Tensor, packing: Packing | None = None, *, is_last_wanted: bool = False) -> Tensor:
        """x: [T, L, C] to the same, or with is_last_wanted to the last tokens' states [T, 1, C]; or packed rows [R, C]
        to the states of the end tokens, [T, C].
        """
        if is_last_wanted:
            for block in self.resblocks[:-1]:
                x = block(x)
            return cast(Block, self.resblocks[-1]).of_last(x)
        if packing is None:
            for block in self.resblocks:
                x = block(x)
            return x
        for block in self.resblocks[:-1]:
            x = block(x, packing=packing)
        return self.resblocks[-1](x, packing=packing, kept=packing.ends)


class ClipText(nn.Module):
    """OpenCLIP's text tower: CLIP's, SigLIP's and CLIPA's.

    `out_dim` is the projected width, `context_len` the longest text in tokens. A text's vector is the last state at the
    token that `pooling` names. With causal attention what follows that token cannot reach it, so padding needs no mask,
    and a batch may be cut after its last end token without changing a value; `is_cut` says so. Else all of
    context_len is read, padding included, and the vector is that of the last token.
    Departs from open_clip 3.3: that cut, or no padding at all (Packing), and what only pooled tokens need is computed
    for them alone: ln_final, packed or pooled at the last token also the last block but for its keys and values.
    """

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.config = config
        self.out_dim = config.embed_dim
        self.context_len = config.context_len
        self.is_cut = config.pooling != "last"
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_len, config.width))
        self.transformer = Transformer(config)
        self.ln_final = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.text_projection: nn.Parameter | nn.Linear | None = None  # open_clip's three
        if config.projection == "plain":
            self.text_projection = nn.Parameter(torch.empty(config.width, config.embed_dim))
        elif config.projection == "biased":
            self.text_projection = nn.Linear(config.width, config.embed_dim)
        self._tokenizer: ClipTokenizer | PieceTokenizer | None = None
        self._assets: Path | None = None
        self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """Draw every weight anew. Source: open_clip 3.3 TextTransformer.init_parameters.

        Normal with these deviations (C width, N depth): tokens 0.02, positions 0.01, in_proj and text_projection
        C^-0.5, out_proj and c_proj (2 N C)^-0.5, c_fc (2 C)^-0.5. Biases of attention and projection 0; MLP biases as
        nn.Linear draws.
        """
        width, depth = self.config.width, self.config.depth
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        for block in self.transformer.resblocks:
            assert isinstance(block, Block)
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.zeros_(block.attn.in_proj_bias)
            nn.init.normal_(block.attn.out_proj.weight, std=(2 * depth * width) ** -0.5)
            nn.init.zeros_(block.attn.out_proj.bias)
            block.mlp.c_fc.reset_parameters()
            block.mlp.c_proj.reset_parameters()
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=(2 * depth * width) ** -0.5)
            block.ln_1.reset_parameters()
            block.ln_2.reset_parameters()
        self.ln_final.reset_parameters()
        if isinstance(self.text_projection, nn.Linear):
            nn.init.normal_(self.text_projection.weight, std=width**-0.5)
            nn.init.zeros_(self.text_projection.bias)
        elif self.text_projection is not None:
            nn.init.normal_(self.text_projection, std=width**-0.5)

    @property
    def tokenizer(self) -> ClipTokenizer | PieceTokenizer:
        """The tokenizer, made at first use: of bytes, CLIP's as `find_vocabulary` finds it, others from the folder of
        the weights or the Hugging Face cache. Raises MissingDependencyError or CheckpointError where there is none.
        """
        if self._tokenizer is None:
            config, length = self.config, self.context_len
            if config.tokenizer == "clip":
                found = BYTES if config.reads_bytes else read_vocabulary(find_vocabulary())
                self._tokenizer = ClipTokenizer(found, context_len=length)
            elif self._assets is not None:
                made = PieceTokenizer.load(self._assets, config.tokenizer, cleaning=config.cleaning, context_len=length)
                self._tokenizer = made
            else:
                self._tokenizer = PieceTokenizer.find(config.tokenizer, cleaning=config.cleaning, context_len=length)
        return self._tokenizer

    def tokenizer_hash(self) -> str:
        """Hexadecimal digest of the vocabulary, which no weight tells; "" for CLIP's and bytes, which are fixed."""
        return "" if isinstance(self.tokenizer, ClipTokenizer) else self.tokenizer.content_hash()

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """int64 [T, L] ids. Where padding cannot be seen, L is that of the longest of these texts, at most
        `context_len`, else `context_len`; shorter rows end in padding.
        """
        return self.tokenizer(texts, cut=self.is_cut)

    def ends(self, ids: Tensor) -> Tensor:
        """int64 [T]: the place in ids [T, L] of the token whose state is the text's."""
        if self.config.pooling == "largest":
            return ids.argmax(dim=1)
        if self.config.pooling == "end":
            return (ids == self.config.end_id).int().argmax(dim=1)
        return torch.full((len(ids),), ids.shape[1] - 1, device=ids.device)

    def project(self, states: Tensor) -> Tensor:
        """The feature [T, out_dim] of the pooled tokens' states after the last block, [T, C]."""
        states = self.ln_final(states)
        if isinstance(self.text_projection, nn.Linear):
            return self.text_projection(states)
        return states if self.text_projection is None else states @ self.text_projection

    def forward(self, ids: Tensor) -> Tensor:
        """ids: int64 [T, L], L <= context_len, or all of it where padding is seen. Returns [T, out_dim], un-normalised.

        On a CPU texts go through without their padding; elsewhere looking at the ids would wait for the device, so
        pass ids of `tokenize`, which are cut to the longest. Raises ShapeError for another rank or length.
        """
        if ids.ndim != 2 or not 0 < ids.shape[1] <= self.context_len:
            raise ShapeError(f"ids: expected [T, L] with 1 <= L <= {self.context_len}, got {list(ids.shape)}")
        if not self.is_cut:
            return self._whole(ids)
        end = self.ends(ids)  # [T]
        if ids.device.type == "cpu" and ids.shape[0] and not torch.compiler.is_compiling():
            width = self.config.width
            spare = GROUP_MACS // (3 * 12 * width * width)  # a block's products are 12 C^2 a token and way
            packing = pack_texts((end + 1).tolist(), spare)
            longest = packing.groups[0][1]
            if len(packing.groups) > 1:
                x = self.token_embedding(ids[packing.texts, packing.places])  # [R, C]
                x = self.transformer(x + F.embedding(packing.places, self.positional_embedding), packing)  # [T, C]
                return self.project(x)  # [T, D]
            ids = ids[:, :longest]
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]  # [T, L, C]
        x = self.transformer(x)
        return self.project(x[torch.arange(x.shape[0], device=x.device), end])  # [T, D]

    def _whole(self, ids: Tensor) -> Tensor:
        if ids.shape[1] != self.context_len:
            raise ShapeError(
                f"ids: expected [T, {self.context_len}], since this tower reads the padding too, got {list(ids.shape)}"
            )
        x = self.token_embedding(ids) + self.positional_embedding  # [T, L, C]
        return self.project(self.transformer(x, is_last_wanted=True)[:, 0])

    def save_assets(self, folder: str | os.PathLike[str]) -> None:
        """Write the tokenizer's vocabulary to `folder`."""
        self.tokenizer.save(Path(folder) / self.tokenizer.FILE)

    def find_assets(self, folder: Path) -> None:
        """Take the tokenizer from a folder that a model was published in, at first use; CLIP's own is known."""
        self._assets = folder

    def load_assets(self, folder: str | os.PathLike[str]) -> None:
        """Take the tokenizer from a folder that `save_assets` wrote, or one that a model was published in."""
        config, folder = self.config, Path(folder)
        if config.tokenizer == "clip":
            self._tokenizer = ClipTokenizer.load(folder / ClipTokenizer.FILE, context_len=self.context_len)
        else:
            self._tokenizer = PieceTokenizer.load(
                folder, config.tokenizer, cleaning=config.cleaning, context_len=self.context_len
            )
