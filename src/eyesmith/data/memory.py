"""A small data set decoded once and kept in memory, so that training never waits for a decoder."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from eyesmith.data.sample import Finding, Source
from eyesmith.errors import ConfigError, DataError
from eyesmith.images.transforms import PreprocessConfig, evaluation_pixels

_CHUNK = 256  # samples decoded between two looks at the rate of broken ones


@dataclass(frozen=True, kw_only=True)
class DecodedSet:
    """What a source holds, decoded. Row i of every field is one sample.

    pixels: [N, 3, S, S] uint8 RGB; indices: its place in the source; keys, texts (all captions, at least one), labels
    (index into the source's classes, or None for all); skipped: the samples left out, and why.
    """

    pixels: Tensor
    indices: tuple[int, ...]
    keys: tuple[str, ...]
    texts: list[tuple[str, ...]]
    labels: list[int] | None
    skipped: list[Finding]

    def __len__(self) -> int:
        return len(self.indices)


def decoded_bytes(num_samples: int, size_px: int) -> int:
    """Memory that `decode_all` needs for its pixels, in bytes."""
    return num_samples * 3 * size_px * size_px


def decode_all(
    source: Source,
    size_px: int,
    *,
    resize: Literal["squash", "shortest"] = "squash",
    max_skipped_frac: float = 0.01,
    num_workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
    require_text: bool = True,
) -> DecodedSet:
    """Decode every image of `source` to size_px x size_px, with the exact pixels of evaluation at that size.

    resize: "squash" bends the whole picture to the square, "shortest" covers it and cuts the middle. A sample that
    cannot be decoded or, unless `require_text` is false, has no caption is skipped; DataError when more than
    max_skipped_frac of all (but at least one, unless it is 0) are, or when none is left. on_progress: called with the
    samples done and their number.
    """
    if size_px < 1 or num_workers < 1:
        raise ConfigError(f"size_px and num_workers: expected 1 or more, got {size_px} and {num_workers}")
    if not 0 <= max_skipped_frac <= 1:
        raise ConfigError(f"max_skipped_frac: expected a number in 0..1, got {max_skipped_frac}")
    config = PreprocessConfig(image_size=(size_px, size_px), resize=resize)
    allowed = max(1, int(max_skipped_frac * len(source))) if max_skipped_frac > 0 else 0
    pixels = torch.empty((len(source), 3, size_px, size_px), dtype=torch.uint8)  # [N, 3, S, S]
    indices: list[int] = []
    texts: list[tuple[str, ...]] = []
    skipped: list[Finding] = []

    def read(index: int) -> tuple[tuple[str, ...], Tensor] | Finding:
        key, where = source.keys[index], source.where(index)
        captions = source.texts(index) if require_text else ()
        if require_text and not captions:
            return Finding("empty_caption", "error", key, where, "no caption that is not blank")
        content = source.image_bytes(index)
        try:
            return captions, evaluation_pixels(content, config)  # [3, S, S]
        except DataError as error:
            return Finding("undecodable", "error", key, where, str(error))

    with ThreadPoolExecutor(num_workers) as pool:
        for start in range(0, len(source), _CHUNK):
            chunk = range(start, min(start + _CHUNK, len(source)))
            for index, result in zip(chunk, pool.map(read, chunk), strict=True):
                if isinstance(result, Finding):
                    skipped.append(result)
                else:
                    captions, picture = result
                    pixels[len(indices)] = picture
                    indices.append(index)
                    texts.append(captions)
            if len(skipped) > allowed:
                raise DataError(_too_many(source, skipped, chunk.stop, allowed))
            if on_progress is not None:
                on_progress(chunk.stop, len(source))
    if not indices:
        raise DataError(_too_many(source, skipped, len(source), 0))
    labels = source.labels
    return DecodedSet(
        pixels=pixels[: len(indices)],
        indices=tuple(indices),
        keys=tuple(source.keys[index] for index in indices),
        texts=texts,
        labels=None if labels is None else [labels[index] for index in indices],
        skipped=skipped,
    )


def _too_many(source: Source, skipped: list[Finding], num_seen: int, allowed: int) -> str:
    first = skipped[0]
    return (
        f"{source.name}: {len(skipped):,} of the first {num_seen:,} samples cannot be used, {allowed:,} are allowed; "
        f"first: {first.key} in {first.where}: {first.detail}; `eyesmith data check` lists them all"
    )
