"""What can be said of a scene of drawings: captions, relations, questions whose answers a blind guess does not find."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from eyesmith.data.make.phrases import KIND_OF_SUBGROUP, with_article
from eyesmith.data.make.scene_words import OPPOSITE, relation

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
SINGLE_FRAC = 1 / 3  # of the scenes without a repeated drawing, in which is asked for the number of one


def scene_relations(places: Sequence[tuple[float, float]], covers: Mapping[int, Sequence[int]]) -> list[dict[str, Any]]:
    """Every ordered pair with a clear relation: {"subject": index, "relation": words, "object": index}.

    places: centres as fractions of the side. covers: for an object those that it partly hides ("in front of").
    """
    found: list[dict[str, Any]] = []
    for subject, one in enumerate(places):
        for target, other in enumerate(places):
            words = relation(one, other) if subject != target else None
            if words is not None:
                found.append({"subject": subject, "relation": words, "object": target})
            if target in covers.get(subject, ()):
                found.append({"subject": subject, "relation": "in front of", "object": target})
    return found


def scene_captions(names: Sequence[str], relations: Sequence[Mapping[str, Any]], background: str) -> list[str]:
    """Several captions, all different; the first names everything, largest first. names: in order of size."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    listed = [with_article(name) if count == 1 else f"{NUMBERS[count]} times {name}" for name, count in counts.items()]
    main = with_article(names[0])
    texts = [_listed(listed), f"{_listed(listed)} on a {background} background", f"a picture with {main}"]
    said = [one for one in relations if names[one["subject"]] != names[one["object"]]]
    for one in said[:2]:
        subject, target = names[int(one["subject"])], names[int(one["object"])]
        texts.append(f"{with_article(subject)} {one['relation']} {with_article(target)}")
    texts.append(f"{NUMBERS[len(names)]} drawing{'s' if len(names) > 1 else ''}, the largest is {main}")
    return list(dict.fromkeys(texts))


def scene_questions(
    objects: Sequence[Mapping[str, Any]],
    relations: Sequence[Mapping[str, Any]],
    *,
    absent: Sequence[Mapping[str, Any]],
    rng: random.Random,
) -> list[dict[str, str]]:
    """Questions on a scene: {"kind", "question", "answer"}.

    objects: in order of size, each with `name` and `subgroup`; absent: two that are not there, chosen like those that
    are, so that a name says nothing about the answer. Yes and no come in pairs.
    """
    names = [one["name"] for one in objects]
    single = [name for name in names if names.count(name) == 1]
    asked = [("count", "How many drawings are there?", NUMBERS[len(names)])]
    present = names[int(rng.random() * len(names))]
    asked += [("exist", f"Is there {with_article(present)}?", "yes")]
    asked += [("exist", f"Is there {with_article(absent[0]['name'])}?", "no")]
    if len(names) > 1 and names[0] in single:
        asked.append(("largest", "Which drawing is the largest?", names[0]))
    repeated = next((name for name in names if name not in single), None)
    counted = repeated or (single[0] if rng.random() < SINGLE_FRAC else None)
    if counted is not None:
        asked.append(("count_of", f"How many times is there {with_article(counted)}?", NUMBERS[names.count(counted)]))
    kinds = {one["subgroup"] for one in objects}
    here = KIND_OF_SUBGROUP.get(objects[int(rng.random() * len(objects))]["subgroup"])
    gone = KIND_OF_SUBGROUP.get(absent[1]["subgroup"]) if absent[1]["subgroup"] not in kinds else None
    if here is not None and gone is not None:
        asked += [("kind", f"Is there any {here}?", "yes"), ("kind", f"Is there any {gone}?", "no")]
    clear = [
        one
        for one in relations
        if one["relation"] in OPPOSITE and {names[one["subject"]], names[one["object"]]} <= set(single)
    ]
    if clear:
        one = clear[int(rng.random() * len(clear))]
        subject, target = names[int(one["subject"])], names[int(one["object"])]
        words = one["relation"]
        asked.append(("relation", f"Is the {subject} {words} the {target}?", "yes"))
        asked.append(("relation", f"Is the {subject} {OPPOSITE[words]} the {target}?", "no"))
        side = {"left of": "left", "right of": "right", "above": "above", "below": "below"}[words]
        asked.append(("where", f"Where is the {subject}, seen from the {target}: left, right, above or below?", side))
    return [{"kind": kind, "question": question, "answer": answer} for kind, question, answer in asked]


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
