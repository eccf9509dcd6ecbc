"""Worlds of drawings: which concepts and styles there are, and which of their drawings each split holds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from eyesmith.data.make import icons
from eyesmith.data.make.icons import Concept, IconSet
from eyesmith.data.make.names import NameMatcher, refused_names
from eyesmith.data.make.npm import fetch
from eyesmith.data.make.world_splits import (
    Holdout,
    Member,
    assign_large_splits,
    assign_splits,
    large_split_rule,
    small_split_rule,
)
from eyesmith.errors import ConfigError

WorldName = Literal["large", "small"]
CONCEPT_SPLITS = ("unseen_concept", "unseen_concept_wide", "choose_concept")
JOINED_NAMES = ("fxemoji",)  # sets whose names have no hyphens between words


@dataclass(frozen=True, kw_only=True)
class World:
    """Concepts, their drawings and the splits. splits: name to drawings, in the order in which they are written.

    sets: by style. left_out: what was not taken, and how often.
    """

    name: WorldName
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
        """The code points of the concepts that are held out in all styles."""
        return frozenset(code for split in CONCEPT_SPLITS for code, _ in self.splits.get(split, ()))

    def candidates(self, split: str) -> list[str]:
        """The labels that a split's drawings are to be told from: its own, or all known ones where it is a wide one."""
        is_wide = split not in CONCEPT_SPLITS and (split.endswith("_wide") or split == "choose_drawing")
        codes = {code for code, _ in self.splits["train" if is_wide else split]}
        return [concept.label for concept in self.concepts if concept.hexcode in codes]


def check_world(name: str, *, holdout: str, style: str, groups: Sequence[str]) -> None:
    """Raises ConfigError for an argument that `read_world` cannot take."""
    if name not in ("large", "small"):
        raise ConfigError(f"world: expected 'large' or 'small', got {name!r}")
    if holdout not in ("drawing", "style"):
        raise ConfigError(f"holdout: expected 'drawing' or 'style', got {holdout!r}")
    styles = [*icons.STYLES, *(icons.NAMED_STYLES if name == "large" else ())]
    if style not in styles:
        raise ConfigError(f"style: expected one of {', '.join(styles)}, got {style!r}")
    if name == "small" and tuple(groups) != icons.ALL_GROUPS:
        raise ConfigError("groups: the small world has its own, animals-nature and food-drink; choose world 'large'")
    if not groups or set(groups) - set(icons.ALL_GROUPS):
        raise ConfigError(f"groups: expected some of {', '.join(icons.ALL_GROUPS)}, got {', '.join(groups) or 'none'}")


def read_world(
    name: WorldName = "large",
    *,
    holdout: Holdout = "drawing",
    style: str = "openmoji",
    groups: Sequence[str] = icons.ALL_GROUPS,
    seed: int = 0,
) -> World:
    """The world `name`, its packages fetched where they are not cached.

    "small": animals, nature, food and drink in four styles. "large": all of `groups` in ten styles; what is held out
    does not depend on which groups there are, and the small world's held-out drawings and concepts are its own too.
    holdout "drawing": of every known concept one drawing is held out (`unseen_drawing`), the styles in balance.
    holdout "style": the whole `style` is held out (`unseen_style`); `style` has no meaning otherwise.
    In both some concepts are held out in all styles (`unseen_concept`). Raises ConfigError for a wrong argument,
    DataError when a package is damaged, MissingDependencyError when one is neither cached nor within reach.
    """
    check_world(name, holdout=holdout, style=style, groups=groups)
    if name == "large":
        return _large_world(holdout, style, tuple(groups), seed)
    archives = fetch([icons.NAMES, *icons.STYLES.values()])
    concepts, names_source = icons.read_concepts(archives[icons.NAMES.name])
    sets = {
        one: icons.read_icons(one, package, archives[package.name], concepts) for one, package in icons.STYLES.items()
    }
    concepts = [concept for concept in concepts if any(concept.hexcode in one.svgs for one in sets.values())]
    return World(
        name=name,
        concepts=concepts,
        sets=sets,
        names_source=names_source,
        splits=assign_splits(_available(concepts, sets), holdout=holdout, style=style, seed=seed),
        split_rule=small_split_rule(holdout, style),
        left_out={},
    )


def _large_world(holdout: Holdout, style: str, groups: Sequence[str], seed: int) -> World:
    archives = fetch([icons.NAMES, *icons.STYLES.values(), *icons.NAMED_STYLES.values()])
    concepts, names_source = icons.read_concepts(archives[icons.NAMES.name], icons.ALL_GROUPS)
    refused = refused_names()
    sets = {
        one: icons.read_icons(one, package, archives[package.name], concepts, refused.get(one, ()))
        for one, package in icons.STYLES.items()
    }
    left_out = {f"{one}: refused": len(refused[one]) for one in sets if one in refused}
    codes = {concept.hexcode for concept in concepts}
    others = (icons.read_tables(archives), *icons.read_other_names(archives[icons.NAMES.name]))
    kinds = [{code: names for code, names in kind.items() if code in codes} for kind in others]
    matcher = NameMatcher([{concept.hexcode: [concept.label] for concept in concepts}, *kinds])
    for one, package in icons.NAMED_STYLES.items():

        def match(names: Iterable[str], one: str = one) -> dict[str, str]:
            found, counts = matcher.match(names, refused=refused.get(one, ()), is_joined=one in JOINED_NAMES)
            left_out.update({f"{one}: {why}": count for why, count in counts.items() if count})
            return found

        sets[one] = icons.read_named_icons(one, package, archives[package.name], match)
    available = _available(concepts, sets)
    small = {concept.hexcode for concept in concepts if concept.group in icons.GROUPS}
    splits = assign_large_splits(available, small, holdout=holdout, style=style, seed=seed)
    taken = {concept.hexcode for concept in concepts if concept.group in groups and available[concept.hexcode]}
    splits = {split: [one for one in members if one[0] in taken] for split, members in splits.items()}
    return World(
        name="large",
        concepts=[concept for concept in concepts if concept.hexcode in taken],
        sets=sets,
        names_source=names_source,
        splits={split: members for split, members in splits.items() if members},
        split_rule=large_split_rule(holdout, style),
        left_out=left_out,
    )


def _available(concepts: Sequence[Concept], sets: Mapping[str, IconSet]) -> dict[str, list[str]]:
    return {c.hexcode: [style for style, one in sets.items() if c.hexcode in one.svgs] for c in concepts}
