"""What measuring a detector and a segmenter share: which pictures, what is novel, and what a number depends on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from torch import nn

from eyesmith.config import to_dict
from eyesmith.data.annotations import Annotations
from eyesmith.dense.frozen import FrozenEncoder
from eyesmith.dense.view import ViewConfig
from eyesmith.eval.features.identity import decoders
from eyesmith.models.identity import weights_hash


class Finder(Protocol):
    """A head with its eye, that looks for names in pictures."""

    eye: FrozenEncoder
    view: ViewConfig
    prompts: str

    @property
    def predict(self) -> Any:
        """How what the head says becomes an answer: a config."""
        ...


def spread(count: int, most: int) -> range:
    """At most `most` of so many places, evenly; 0 for all."""
    return range(0, count, max(1, -(-count // most)) if most else 1)


def with_novel(data: Annotations, novel: Sequence[bool]) -> Annotations:
    """A set whose categories are novel as told."""
    categories = tuple(replace(one, is_novel=new) for one, new in zip(data.categories, novel, strict=True))
    return replace(data, categories=categories)


def facts(finder: Finder, head: nn.Module, truth: Annotations) -> dict[str, Any]:
    """What numbers of a finder on a set depend on, for `ResultRow.run`."""
    return {
        "weights": weights_hash(head),
        "eye": finder.eye.identity(),
        "view": to_dict(finder.view),
        "predict": to_dict(finder.predict),
        "prompts": finder.prompts,
        "classes": len(truth.categories),
        "data": truth.name,
        "decoders": decoders(),
        "precision": "fp32",
    }
