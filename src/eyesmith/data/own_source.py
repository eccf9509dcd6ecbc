"""A source of one's own: three things are enough, the rest of what training and measuring ask follows from them."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from eyesmith.data.sample import Finding, Sample, distinct
from eyesmith.errors import DataError


@runtime_checkable
class Samples(Protocol):
    """What a source of one's own offers. Reading is thread-safe, it can be pickled, its order never changes.

    keys: one a sample, each once. Optional are `classes` (names) and `labels` (an index into them for each sample).
    """

    @property
    def keys(self) -> Sequence[str]: ...

    def read(self, index: int) -> Sample:
        """One sample; its image as an encoded file. Raises DataError where it cannot be read."""
        ...

    def fingerprint(self) -> str:
        """A text that is another one for other data, and the same wherever the data lie."""
        ...


class OwnSource:
    """`Samples` as a `Source`. Captions are read with their images, once, when the source is opened."""

    def __init__(self, samples: Samples, *, name: str, require_text: bool = True) -> None:
        """name: for people. With `require_text` samples without a caption are left out and listed in `problems`.

        Raises DataError for a key that comes twice, labels that do not fit, and when nothing is left.
        """
        self.name, self.problems = name, list[Finding]()
        self._samples = samples
        keys = list(samples.keys)
        twice = len(keys) - len(set(keys))
        if twice:
            raise DataError(f"{name}: {twice} keys come twice; expected one for each sample")
        classes, labels = getattr(samples, "classes", None), getattr(samples, "labels", None)
        self.classes: tuple[str, ...] | None = tuple(classes) if classes is not None else None
        count = len(self.classes or ())
        if labels is not None and (len(labels) != len(keys) or not all(0 <= one < count for one in labels)):
            raise DataError(f"{name}: expected `classes`, and for each of {len(keys)} samples a label below {count}")
        self._indices: list[int] = []
        self._texts: list[tuple[str, ...]] = []
        for index, key in enumerate(keys):
            try:
                texts = distinct(samples.read(index).texts)
            except DataError as error:
                self.problems.append(Finding("missing_image", "error", key, key, str(error)))
                continue
            if require_text and not texts:
                self.problems.append(Finding("empty_caption", "error", key, key, "no caption that is not blank"))
                continue
            self._indices.append(index)
            self._texts.append(texts)
        if not self._indices:
            raise DataError(f"{name}: no usable sample; " + "; ".join(one.detail for one in self.problems[:3]))
        self.keys = [keys[index] for index in self._indices]
        self.labels: list[int] | None = None if labels is None else [int(labels[index]) for index in self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._samples.read(self._indices[index])

    def texts(self, index: int) -> tuple[str, ...]:
        return self._texts[index]

    def text_findings(self, index: int) -> list[Finding]:
        del index  # found when the source was opened
        return []

    def image_bytes(self, index: int) -> bytes:
        return self[index].image

    def where(self, index: int) -> str:
        return self.keys[index]

    def fingerprint(self) -> str:
        return self._samples.fingerprint()
