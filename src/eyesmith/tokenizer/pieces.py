"""The tokenizers of SigLIP, CLIPA and MetaCLIP 2: other people's vocabularies, run by the `tokenizers` library."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from eyesmith.errors import CheckpointError, DataError, MissingDependencyError
from eyesmith.files import write_atomic
from eyesmith.tokenizer.clean import canonical, single_spaces, without_punctuation
from eyesmith.tokenizer.sentencepiece import SPACE, Pieces

TokenizerName = Literal["clip", "siglip", "siglip-i18n", "siglip2", "bert", "mt5", "xlm-v"]
Cleaning = Literal["lower", "spaces", "canonical", "siglip", "siglip2", "none"]
"""lower: CLIP's own. spaces, canonical: OpenCLIP's. siglip, siglip2: transformers' for those models."""

JSON_FILE, MODEL_FILE = "tokenizer.json", "spiece.model"


@dataclass(frozen=True)
class _Rules:
    """repo: whose it is on the Hugging Face hub. pad_id: of padding. dropped_id: an id that becomes pad_id."""

    repo: str
    pad_id: int
    dropped_id: int | None = None


_RULES: dict[str, _Rules] = {
    "siglip": _Rules("timm/ViT-B-16-SigLIP", 1),
    "siglip-i18n": _Rules("timm/ViT-B-16-SigLIP-i18n-256", 1),
    "siglip2": _Rules("timm/ViT-B-16-SigLIP2", 0),
    "bert": _Rules("bert-base-uncased", 0, dropped_id=102),  # CLIPA takes the separator at the end for padding
    "mt5": _Rules("google/mt5-base", 0),
    "xlm-v": _Rules("facebook/xlm-v-base", 1),
}
_CLEANING: dict[str, Callable[[str], str]] = {
    "lower": lambda text: single_spaces(text).lower(),
    "spaces": single_spaces,
    "canonical": canonical,
    "siglip": without_punctuation,
    "none": lambda text: text,
}


def has_pieces(folder: Path) -> bool:
    """Whether a vocabulary lies in a folder."""
    return (folder / JSON_FILE).is_file() or (folder / MODEL_FILE).is_file()


