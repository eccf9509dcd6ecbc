"""What can be said of a scene of shapes: names, captions, relations, questions with their answers."""

from collections.abc import Sequence

from eyesmith.data.make.phrases import with_article
from eyesmith.data.make.shapes import Thing

NUMBERS = ("no", "one", "two", "three", "four")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_CLEAR_GAP = 0.08  # of the side: centres closer than this along an axis are not said to be apart along it


def class_name(shape: str, color: str, pattern: str) -> str:
    """ "red circle", "striped red circle": solid is what is not said."""
    return f"{color} {shape}" if pattern == "solid" else f"{pattern} {color} {shape}"


def name_of(thing: Thing) -> str:
    return class_name(thing.shape, thing.color, thing.pattern)


def relation(one: tuple[float, float], other: tuple[float, float]) -> str | None:
    """How `one` lies to `other`: a key of OPPOSITE, on the axis where they are farther apart; None if too close.

    one, other: centres (x, y) as fractions of the image's side.
    """
    dx, dy = one[0] - other[0], one[1] - other[1]
    if max(abs(dx), abs(dy)) < _CLEAR_GAP:
        return None
    if abs(dx) >= abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def relations(things: Sequence[Thing]) -> list[dict[str, int | str]]:
    """Every ordered pair with a clear relation: {"subject": index, "relation": words, "object": index}."""
    found: list[dict[str, int | str]] = []
    for subject, one in enumerate(things):
        for target, other in enumerate(things):
            words = relation(one.place, other.place) if subject != target else None
            if words is not None:
                found.append({"subject": subject, "relation": words, "object": target})
    return found


def scene_captions(things: Sequence[Thing]) -> list[str]:
    """Several captions, all different, of a scene whose first thing is the main one; the whole scene comes first."""
    full = [with_article(f"{thing.size} {name_of(thing)}") for thing in things]
    main = name_of(things[0])
    texts = [_listed(full), main, with_article(main), f"a drawing of {with_article(main)}"]
    for other in things[1:3]:
        words = relation(other.place, things[0].place)
        if words is not None:
            side = words if words in ("above", "below") else f"to the {words}"
            texts.append(f"{with_article(name_of(other))} {side} {with_article(main)}")
    if len(things) > 1:
        texts.append(f"{NUMBERS[len(things)]} shapes, the largest is {with_article(main)}")
    else:
        texts.append(f"only {with_article(main)}")
    return list(dict.fromkeys(texts))


def questions(things: Sequence[Thing], absent: str) -> list[dict[str, str]]:
    """Questions on a scene: {"kind", "question", "answer"}. absent: the name of something that is not in it."""
    main = things[0]
    asked = [
        ("count", "How many shapes are there?", NUMBERS[len(things)]),
        ("exist", f"Is there {with_article(name_of(main))}?", "yes"),
        ("exist", f"Is there {with_article(absent)}?", "no"),
        ("largest", "Which shape is the largest?", main.shape),
    ]
    shapes = [thing.shape for thing in things]
    for thing in things:
        if shapes.count(thing.shape) == 1:
            asked.append(("color", f"What color is the {thing.shape}?", thing.color))
            asked.append(("pattern", f"Is the {thing.shape} solid, striped or dotted?", thing.pattern))
    for thing in things[1:]:
        words = relation(thing.place, main.place)
        if words is not None:
            ask = "Is the {} {} the {}?"
            asked.append(("relation", ask.format(name_of(thing), words, name_of(main)), "yes"))
            asked.append(("relation", ask.format(name_of(thing), OPPOSITE[words], name_of(main)), "no"))
    return [{"kind": kind, "question": question, "answer": answer} for kind, question, answer in asked]


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
