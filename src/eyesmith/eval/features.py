"""Features of whole data sets: every image once, every distinct text once."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.data.sample import Source
from eyesmith.errors import ConfigError, DataError
from eyesmith.images.transforms import PreprocessConfig, evaluation_pixels
from eyesmith.models.clip import Clip
from eyesmith.models.text.cache import TextCache


@dataclass(frozen=True, slots=True)
class BrokenImage:
    """An image that was left out: its key, and why."""

    key: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ImageFeatures:
    """What a tower says of the images of a source.

    features: [N, D] fp32 unit rows, on the CPU; indices: the position of each row in the source; keys: its names;
    labels: [N] int64 into `source.classes`, or None; broken: the images that could not be read.
    """

    features: Tensor
    indices: tuple[int, ...]
    keys: tuple[str, ...]
    labels: Tensor | None
    broken: tuple[BrokenImage, ...]


def encode_source(
    clip: Clip, source: Source, *, batch_size: int = 64, max_broken_frac: float = 0.01, num_workers: int = 4
) -> ImageFeatures:
    """Encode every image of `source`, exactly as open_clip would prepare it.

    An image that cannot be read is left out and listed. Raises DataError when more than max_broken_frac of them (but
    at least one) cannot, or when nothing is left. num_workers: decoding threads.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size: expected at least 1, got {batch_size}")
    allowed = max(1, int(max_broken_frac * len(source)))
    broken: list[BrokenImage] = []
    indices: list[int] = []
    parts: list[Tensor] = []
    with ThreadPoolExecutor(num_workers) as pool:
        for start in range(0, len(source), batch_size):
            chunk = range(start, min(start + batch_size, len(source)))
            pixels = []
            for index, result in zip(chunk, pool.map(lambda i: _read(source, i, clip.preprocess), chunk), strict=True):
                if isinstance(result, BrokenImage):
                    broken.append(result)
                else:
                    pixels.append(result)
                    indices.append(index)
            if len(broken) > allowed:
                raise DataError(
                    f"{source.name}: {len(broken)} of the first {chunk[-1] + 1} images cannot be read, {allowed} of "
                    f"{len(source)} are allowed; first: {broken[0].key}: {broken[0].reason}; "
                    "`eyesmith data check` lists them all"
                )
            if pixels:
                parts.append(clip.encode_image(torch.stack(pixels), batch_size=batch_size).float().cpu())  # [B, D]
    if not parts:
        raise DataError(f"{source.name}: not one of its {len(source)} images can be read" + _first(broken))
    labels = source.labels
    return ImageFeatures(
        features=torch.cat(parts),
        indices=tuple(indices),
        keys=tuple(source.keys[index] for index in indices),
        labels=None if labels is None else torch.tensor([labels[index] for index in indices], dtype=torch.int64),
        broken=tuple(broken),
    )


class TextFeatures:
    """Text features of one model, each distinct string encoded once.

    Besides the time saved, equal strings so get equal bits, and ties between equal class names stay exact.
    """

    def __init__(self, clip: Clip, *, batch_size: int = 256) -> None:
        self._clip = clip
        self._batch_size = batch_size
        self._state = _text_state(clip)
        self._rows: dict[str, Tensor] = {}
        self._cache: TextCache | None = None

    def is_current(self, clip: Clip) -> bool:
        """Whether the features still hold for `clip`: the same text tower, frozen and never written to since."""
        return clip is self._clip and self._state is not None and self._state == _text_state(clip)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Unit rows [T, D] fp32 on the CPU for `texts`."""
        if not texts:
            raise DataError("no texts were given to encode")
        # texts of one length in one batch: a tower pads a batch to its longest text
        new = sorted({text for text in texts if text not in self._rows}, key=lambda text: (len(text), text))
        if new:
            encode = self._on_disk() or partial(self._clip.encode_text, batch_size=self._batch_size)
            self._rows.update(zip(new, encode(new).float().cpu(), strict=True))
        return torch.stack([self._rows[text] for text in texts])  # [T, D]

    def _on_disk(self) -> TextCache | None:
        """What earlier runs encoded, for a tower that no training changes."""
        if self._cache is None and self._clip.config.lock_text:
            self._cache = TextCache(self._clip.text, self._clip.encode_text)
        return self._cache

    def class_weights(self, names: Sequence[str], prompts: Sequence[str]) -> Tensor:
        """One unit row a class, [K, D] fp32: the normalised mean over prompts of the normalised prompt features.

        A prompt holds the place of the name as {} or {c}. Source: CLIP (arXiv 2103.00020), section 3.1.4.
        Raises ConfigError for a prompt without a place, DataError without names or prompts.
        """
        if not names or not prompts:
            raise DataError(f"zero-shot classes need names and prompts, got {len(names)} names, {len(prompts)} prompts")
        texts = [fill_prompt(prompt, name) for name in names for prompt in prompts]
        rows = self(texts).view(len(names), len(prompts), -1)  # [K, P, D]
        return F.normalize(rows.mean(1), dim=-1)  # [K, D]


def fill_prompt(prompt: str, name: str) -> str:
    """`prompt` with `name` in place of {} (our prompts) or {c} (template files of data sets)."""
    for place in ("{}", "{c}"):
        if place in prompt:
            return prompt.replace(place, name)
    raise ConfigError(f"prompt {prompt!r}: expected a place for the class name, {{}} or {{c}}")


def _read(source: Source, index: int, preprocess: PreprocessConfig) -> Tensor | BrokenImage:
    try:
        return evaluation_pixels(source.image_bytes(index), preprocess)  # [3, H, W] uint8
    except DataError as error:
        return BrokenImage(source.keys[index], str(error))


def _first(broken: Sequence[BrokenImage]) -> str:
    return f"; first: {broken[0].key}: {broken[0].reason}" if broken else ""


def _text_state(clip: Clip) -> tuple[tuple[int, int], ...] | None:
    """Identity and write counter of every tensor of the text tower; None when it is being trained."""
    if any(parameter.requires_grad for parameter in clip.text.parameters()):
        return None
    try:
        return tuple((id(tensor), tensor._version) for tensor in _tensors(clip))
    except RuntimeError:  # tensors made in inference mode count no writes
        return None


def _tensors(clip: Clip) -> Iterator[Tensor]:
    yield from clip.text.parameters()
    yield from clip.text.buffers()
