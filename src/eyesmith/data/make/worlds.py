"""Worlds of drawings: which concepts and styles there are, and which of their drawings each split holds."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from eyesmith.data.make import icons
from eyesmith.data.make.icons import Concept, IconSet
from eyesmith.data.make.npm import fetch
from eyesmith.errors import ConfigError

UNSEEN_CONCEPT_FRAC = 0.1

Holdout = Literal["drawing", "style"]
WorldName = Literal["large", "small"]
Member = tuple[str, str]
"""One drawing: the code points of its concept (`Concept.hexcode`) and its style."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Concepts, their drawings and the splits. splits: name to drawings, in the order in which they are written.

    sets: by style. parameters: what a made data set says of its world. left_out: what was not taken, and how often.
    """

    name: WorldName
    parameters: Mapping[str, Any]
    concepts: Sequence[Concept]
    sets: Mapping[str, IconSet]
    names_source: Mapping[str, Any]
    splits: Mapping[str, Sequence[Member]]
    split_rule: str
    left_out: Mapping[str, int]

    @property
    def sources(self) -> list[dict[str, Any]]:
        """The packages, of drawings and of names: name, version, licence, author, url, SHA-256."""
        return [*(dict(one.source) for one in self.sets.values()), dict(self.names_source)]

    @property
    def unseen_concepts(self) -> frozenset[str]:
        """The code points of the concepts of `unseen_concept`."""
        return frozenset(hexcode for hexcode, _ in self.splits["unseen_concept"])


def check_world(name: str, *, holdout: str, style: str) -> None:
    """Raises ConfigError for an argument that `read_world` cannot take."""
    if name not in ("small",):
        raise ConfigError(f"world: expected 'small', got {name!r}")
    if holdout not in ("drawing", "style"):
        raise ConfigError(f"holdout: expected 'drawing' or 'style', got {holdout!r}")
    if style not in icons.STYLES:
        raise ConfigError(f"style: expected one of {', '.join(icons.STYLES)}, got {style!r}")


def read_world(
    name: WorldName = "small", *, holdout: Holdout = "drawing", style: str = "openmoji", seed: int = 0
) -> World:
    """The world `name`, its packages fetched where they are not cached.

    holdout "drawing": of every known concept one drawing is held out (`unseen_drawing`), the styles in balance.
    holdout "style": the whole `style` is held out (`unseen_style`); `style` has no meaning otherwise.
    In both some concepts are held out in all styles (`unseen_concept`). Raises ConfigError for a wrong argument,
    DataError when a package is damaged, MissingDependencyError when one is neither cached nor within reach.
    """
    check_world(name, holdout=holdout, style=style)
    archives = fetch([icons.NAMES, *icons.STYLES.values()])
    concepts, names_source = icons.read_concepts(archives[icons.NAMES.name])
    sets = {
        one: icons.read_icons(one, package, archives[package.name], concepts) for one, package in icons.STYLES.items()
    }
    concepts = [concept for concept in concepts if any(concept.hexcode in one.svgs for one in sets.values())]
    available = {c.hexcode: [one.style for one in sets.values() if c.hexcode in one.svgs] for c in concepts}
    return World(
        name=name,
        parameters={"holdout": holdout, "seed": seed} | ({"style": style} if holdout == "style" else {}),
        concepts=concepts,
        sets=sets,
        names_source=names_source,
        splits=assign_splits(available, holdout=holdout, style=style, seed=seed),
        split_rule=_split_rule(holdout, style),
        left_out={},
    )


def assign_splits(
    available: Mapping[str, Sequence[str]], *, holdout: Holdout, style: str, seed: int
) -> dict[str, list[tuple[str, str]]]:
    """Split name to (hexcode, style) pairs, in the order in which they are written.

    available: the styles each concept has. Everything is ordered by a hash of the code points and the seed, so the
    order of `available` is of no account.
    """

    def rank(purpose: str, *parts: str) -> str:
        return hashlib.sha256("/".join((str(seed), purpose, *parts)).encode()).hexdigest()

    by_rank = sorted(available, key=lambda hexcode: rank("concept", hexcode))
    num_held_out = round(len(by_rank) * UNSEEN_CONCEPT_FRAC)
    held_out, known = set(by_rank[:num_held_out]), by_rank[num_held_out:]
    held_style: dict[str, str | None] = {}
    if holdout == "style":
        held_style = {hexcode: style if style in available[hexcode] else None for hexcode in known}
    else:
        counts = dict.fromkeys(icons.STYLES, 0)
        for hexcode in known:
            # a concept with one drawing keeps it for training; elsewhere the style held out least so far is next
            choices = sorted(available[hexcode], key=lambda name: (counts[name], rank("style", hexcode, name)))
            held_style[hexcode] = choices[0] if len(choices) > 1 else None
            if len(choices) > 1:
                counts[choices[0]] += 1
    unseen = "unseen_style" if holdout == "style" else "unseen_drawing"
    splits: dict[str, list[tuple[str, str]]] = {"train": [], unseen: [], "unseen_concept": []}
    for hexcode, styles in available.items():
        for name in styles:
            if hexcode in held_out:
                splits["unseen_concept"].append((hexcode, name))
            else:
                splits[unseen if held_style[hexcode] == name else "train"].append((hexcode, name))
    return {split: sorted(members, key=lambda member: rank("order", *member)) for split, members in splits.items()}


def _split_rule(holdout: Holdout, style: str) -> str:
    concepts = "unseen_concept: a tenth of the concepts, by a hash of code points and seed, in all styles. "
    if holdout == "style":
        return f"{concepts}unseen_style: the style {style} of every other concept. train: their other styles."
    return f"{concepts}unseen_drawing: of every other concept one style, styles in balance. train: the rest."
