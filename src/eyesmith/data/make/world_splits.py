"""Which drawings a split holds, decided by hashes of code points and a seed, whatever the order of a package."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from eyesmith.data.make import icons

UNSEEN_CONCEPT_FRAC = 0.1
CHOOSE_CONCEPT_FRAC = 0.05
MIN_STYLES_TO_CHOOSE = 4  # a concept with fewer drawings keeps all but the held-out one for training

Holdout = Literal["drawing", "style"]
Member = tuple[str, str]
"""One drawing: the code points of its concept (`Concept.hexcode`) and its style."""


def assign_splits(
    available: Mapping[str, Sequence[str]], *, holdout: Holdout, style: str, seed: int
) -> dict[str, list[Member]]:
    """Split name to (hexcode, style) pairs, in the order in which they are written.

    available: the styles each concept has. Everything is ordered by a hash of the code points and the seed, so the
    order of `available` is of no account.
    """

    by_rank = sorted(available, key=lambda hexcode: _rank(seed, "concept", hexcode))
    num_held_out = round(len(by_rank) * UNSEEN_CONCEPT_FRAC)
    held_out, known = set(by_rank[:num_held_out]), by_rank[num_held_out:]
    held_style: dict[str, str | None] = {}
    if holdout == "style":
        held_style = {hexcode: style if style in available[hexcode] else None for hexcode in known}
    else:
        counts = dict.fromkeys(icons.STYLES, 0)
        for hexcode in known:
            # a concept with one drawing keeps it for training; elsewhere the style held out least so far is next
            choices = sorted(available[hexcode], key=lambda name: (counts[name], _rank(seed, "style", hexcode, name)))
            held_style[hexcode] = choices[0] if len(choices) > 1 else None
            if len(choices) > 1:
                counts[choices[0]] += 1
    unseen = "unseen_style" if holdout == "style" else "unseen_drawing"
    splits: dict[str, list[Member]] = {"train": [], unseen: [], "unseen_concept": []}
    for hexcode, styles in available.items():
        for name in styles:
            if hexcode in held_out:
                splits["unseen_concept"].append((hexcode, name))
            else:
                splits[unseen if held_style[hexcode] == name else "train"].append((hexcode, name))
    return {
        split: sorted(members, key=lambda member: _rank(seed, "order", *member)) for split, members in splits.items()
    }


def assign_large_splits(
    available: Mapping[str, Sequence[str]], small: Collection[str], *, holdout: Holdout, style: str, seed: int
) -> dict[str, list[Member]]:
    """The same of the large world: what the small world holds out is held out here too, as a split of the same name.

    available: the styles each concept has, of those in icons.STYLES and of more. small: the concepts of the small
    world. `_wide` splits hold out in the same way among the other concepts, and the held-out concepts' other styles;
    `choose_` ones hold drawings and concepts to choose a recipe by, so that none is chosen by what is reported.
    """
    of_old = {code: [name for name in available[code] if name in icons.STYLES] for code in available if code in small}
    old = assign_splits(of_old, holdout="drawing", style=style, seed=seed)
    unseen = {code for code, _ in old["unseen_concept"]}
    new = sorted((code for code in available if code not in small), key=lambda code: _rank(seed, "concept", code))
    num_unseen = round(len(new) * UNSEEN_CONCEPT_FRAC)
    num_choose = round(len(new) * CHOOSE_CONCEPT_FRAC)
    unseen_new, choose = set(new[:num_unseen]), set(new[num_unseen : num_unseen + num_choose])
    known = [code for code in available if code not in unseen | unseen_new | choose]
    held: dict[Member, str] = {}
    name_of_unseen = "unseen_style" if holdout == "style" else "unseen_drawing"
    if holdout == "style":
        held = {(code, style): name_of_unseen for code in known if style in available[code]}
    else:
        held = dict.fromkeys(old["unseen_drawing"], name_of_unseen)
        _hold_one_each([code for code in known if code not in small], available, held, name_of_unseen, seed)
    held = {member: split if member[0] in small else f"{split}_wide" for member, split in held.items()}
    _hold_one_each(known, available, held, "choose_drawing", seed, least=MIN_STYLES_TO_CHOOSE)
    names = ("train", name_of_unseen, "unseen_concept", f"{name_of_unseen}_wide", "unseen_concept_wide")
    splits: dict[str, list[Member]] = {name: [] for name in (*names, "choose_drawing", "choose_concept")}
    for code, styles in available.items():
        for name in styles:
            if code in choose:
                split = "choose_concept"
            elif code in unseen:
                split = "unseen_concept" if name in icons.STYLES else "unseen_concept_wide"
            elif code in unseen_new:
                split = "unseen_concept_wide"
            else:
                split = held.get((code, name), "train")
            splits[split].append((code, name))
    order = {split: sorted(members, key=lambda one: _rank(seed, "order", *one)) for split, members in splits.items()}
    return {split: members for split, members in order.items() if members}


def _hold_one_each(
    codes: Sequence[str],
    available: Mapping[str, Sequence[str]],
    held: dict[Member, str],
    split: str,
    seed: int,
    *,
    least: int = 2,
) -> None:
    """Put one drawing of each concept into `split`, the styles in balance; `least` of it must be left before that."""
    counts: dict[str, int] = {}
    for code in sorted(codes, key=lambda code: _rank(seed, split, code)):
        left = [name for name in available[code] if (code, name) not in held]
        if len(left) >= least:
            chosen = min(left, key=lambda name: (counts.get(name, 0), _rank(seed, split, code, name)))
            counts[chosen] = counts.get(chosen, 0) + 1
            held[code, chosen] = split


def large_split_rule(holdout: Holdout, style: str) -> str:
    """The rule in words."""
    held = (
        f"unseen_style: the style {style} of the known concepts of the small world"
        if holdout == "style"
        else "unseen_drawing: the drawings that the small world holds out"
    )
    return (
        "unseen_concept: the concepts and drawings that the small world holds out. "
        f"{held}. The _wide splits: the same of the other concepts, whose tenth is unseen, and further styles of the "
        "unseen ones. choose_drawing: one more drawing of each concept that has enough; choose_concept: a twentieth "
        "of the other concepts, in all styles. train: the rest."
    )


def small_split_rule(holdout: Holdout, style: str) -> str:
    concepts = "unseen_concept: a tenth of the concepts, by a hash of code points and seed, in all styles. "
    if holdout == "style":
        return f"{concepts}unseen_style: the style {style} of every other concept. train: their other styles."
    return f"{concepts}unseen_drawing: of every other concept one style, styles in balance. train: the rest."


def _rank(seed: int, purpose: str, *parts: str) -> str:
    return hashlib.sha256("/".join((str(seed), purpose, *parts)).encode()).hexdigest()
