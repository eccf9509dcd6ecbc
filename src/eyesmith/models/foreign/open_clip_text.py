"""The text towers of open_clip's models: tokens in, one projected vector a text out."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eyesmith.errors import CheckpointError, ConfigError, ShapeError
from eyesmith.models.foreign.open_clip_image import DISTRIBUTION, read_settings
from eyesmith.models.foreign.packages import (
    BUILD_ERRORS,
    first_line,
    import_open_clip,
    import_transformers,
    package_version,
    quiet,
)
from eyesmith.models.text.hugging_face_files import copy_tokenizer, save_parts
from eyesmith.tokenizer import ClipTokenizer

VOCABULARY_FILE = "bpe_simple_vocab.txt.gz"


@dataclass(frozen=True, kw_only=True)
class OpenClipTextConfig:
    """The text tower of a model that open_clip builds."""

    model_name: str
    """open_clip's name of the model, or of the folder it came from; for messages."""
    settings: str
    """open_clip's own config of the tower as JSON: `text_cfg`, and `quick_gelu`."""
    embed_dim: int
    """Width of the projected feature."""

    def __post_init__(self) -> None:
        if not isinstance(read_settings(self.settings, self.model_name).get("text_cfg"), dict):
            raise ConfigError(f"settings: {self.model_name} has no text_cfg of open_clip")

    def build(self) -> "OpenClipText":
        """A new tower with open_clip's random weights. Raises MissingDependencyError without open_clip."""
        return OpenClipText(self)


class OpenClipText(nn.Module):
    """open_clip's tower, trained like any other. `out_dim` is its width, `context_len` the longest text in tokens.

    CLIP's byte pairs are made by our tokenizer, which is equal and faster; a Hugging Face tokenizer is looked for when
    the first text comes: in the run folder, else in the Hugging Face cache, else on the hub.
    """

    def __init__(self, config: OpenClipTextConfig) -> None:
        super().__init__()
        self.config, self.package = config, package_version(DISTRIBUTION)
        settings = read_settings(config.settings, config.model_name)
        self._text: dict[str, Any] = dict(settings["text_cfg"])
        import_open_clip(config.model_name)
        from open_clip.model import _build_text_tower

        try:
            made = self._text | ({"hf_model_pretrained": False} if self._text.get("hf_model_name") else {})
            self.tower: Any = _build_text_tower(config.embed_dim, made, bool(settings.get("quick_gelu")))  # pyright: ignore[reportArgumentType]
        except (*BUILD_ERRORS, OSError) as error:
            raise ConfigError(
                f"{config.model_name}: open_clip cannot build its text tower: {first_line(error)}"
            ) from error
        self.out_dim = config.embed_dim
        self.context_len = int(self._text.get("context_length", 77))
        self._tokenizer: Any = None

    @property
    def transformer(self) -> nn.Module | None:
        """The blocks' parent, by which training finds them; None in a tower of transformers'."""
        found = getattr(self.tower, "transformer", None)
        return found if hasattr(found, "resblocks") else None

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """int64 [T, context_len] ids, as open_clip's own tokenizer of this model makes them."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        tokenizer = self._made_tokenizer()
        if texts or isinstance(tokenizer, ClipTokenizer):
            return tokenizer(texts)
        return torch.zeros(0, self.context_len, dtype=torch.int64)

    def forward(self, ids: Tensor) -> Tensor:
        """ids: int64 [T, context_len]. Returns [T, out_dim], un-normalised. Raises ShapeError for others."""
        if ids.ndim != 2 or ids.shape[1] != self.context_len:  # its attention mask has this size alone
            raise ShapeError(f"ids: expected [T, {self.context_len}], got {list(ids.shape)}")
        result = self.tower(ids)
        return result[0] if isinstance(result, tuple) else result  # CoCa's gives its tokens beside it

    def save_assets(self, folder: str | os.PathLike[str]) -> None:
        """Write what the tokenizer is made of to `folder`."""
        tokenizer = self._made_tokenizer()
        if isinstance(tokenizer, ClipTokenizer):
            tokenizer.save(Path(folder) / VOCABULARY_FILE)
        parts = [tokenizer] if hasattr(tokenizer, "save_pretrained") else []
        save_parts(parts, folder, {"tokenizer": self.package})

    def load_assets(self, folder: str | os.PathLike[str]) -> None:
        """Take the tokenizer from a folder that `save_assets` wrote."""
        place = Path(folder)
        if (place / VOCABULARY_FILE).is_file():
            self._tokenizer = ClipTokenizer.load(place / VOCABULARY_FILE, context_len=self.context_len)
        elif self._text.get("hf_tokenizer_name"):
            with tempfile.TemporaryDirectory() as scratch:
                copy_tokenizer(place, Path(scratch))
                self._tokenizer = self._hugging_face_tokenizer(scratch)

    def _made_tokenizer(self) -> Any:
        if self._tokenizer is None:
            name, options = self._text.get("hf_tokenizer_name"), dict(self._text.get("tokenizer_kwargs") or {})
            if name:
                self._tokenizer = self._hugging_face_tokenizer(str(name))
            elif options:
                self._tokenizer = import_open_clip(self.config.model_name).SimpleTokenizer(
                    context_length=self.context_len, **options
                )
            else:
                self._tokenizer = ClipTokenizer.load(context_len=self.context_len)
        return self._tokenizer

    def _hugging_face_tokenizer(self, source: str) -> Any:
        transformers = import_transformers(f"the tokenizer of {self.config.model_name}")
        open_clip = import_open_clip(self.config.model_name)
        try:
            with quiet(transformers):
                return open_clip.HFTokenizer(
                    source,
                    context_length=self.context_len,
                    tokenizer_mode=self._text.get("tokenizer_mode"),
                    **dict(self._text.get("tokenizer_kwargs") or {}),
                )
        except Exception as error:  # no network shows in as many ways as there are network libraries
            raise CheckpointError(
                f"{self.config.model_name}: its tokenizer {source!r} is neither here nor on the hub "
                f"({first_line(error)}); on a machine with a network run `hf download {source}` once"
            ) from error
