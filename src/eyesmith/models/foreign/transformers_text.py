"""The text towers of transformers' dual encoders: tokens in, one projected vector a text out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eyesmith.errors import CheckpointError, ConfigError, ShapeError
from eyesmith.models.foreign.packages import import_transformers, package_version
from eyesmith.models.foreign.transformers_model import DISTRIBUTION, PAIRS, longest_list, make_config, make_module
from eyesmith.models.text.hugging_face_files import load_tokenizer, save_parts

HUB_PREFIX = "hf:"


@dataclass(frozen=True, kw_only=True)
class TransformersTextConfig:
    """The text tower of a dual encoder that transformers builds."""

    model_name: str
    """What the model is called, for messages."""
    settings: str
    """The library's own config as JSON: its model_type and sizes."""
    embed_dim: int
    """Width of the feature."""
    context_len: int
    """Longest text in tokens, special tokens included; longer texts are cut."""
    source: str
    """Where the tokenizer's tables are: a folder, or hf:OWNER/NAME of the hub's cache; a run folder has its own."""

    def __post_init__(self) -> None:
        if self.context_len < 2:
            raise ConfigError(f"context_len: expected at least 2, got {self.context_len}")

    def build(self) -> "TransformersText":
        """A new tower with the library's random weights. Raises MissingDependencyError without transformers."""
        return TransformersText(self)


class TransformersText(nn.Module):
    """A text tower of transformers, trained like any other. `out_dim` is its width, `context_len` its longest text.

    The tokenizer is looked for when the first text comes: in the run folder, else where the config says. Nothing is
    downloaded.
    """

    def __init__(self, config: TransformersTextConfig) -> None:
        super().__init__()
        self.config, self.package = config, package_version(DISTRIBUTION)
        made = make_config(config.settings, config.model_name)
        if made.model_type not in PAIRS:
            raise ConfigError(f"settings: {config.model_name} is a {made.model_type!r}, which has no text tower")
        self._padding, self._is_told = PAIRS[made.model_type]
        self.tower: Any = make_module(config.settings, config.model_name, "text")
        self._blocks_name = longest_list(self.tower)
        self.out_dim, self.context_len = config.embed_dim, config.context_len
        self._tokenizer: Any = None

    def blocks(self) -> list[nn.Module]:
        """The residual units in order."""
        return list(self.tower.get_submodule(self._blocks_name))

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """int64 [T, L] ids, as the model's processor makes them."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            return torch.zeros(0, 1, dtype=torch.int64)
        found = self._made_tokenizer()(texts, padding=self._padding, truncation=True, max_length=self.context_len)
        return torch.tensor(found["input_ids"], dtype=torch.int64)

    def forward(self, ids: Tensor) -> Tensor:
        """ids: int64 [T, L], L <= context_len. Returns [T, out_dim], un-normalised. Raises ShapeError for others."""
        if ids.ndim != 2 or not 0 < ids.shape[1] <= self.context_len:
            raise ShapeError(f"ids: expected [T, L] with 1 <= L <= {self.context_len}, got {list(ids.shape)}")
        told: dict[str, Tensor] = {}
        if self._is_told:
            # a text ends at its last id that is not padding: such an id inside a text is no end
            place = torch.arange(1, ids.shape[1] + 1, device=ids.device)
            last = (place * (ids != self._pad_id())).amax(dim=1, keepdim=True)  # [T, 1]
            told["attention_mask"] = (place <= last.clamp(min=1)).long()  # [T, L]
        return self.tower.get_text_features(input_ids=ids, **told).pooler_output

    def save_assets(self, folder: str | os.PathLike[str]) -> None:
        """Write the tokenizer to `folder`."""
        save_parts([self._made_tokenizer()], folder, {"tokenizer": self.package})

    def load_assets(self, folder: str | os.PathLike[str]) -> None:
        """Take the tokenizer from `folder`. Raises CheckpointError where its files are none."""
        transformers = import_transformers(self.config.model_name)
        config = make_config(self.config.settings, self.config.model_name)
        tokenizer = load_tokenizer(transformers, Path(folder), config, self.config.model_name)
        if tokenizer.pad_token_id is None:
            raise CheckpointError(f"{folder}: the tokenizer has no padding token")
        self._tokenizer = tokenizer

    def _made_tokenizer(self) -> Any:
        if self._tokenizer is None:
            self.load_assets(_locate(self.config.source))
        return self._tokenizer

    def _pad_id(self) -> int:
        return int(self._made_tokenizer().pad_token_id)


def _locate(source: str) -> Path:
    if not source.startswith(HUB_PREFIX):
        return Path(source).expanduser()
    from huggingface_hub import snapshot_download

    repo, _, revision = source.removeprefix(HUB_PREFIX).partition("@")
    try:
        return Path(snapshot_download(repo, revision=revision or None, local_files_only=True))
    except Exception as error:
        raise CheckpointError(
            f"{source}: its tokenizer is not in the local cache; `eyesmith.load({source!r})` fetches it"
        ) from error
