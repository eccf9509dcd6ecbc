"""Some samples of another source, in an order and with labels of their own if wanted."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from eyesmith.data.sample import Finding, Sample, Source, files_of


class PartOf:
    """The samples `indices` of `source`, in that order."""

    def __init__(
        self,
        source: Source,
        indices: Sequence[int],
        *,
        labelled: tuple[Sequence[int], tuple[str, ...]] | None = None,
        name: str = "",
    ) -> None:
        """labelled: a label for each of `indices` and the names of the classes; None: the source's own, read when
        asked for. name: the source's unless given."""
        self._source, self._indices = source, [int(index) for index in indices]
        self._labelled = None if labelled is None else (list(labelled[0]), labelled[1])
        self.name = name or source.name
        self.problems: list[Finding] = source.problems
        keys = source.keys
        self.keys = [keys[index] for index in self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._source[self._indices[index]]

    def texts(self, index: int) -> tuple[str, ...]:
        return self._source.texts(self._indices[index])

    def text_findings(self, index: int) -> list[Finding]:
        return self._source.text_findings(self._indices[index])

    def image_bytes(self, index: int) -> bytes:
        return self._source.image_bytes(self._indices[index])

    def where(self, index: int) -> str:
        return self._source.where(self._indices[index])

    def files(self) -> Iterable[Path | bytes]:
        """Where the images of the whole source lie."""
        return files_of(self._source)

    def fingerprint(self) -> str:
        """SHA-256 of the whole source's, of what was chosen and, where they are its own, of labels and classes."""
        facts = [self._source.fingerprint(), self._indices, *(self._labelled or ())]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self._source.classes if self._labelled is None else self._labelled[1]

    @property
    def labels(self) -> list[int] | None:
        if self._labelled is not None:
            return self._labelled[0]
        labels = self._source.labels
        return None if labels is None else [labels[index] for index in self._indices]