class PieceTokenizer:
    """Text to the ids of a published vocabulary; `context_len` is the longest row in tokens, the end token included.

    Of a tokenizer.json the ids are transformers' own, which runs the same library; of a spiece.model they are those of
    its SiglipTokenizer. Special tokens that stand in a text are special, as there.
    """

    def __init__(
        self, content: bytes, where: str, name: TokenizerName, *, cleaning: Cleaning, context_len: int
    ) -> None:
        """content: of a tokenizer.json or spiece.model, told apart by its bytes. Raises CheckpointError for others."""
        self.name, self.cleaning, self.context_len = name, cleaning, context_len
        self._rules, self._content = _RULES[name], content
        self._encode = _of_json(content, where, cleaning, context_len) if _is_json(content) else None
        self._pieces = None if self._encode is not None else _SiglipPieces(content, where, cleaning, context_len)

    @property
    def FILE(self) -> str:
        """What the vocabulary is called beside a model."""
        return JSON_FILE if self._pieces is None else MODEL_FILE

    @classmethod
    def load(cls, path: str | os.PathLike[str], name: TokenizerName, *, cleaning: Cleaning, context_len: int) -> Self:
        """From a file, or a folder with a tokenizer.json or spiece.model: SigLIP's own cleaning goes with the latter.

        Raises CheckpointError where there is none, or a damaged one.
        """
        place = Path(path)
        if place.is_dir():
            names = (MODEL_FILE, JSON_FILE) if cleaning == "siglip" else (JSON_FILE, MODEL_FILE)
            there = [place / file for file in names if (place / file).is_file()]
            if not there:
                raise CheckpointError(f"{place}: expected {JSON_FILE} or {MODEL_FILE}, the vocabulary of the model")
            place = there[0]
        try:
            content = place.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{place}: cannot be read ({error.strerror or error})") from None
        return cls(content, str(place), name, cleaning=cleaning, context_len=context_len)

    @classmethod
    def find(cls, name: TokenizerName, *, cleaning: Cleaning, context_len: int) -> Self:
        """From the Hugging Face cache, without the network. Raises MissingDependencyError where it is not there."""
        from huggingface_hub import try_to_load_from_cache

        repo = _RULES[name].repo
        for file in (JSON_FILE, MODEL_FILE):
            if isinstance(path := try_to_load_from_cache(repo, file), str):
                return cls.load(path, name, cleaning=cleaning, context_len=context_len)
        raise MissingDependencyError(
            f"the vocabulary of {repo} is needed for texts, and it is not on this machine; load the model from a "
            f"folder with its {JSON_FILE}, or fetch it once: hf download {repo} {JSON_FILE}"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary to one file, as it was read."""
        write_atomic(path, self._content)

    def content_hash(self) -> str:
        """Hexadecimal digest of the vocabulary's file."""
        return hashlib.sha256(self._content).hexdigest()[:24]

    def encode(self, text: str) -> list[int]:
        """Ids of one text with its end token, at most `context_len` of them."""
        return self._rows([text])[0]

    def __call__(self, texts: str | Sequence[str], *, cut: bool = False) -> Tensor:
        """int64 [T, context_len] ids, padded. With `cut`, only as many columns as the longest needs.

        Raises DataError when an entry is no text.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(f"texts[{index}]: expected a text, got {type(text).__name__}")
        rows = self._rows(texts)
        columns = max(map(len, rows), default=1) if cut else self.context_len
        ids = np.full((len(rows), columns), self._rules.pad_id, np.int64)
        for row, found in zip(ids, rows, strict=True):
            row[: len(found)] = found
        if self._rules.dropped_id is not None:
            ids[ids == self._rules.dropped_id] = self._rules.pad_id
        return torch.from_numpy(ids)

    def _rows(self, texts: list[str]) -> list[list[int]]:
        if self._encode is not None:
            return self._encode(texts)
        assert self._pieces is not None
        return [self._pieces(text) for text in texts]


def _is_json(content: bytes) -> bool:
    return content.lstrip()[:1] == b"{"


def _of_json(
    content: bytes, where: str, cleaning: Cleaning, context_len: int
) -> Callable[[list[str]], list[list[int]]]:
    from tokenizers import Tokenizer, normalizers

    try:
        made = Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises Exception itself
        raise CheckpointError(f"{where}: cannot be read as a tokenizer ({error})") from None
    if cleaning == "siglip2":  # what transformers puts before the normaliser of the file
        rest = [] if made.normalizer is None else [made.normalizer]
        made.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rest])  # pyright: ignore[reportAttributeAccessIssue]
    made.no_padding()
    made.enable_truncation(context_len)
    clean = _CLEANING.get(cleaning, _CLEANING["none"])

    def encode(texts: list[str]) -> list[list[int]]:
        plain = [clean(text).encode("utf-8", "replace").decode() for text in texts]
        return [row.ids for row in made.encode_batch(plain)]

    return encode


class _SiglipPieces:
    """transformers' SiglipTokenizer, or with another cleaning T5's, on the vocabulary of a spiece.model."""

    def __init__(self, content: bytes, where: str, cleaning: Cleaning, context_len: int) -> None:
        self._pieces = Pieces(content, where)
        self._cleaning, self._context_len = cleaning, context_len
        self._special = {name: self._pieces.ids[name] for name in ("</s>", "<unk>") if name in self._pieces.ids}
        if "</s>" not in self._special:
            raise CheckpointError(f"{where}: expected a vocabulary with the end token </s>")
        self._split = re.compile(r"\s*(" + "|".join(map(re.escape, self._special)) + r")\s*")
        self._mark = "<unk>"  # stands before each part, so that SentencePiece takes no space off its beginning
        self._mark_len = len(self._pieces(self._mark))

    def __call__(self, text: str) -> list[int]:
        if self._cleaning != "siglip":
            text = _CLEANING[self._cleaning](text)
        parts = self._split.split(SPACE + text.replace(SPACE, " "))
        ids: list[int] = []
        for index, part in enumerate(parts):
            if index % 2:
                ids.append(self._special[part])
            elif part:
                ids += self._part(part)
        end = self._special["</s>"]
        ids = ids[: self._context_len - 1]
        return ids if ids and ids[-1] == end else [*ids, end]

    def _part(self, text: str) -> list[int]:
        clean = without_punctuation(text) if self._cleaning == "siglip" else text
        return self._pieces(self._mark + clean)[self._mark_len :]
