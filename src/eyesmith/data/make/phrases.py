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
# the same of the large world's other groups
_NO_ARTICLE_THERE = frozenset(
    (
        "houses",
        "hot springs",
        "fireworks",
        "sparkles",
        "admission tickets",
        "tennis",
        "skis",
        "nesting dolls",
        "flower playing cards",
        "performing arts",
        "glasses",
        "sunglasses",
        "goggles",
        "jeans",
        "gloves",
        "socks",
        "briefs",
        "shorts",
        "woman’s clothes",
        "shopping bags",
        "ballet shoes",
        "prayer beads",
        "musical notes",
        "control knobs",
        "maracas",
        "film frames",
        "books",
        "bookmark tabs",
        "money with wings",
        "card index dividers",
        "linked paperclips",
        "scissors",
        "crossed swords",
        "chains",
        "bubbles",
        "japanese dolls",
        "love letter",
        "fog",
        "fire",
        "camping",
        "bowling",
        "ping pong",
        "badminton",
        "confetti ball",
        "magic wand",
        "chess pawn",
        "thread",
        "yarn",
        "knot",
        "mount fuji",
        "tokyo tower",
        "statue of liberty",
        "kaaba",
        "milky way",
        "toilet paper",
        "roll of paper",
        "soap",
        "hearts",
        "eyes",
        "people hugging",
        "footprints",
        "clapping hands",
        "raising hands",
        "open hands",
        "folded hands",
        "palms up together",
        "crossed fingers",
        "men holding hands",
        "women holding hands",
        "people wrestling",
        "zzz",
        "sweat droplets",
        "two hearts",
        "revolving hearts",
        "hundred points",
        "dice",
        "golf",
        "ice hockey",
        "field hockey",
        "lacrosse",
        "horse racing",
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
    "face-smiling": "smiling face",
    "face-affection": "loving face",
    "face-tongue": "face with tongue",
    "face-hand": "face with hand",
    "face-neutral-skeptical": "skeptical face",
    "face-sleepy": "sleepy face",
    "face-unwell": "sick face",
    "face-hat": "face with hat",
    "face-glasses": "face with glasses",
    "face-concerned": "worried face",
    "face-negative": "angry face",
    "face-costume": "fantasy face",
    "cat-face": "cat face",
    "monkey-face": "monkey face",
    "heart": "heart",
    "emotion": "sign of emotion",
    "hand-fingers-open": "hand",
    "hand-fingers-partial": "hand",
    "hand-single-finger": "hand",
    "hand-fingers-closed": "hand",
    "hands": "hands",
    "hand-prop": "hand",
    "body-parts": "part of the body",
    "person": "person",
    "person-gesture": "person",
    "person-role": "person at work",
    "person-fantasy": "fantasy figure",
    "person-activity": "person",
    "person-sport": "person doing sport",
    "person-resting": "person resting",
    "family": "family",
    "place-map": "map",
    "place-geographic": "landscape",
    "place-building": "building",
    "place-religious": "place of worship",
    "place-other": "place",
    "transport-ground": "vehicle",
    "transport-water": "boat",
    "transport-air": "aircraft",
    "time": "time",
    "sky-weather": "sky and weather",
    "event": "celebration",
    "award-medal": "award",
    "sport": "sport",
    "game": "game",
    "arts-crafts": "art and craft",
    "clothing": "clothing",
    "sound": "sound",
    "music": "music",
    "musical-instrument": "musical instrument",
    "phone": "phone",
    "computer": "computer",
    "light-video": "light and video",
    "book-paper": "book or paper",
    "money": "money",
    "mail": "mail",
    "writing": "writing tool",
    "office": "office",
    "lock": "lock",
    "tool": "tool",
    "science": "science",
    "medical": "medical",
    "household": "household",
    "transport-sign": "sign",
    "warning": "warning sign",
    "arrow": "arrow",
    "religion": "religious symbol",
    "zodiac": "sign of the zodiac",
    "av-symbol": "button",
    "math": "mathematical symbol",
    "punctuation": "punctuation",
    "currency": "currency",
    "keycap": "key",
    "alphanum": "letters or numbers",
    "geometric": "geometric shape",
}


def with_article(name: str) -> str:
    """`name` with "a" or "an" before it, by sound; names of substances and plurals stay bare."""
    if name in _NO_ARTICLE or name in _NO_ARTICLE_THERE:
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


def concept_captions(label: str, tags: Sequence[str], subgroup: str) -> list[str]:
    """Several captions of any drawing of a concept, whatever its style; the plain label first; all different."""
    thing = with_article(label)
    words = set(label.replace("-", " ").split())
    others = [tag for tag in tags if tag not in words and len(tag) > 1]
    kind = KIND_OF_SUBGROUP.get(subgroup)
    texts = [label, f"{label} emoji", thing, f"a drawing of {thing}", f"an emoji of {thing}", f"a picture of {thing}"]
    if others:
        texts += [f"{label}: {', '.join(others[:6])}", f"{thing}, {', '.join(others[-3:])}", ", ".join(others[:4])]
    if kind is not None:
        texts += [f"{kind}: {label}", f"an emoji of {thing} ({kind})"]
    return list(dict.fromkeys(texts))
