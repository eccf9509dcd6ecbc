"""One evaluation set as the evaluators see it: images by index, and everything known of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from eyesmith.data.sample import Finding, Source

Layout = Literal["classification", "multilabel", "retrieval", "winogavil", "attributes", "video", "pairs", "choice"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


@dataclass(frozen=True, slots=True)
class Instance:
    """One WinoGAViL instance. candidates: indices of images in the source; gold: for each, whether it fits the cue."""

    cue: str
    candidates: tuple[int, ...]
    gold: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Caption i describes image i, an index in the source. category: "" where there is none."""

    images: tuple[int, int]
    captions: tuple[str, str]
    category: str


@dataclass(frozen=True, slots=True)
class Choice:
    """caption describes the image (an index in the source), each of `negatives` does not."""

    image: int
    caption: str
    negatives: tuple[str, ...]
    category: str


@dataclass(frozen=True, slots=True)
class Objective:
    """One of the classifications of an attributes set (FairFace): its class names and templates."""

    classes: tuple[str, ...]
    templates: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """Images by index with labels and whatever else the layout has, all read when the set is opened, but the pixels.

    source: the N images, thread-safe and picklable; `source.image_bytes(i)` is the encoded picture (of a video its
    middle frame). classes: names by label, an empty one is legal; templates: with {c} for the name; both () where the
    layout has none. labels: int64 [N]. multilabels: int64 [N, K], 0 or 1. metadata: float64 [N, F], the numbers of
    each sample in the columns that its task names. instances: of WinoGAViL; objectives: of an attributes set, by name;
    pairs, choices: of caption tests.
    Fields that the layout does not have are None or empty. problems: what opening found, and left out where it is an
    error of one sample.
    """

    name: str
    path: Path
    layout: Layout
    source: Source
    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    labels: NDArray[np.int64] | None = None
    multilabels: NDArray[np.int64] | None = None
    metadata: NDArray[np.float64] | None = None
    texts: tuple[tuple[str, ...], ...] | None = None
    instances: tuple[Instance, ...] = ()
    pairs: tuple[Pair, ...] = ()
    choices: tuple[Choice, ...] = ()
    objectives: Mapping[str, Objective] = field(default_factory=dict)
    problems: tuple[Finding, ...] = ()

    def __len__(self) -> int:
        return len(self.source)

    def captions(self, index: int) -> tuple[str, ...]:
        """All captions of an image in their order, repeated ones too; () where the layout has none."""
        return () if self.texts is None else self.texts[index]
