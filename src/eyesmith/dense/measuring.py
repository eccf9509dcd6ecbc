"""What measuring a detector and a segmenter share: which pictures, what is novel, and what a number depends on."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch
from torch import nn

from eyesmith.config import to_dict
from eyesmith.data.annotations import Annotations, truth_hash
from eyesmith.dense.frozen import FrozenEncoder
from eyesmith.dense.view import ViewConfig
from eyesmith.eval.features.identity import decoders, facts_hash
from eyesmith.eval.located import Found
from eyesmith.eval.located.precision import Region
from eyesmith.eval.results.rows import ResultRow
from eyesmith.models.clip import Clip
from eyesmith.models.identity import weights_hash


class Finder(Protocol):
    """A head with its eye, that looks for names in pictures."""

    clip: Clip
    eye: FrozenEncoder
    view: ViewConfig
    prompts: str

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def predict(self) -> Any:
        """How what the head says becomes an answer: a config."""
        ...


class Searched(Protocol):
    """What was found in a set."""

    @property
    def truth(self) -> Annotations:
        """The pictures that were read, where a class that was not learnt is novel."""
        ...

    @property
    def found(self) -> Mapping[Any, Sequence[Found]]:
        """What was found in each of them, by source."""
        ...


F = TypeVar("F", bound=Finder)
S = TypeVar("S", bound=Searched)


class MeasuredFinder(ABC, Generic[F, S]):
    """A finder as annotated pictures measure it: taken out of its run folder, then asked by one source after another.

    kind: what messages call it. all_sources: the head alone first. region: what of its findings pages draw.
    """

    kind: ClassVar[str]
    all_sources: ClassVar[tuple[Any, ...]]
    region: ClassVar[Region]

    def __init__(self, finder: F) -> None:
        self.finder = finder

    @classmethod
    @abstractmethod
    def is_in(cls, folder: str | os.PathLike[str]) -> bool:
        """Whether a path is the run folder of one, finished or not."""

    @classmethod
    @abstractmethod
    def load(cls, folder: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> Self:
        """That of a finished run. Raises CheckpointError where the folder holds none."""

    @property
    def sources(self) -> tuple[Any, ...]:
        """Those that its eye can give: where it pools by a token of its own, its map is in no space of texts."""
        has_dense = self.finder.clip.image.is_mean_pooled
        return tuple(one for one in self.all_sources if one != "dense" or has_dense)

    @abstractmethod
    def search(self, data: Annotations, source: Any, *, most: int = 0) -> S:
        """Look for all names of a set. most: pictures, spread evenly; 0 for all.

        Raises DataError where no picture can be read, and for annotations that it cannot be measured on.
        """

    @abstractmethod
    def rows(self, searched: S, *, model: str, replicates: int = 500) -> list[ResultRow]:
        """Result lines of what was found. model: what they call the finder."""


def spread(count: int, most: int) -> range:
    """At most `most` of so many places, evenly; 0 for all."""
    return range(0, count, max(1, -(-count // most)) if most else 1)


def with_novel(data: Annotations, novel: Sequence[bool]) -> Annotations:
    """A set whose categories are novel as told."""
    categories = tuple(replace(one, is_novel=new) for one, new in zip(data.categories, novel, strict=True))
    return replace(data, categories=categories)


def data_facts(truth: Annotations) -> dict[str, Any]:
    """Which set numbers are of, for `ResultRow.run`: by its name, for people, and by what it holds."""
    samples = truth_hash(truth)
    return {"set": truth.name, "data": samples, "samples": samples}


def facts(finder: Finder, head: nn.Module, truth: Annotations) -> dict[str, Any]:
    """What numbers of a finder on a set depend on, for `ResultRow.run`."""
    return {
        "weights": weights_hash(head),
        "eye": finder.eye.identity(),
        "view": to_dict(finder.view),
        "predict": to_dict(finder.predict),
        "prompts": finder.prompts,
        "classes": len(truth.categories),
        **data_facts(truth),
        "novel": facts_hash(sorted(one.name for one in truth.categories if one.is_novel)),
        "decoders": decoders(),
        "precision": "fp32",
    }
