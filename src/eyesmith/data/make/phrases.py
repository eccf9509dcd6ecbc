"""English around names: articles, what kind of thing a subgroup of emojis holds, and captions of those."""

from collections.abc import Sequence

# names that take no article: more than one thing, or a substance
_NO_ARTICLE = frozenset(
    (
        "paw prints",
        "grapes",
        "cherries",
        "blueberries",
        "peanuts",
        "beans",
        "pancakes",
        "french fries",
        "clinking beer mugs",
        "clinking glasses",
        "chopsticks",
        "coral",
        "broccoli",
        "garlic",
        "bread",
        "baguette bread",
        "bacon",
        "popcorn",
        "butter",
        "salt",
        "canned food",
        "cooked rice",
        "curry rice",
        "spaghetti",
        "sushi",
        "oden",
        "dango",
        "sake",
        "mate",
        "ice",
        "soft ice cream",
        "shaved ice",
        "ice cream",
        "candy",
        "custard",
        "fondue",
        "cooking",
        "pouring liquid",
        "meat on bone",
        "bubble tea",
        "fried shrimp",
    )
)
_A_BEFORE = ("uni", "eu", "ewe", "one")  # written with a vowel, spoken with a consonant
_AN_BEFORE = ("herb", "hour", "honest")

KIND_OF_SUBGROUP: dict[str, str] = {
    "animal-mammal": "mammal",
    "animal-bird": "bird",
    "animal-amphibian": "amphibian",
    "animal-reptile": "reptile",
    "animal-marine": "sea animal",
    "animal-bug": "bug",
    "plant-flower": "flower",
    "plant-other": "plant",
    "food-fruit": "fruit",
    "food-vegetable": "vegetable",
    "food-prepared": "food",
    "food-asian": "asian food",
    "food-sweet": "sweet food",
    "drink": "drink",
    "dishware": "dishware",
}


def with_article(name: str) -> str:
    """`name` with "a" or "an" before it, by sound; names of substances and plurals stay bare."""
    if name in _NO_ARTICLE:
        return name
    first = name.split()[0].lower()
    is_vowel = first in _AN_BEFORE or (first[0] in "aeiou" and not first.startswith(_A_BEFORE))
    return f"{'an' if is_vowel else 'a'} {name}"


def captions(label: str, tags: Sequence[str], subgroup: str, style: str) -> list[str]:
    """Several captions of one drawing, the plain label first; all different. style: a word for the style."""
    thing = with_article(label)
    words = set(label.replace("-", " ").split())
    others = [tag for tag in tags if tag not in words and len(tag) > 1]
    texts = [label, f"{label} emoji", thing, f"a drawing of {thing}", f"an emoji of {thing}"]
    if others:
        texts += [f"{label}: {', '.join(others[:6])}", f"{thing}, {', '.join(others[-3:])}"]
    if subgroup in KIND_OF_SUBGROUP:
        texts.append(f"{KIND_OF_SUBGROUP[subgroup]}: {label}")
    texts.append(f"{style} emoji of {thing}")
    return list(dict.fromkeys(texts))
