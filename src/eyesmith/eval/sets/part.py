"""The first images of a set, to try things out."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from eyesmith.data.evaluation.evaluation_set import EvaluationSet
from eyesmith.data.sample import Finding, Sample, Source, files_of


class FirstOf:
    """The first `count` samples of another source."""

    def __init__(self, source: Source, count: int) -> None:
        self._source, self._count = source, min(count, len(source))
        self.name = source.name
        self.problems: list[Finding] = source.problems

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        return self._source[self._inside(index)]

    def texts(self, index: int) -> tuple[str, ...]:
        return self._source.texts(self._inside(index))

    def text_findings(self, index: int) -> list[Finding]:
        return self._source.text_findings(self._inside(index))

    def image_bytes(self, index: int) -> bytes:
        return self._source.image_bytes(self._inside(index))

    def where(self, index: int) -> str:
        return self._source.where(self._inside(index))

    def files(self) -> Iterable[Path | bytes]:
        return files_of(self._source)

    def fingerprint(self) -> str:
        return f"{self._source.fingerprint()}:{self._count}"

    @property
    def keys(self) -> list[str]:
        return list(self._source.keys[: self._count])

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self._source.classes

    @property
    def labels(self) -> list[int] | None:
        labels = self._source.labels
        return None if labels is None else labels[: self._count]

    def _inside(self, index: int) -> int:
        if not 0 <= index < self._count:
            raise IndexError(f"{self.name}: sample {index} of the first {self._count}")
        return index


def first_of(found: EvaluationSet, count: int) -> EvaluationSet:
    """The same set cut to its first images; one of instances or items to the first of those, with their images."""
    if found.layout == "winogavil":
        instances = found.instances[:count]
        needed = 1 + max((index for one in instances for index in one.candidates), default=0)
        return dataclasses.replace(found, source=FirstOf(found.source, needed), instances=instances)

    if found.pairs or found.choices:
        pairs, choices = found.pairs[:count], found.choices[:count]
        images = [index for one in pairs for index in one.images] + [one.image for one in choices]
        return dataclasses.replace(found, source=FirstOf(found.source, 1 + max(images)), pairs=pairs, choices=choices)

    def cut(rows):  # noqa: ANN001, ANN202
        return None if rows is None else rows[:count]

    return dataclasses.replace(
        found,
        source=FirstOf(found.source, count),
        labels=cut(found.labels),
        multilabels=cut(found.multilabels),
        metadata=cut(found.metadata),
        texts=cut(found.texts),
    )
