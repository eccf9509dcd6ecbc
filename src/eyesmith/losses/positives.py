"""Which pairs of a batch are positives too, so no negatives of each other: two codes a row, not a [B, B] matrix."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import torch
from torch import Tensor

from eyesmith.errors import ConfigError, ShapeError


@dataclass(frozen=True)
class Same:
    """Codes of the rows of a batch: image i and text j are no negatives where the codes of rows i and j agree.

    image_codes, text_codes: int64 [b]. The pair (i, j) is left out of the negatives if image_codes[i] == image_codes[j]
    or text_codes[i] == text_codes[j]. Codes mean the same on every rank. Raises ShapeError for another shape or dtype.
    """

    image_codes: Tensor
    text_codes: Tensor

    def __post_init__(self) -> None:
        for name, codes in (("image_codes", self.image_codes), ("text_codes", self.text_codes)):
            if codes.ndim != 1 or codes.dtype != torch.int64 or codes.shape != self.text_codes.shape:
                raise ShapeError(
                    f"same.{name}: expected int64 [b] with one code a row, got {codes.dtype} {list(codes.shape)} "
                    f"beside text_codes {list(self.text_codes.shape)}"
                )

    def __len__(self) -> int:
        return len(self.text_codes)

    def to(self, device: torch.device | str) -> "Same":
        """The codes on another device."""
        if self.image_codes is self.text_codes:
            codes = self.text_codes.to(device)
            return Same(codes, codes)
        return Same(self.image_codes.to(device), self.text_codes.to(device))

    def distinct(self) -> tuple[Tensor, ...]:
        """The code tensors that must be compared: one where images and texts share theirs."""
        if self.image_codes is self.text_codes:
            return (self.text_codes,)
        return (self.image_codes, self.text_codes)

    def matrix(self) -> Tensor:
        """[b, b] bool, the same said in full; for small batches and tests."""
        return codes_agree(self.distinct(), self.distinct())


def same_from(texts: Sequence[str], labels: Tensor | None = None, images: Sequence[str] | None = None) -> Same:
    """Codes of a batch: two rows agree when their texts are equal, or their labels, or their image names.

    texts: one caption a row. labels: int64 [b], class of each row, below 0 for one without, whose image counts as
    another's where captions are equal alone. images: a name a row, for batches that may hold an
    image twice with different captions; give labels or images, not both (rows of one image have one label). Text codes
    are 63-bit hashes, equal in every process and on every machine; in a batch of 100,000 the chance that two different
    texts share one is 5e-10.
    """
    if labels is not None and images is not None:
        raise ConfigError("same_from: expected labels or images, got both; rows of one image have one label")
    text_codes = _hashes(texts)
    if labels is not None:
        told = Same(labels.to(device="cpu", dtype=torch.int64), text_codes)  # of one length, or it raises
        return replace(told, image_codes=torch.where(told.image_codes < 0, text_codes, told.image_codes))
    return Same(text_codes if images is None else _hashes(images), text_codes)


def codes_agree(rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Tensor:
    """[R, C] bool, True where any code of a row equals the column's. rows, columns: as many int64 vectors each."""
    agree = rows[0][:, None] == columns[0]
    for row, column in zip(rows[1:], columns[1:], strict=True):
        agree |= row[:, None] == column
    return agree


def _hashes(names: Sequence[str]) -> Tensor:
    codes = {
        name: int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little") >> 1
        for name in set(names)
    }
    return torch.tensor([codes[name] for name in names], dtype=torch.int64)
