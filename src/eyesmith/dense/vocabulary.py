"""What can be found: class names and their synonyms as text vectors, made by one call and exchanged by one assignment.

K classes, S synonyms, D embedding.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.config import closest
from eyesmith.dense.prompts import PROMPTS, Prompts
from eyesmith.errors import ConfigError, DataError, ShapeError
from eyesmith.eval.features.texts import TextFeatures
from eyesmith.files import cache_folder
from eyesmith.models.clip import Clip

Names = Sequence[str] | Sequence[Sequence[str]] | Mapping[str, Sequence[str]]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """K classes, each with one or more synonyms, and a unit vector for each synonym.

    names: [K], how classes are called in results. synonyms: [S], all strings that were asked for. vectors: fp32 [S, D],
    unit rows. owner: int64 [S], the class of each synonym, ascending; every class has one at least.
    """

    names: tuple[str, ...]
    synonyms: tuple[str, ...]
    vectors: Tensor
    owner: Tensor

    def __post_init__(self) -> None:
        count = len(self.synonyms)
        if self.vectors.ndim != 2 or len(self.vectors) != count or tuple(self.owner.shape) != (count,):
            raise ShapeError(
                f"vectors: expected one row for each of {count} synonyms and its owner, got {list(self.vectors.shape)} "
                f"and {list(self.owner.shape)}"
            )
        owners = self.owner.unique_consecutive().tolist()
        if owners != list(range(len(self.names))):
            raise ShapeError("owner: expected the classes in order, each with at least one synonym")

    def __len__(self) -> int:
        """K."""
        return len(self.names)

    @property
    def embed_dim(self) -> int:
        """D."""
        return self.vectors.shape[1]

    def scores(self, features: Tensor) -> Tensor:
        """The greatest cosine over a class's synonyms: features [..., D], unit vectors -> [..., K], differentiable.

        Computed in fp32 or finer. Raises ShapeError for another width.
        """
        if features.shape[-1] != self.embed_dim:
            raise ShapeError(
                f"features: expected [..., {self.embed_dim}], as wide as the text vectors, got {list(features.shape)}"
            )
        kind = torch.promote_types(features.dtype, self.vectors.dtype)
        cosines = features.to(kind) @ self.vectors.to(features.device, kind).mT  # [..., S]
        return self.best_of_synonyms(cosines)

    def best_of_synonyms(self, values: Tensor) -> Tensor:
        """The greatest value of each class: [..., S] -> [..., K]."""
        if len(self.names) == len(self.synonyms):
            return values
        owner = self.owner.to(values.device).expand_as(values)
        lowest = values.new_full((*values.shape[:-1], len(self.names)), -torch.inf)
        return lowest.scatter_reduce(-1, owner, values, reduce="amax")

    def seen(self, training: "Vocabulary | Sequence[str]") -> Tensor:
        """Which classes share a synonym with any of the training vocabulary: bool [K].

        Strings are compared as they are. Source: FC-CLIP's split into seen and unseen classes at test time.
        """
        known = set(training.synonyms if isinstance(training, Vocabulary) else training)
        found = torch.zeros(len(self.names), dtype=torch.bool)
        for place, synonym in zip(self.owner.tolist(), self.synonyms, strict=True):
            found[place] |= synonym in known
        return found

    def to(self, device: torch.device | str) -> "Vocabulary":
        """The same with its vectors on a device."""
        return replace(self, vectors=self.vectors.to(device), owner=self.owner.to(device))


def encode_vocabulary(
    clip: Clip, names: Names, *, prompts: Prompts | str | None = None, folder: Path | None = None, fresh: bool = False
) -> Vocabulary:
    """The vocabulary of some class names in the text space of a model.

    names: strings; or for each class the strings of its synonyms, the first of which names it; or synonyms by name.
    prompts: sentences, or the name of some in PROMPTS; None: the model's own. The vectors are the normalised means of
    the unit features of the sentences, kept on disk under the text tower's weights and the texts (folder: the user's
    cache when None), so that another encoder gets others and the same one encodes nothing twice. fresh: encode anew.
    Raises DataError for no names, an empty one, and a class that is there twice; ConfigError for unknown prompts.
    """
    classes = _classes(names)
    asked = find_prompts(prompts, clip)
    synonyms = [synonym for one in classes.values() for synonym in one]
    owner = [place for place, one in enumerate(classes.values()) for _ in one]
    features = TextFeatures(clip, folder=folder or cache_folder() / "vocabularies", fresh=fresh)
    vectors = _vectors(features, synonyms, asked)
    return Vocabulary(tuple(classes), tuple(synonyms), vectors, torch.tensor(owner))


def find_prompts(prompts: Prompts | str | None, clip: Clip) -> Prompts:
    """The sentences that are meant: given, by a name in PROMPTS, or (None) the model's own. Raises ConfigError."""
    if isinstance(prompts, Prompts):
        return prompts
    if prompts is None:
        return Prompts(templates=tuple(clip.prompts))
    if prompts not in PROMPTS:
        raise ConfigError(f"prompts: no {prompts!r}; there are {', '.join(PROMPTS)}" + closest(prompts, list(PROMPTS)))
    return PROMPTS[prompts]


def split_synonyms(line: str) -> tuple[str, ...]:
    """The synonyms of one class as the published lists have them: "person,child, girl" -> person, child, girl."""
    return tuple(re.split(r", ?", line))


def named(text: str) -> list[tuple[str, ...]]:
    """Classes as they are typed: separated by commas, their synonyms by slashes: "cat/kitten, dog".

    Raises DataError for an empty one.
    """
    found = [tuple(one.strip() for one in each.split("/")) for each in text.split(",")]
    if not all(one for each in found for one in each):
        raise DataError(f"classes: expected names separated by commas, synonyms by slashes, got {text!r}")
    return found


def _classes(names: Names) -> dict[str, tuple[str, ...]]:
    if isinstance(names, str):
        raise DataError(f"names: expected a list of class names, got the one string {names!r}")
    if isinstance(names, Mapping):
        pairs = [(name, tuple(synonyms)) for name, synonyms in names.items()]
    else:
        lists = [(one,) if isinstance(one, str) else tuple(one) for one in names]
        pairs = [(one[0] if one else "", one) for one in lists]
    if not pairs:
        raise DataError("names: expected one or more class names, got none")
    found: dict[str, tuple[str, ...]] = {}
    for place, (name, synonyms) in enumerate(pairs):
        if not name.strip() or not synonyms or not all(one.strip() for one in synonyms):
            raise DataError(f"names: class {place + 1} has no name, or an empty synonym: {list(synonyms)}")
        if name in found:
            raise DataError(f"names: {name!r} is there twice")
        found[name] = synonyms
    return found


def _vectors(features: TextFeatures, synonyms: Sequence[str], prompts: Prompts) -> Tensor:
    """[S, D]: the normalised mean over each synonym's sentences."""
    # sentences differ in the article alone, so names with equal articles share their templates: two calls, kept each
    by_templates: dict[tuple[str, ...], list[int]] = {}
    cleaned = [prompts.name(synonym) for synonym in synonyms]
    for place, synonym in enumerate(synonyms):
        by_templates.setdefault(prompts.templates_of(synonym), []).append(place)
    rows: list[Tensor] = [torch.zeros(0)] * len(synonyms)
    for templates, places in by_templates.items():
        found = features.class_weights([cleaned[place] for place in places], templates)
        for place, row in zip(places, found, strict=True):
            rows[place] = row
    return F.normalize(torch.stack(rows), dim=-1)
