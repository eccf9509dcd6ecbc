"""Captions that look like real ones: prompts and class names at the head, a Zipf tail of words behind.

Words come from files of installed packages: ImageNet's class names and OpenAI's prompts from open_clip's metadata
module (parsed, not imported), and the words of CLIP's own vocabulary in the order of their merges, which is roughly
the order of frequency on the web. Rare words, which no vocabulary holds whole, are joined from two of those.
"""

import ast
import importlib.util
import random
from functools import cache
from itertools import accumulate
from pathlib import Path

from eyesmith.tokenizer.vocabulary import find_vocabulary, read_vocabulary

NUM_RARE = 100_000  # words behind those of the vocabulary
EXPONENT = 1.12  # of the rank; with it 60,000 running words hold about 11,000 different ones, as English text does
MIN_WORDS, MAX_WORDS = 5, 25


def captions(count: int, seed: int, *, web: bool = False) -> list[str]:
    """`count` captions of 5 to 25 words, the same for the same seed.

    Words are drawn from about 130,000 with a probability that falls as rank**-1.12; some are capitalised or carry
    punctuation, some are numbers. With `web` a tenth of the captions also holds what web text holds: curly quotes,
    accents, entities, emoji.
    """
    rng = random.Random(seed)
    words, weights = _words()
    prompts, names = prompts_and_names()
    made = []
    for _ in range(count):
        drawn = rng.choices(words, cum_weights=weights, k=rng.randint(MIN_WORDS, MAX_WORDS))
        if rng.random() < 0.3:  # a caption that names a thing, as alt texts do
            phrase = rng.choice(prompts).format(rng.choice(names)).split()
            drawn = (phrase + drawn)[: max(len(phrase), len(drawn))][:MAX_WORDS]
        drawn = [_dressed(word, rng) for word in drawn]
        if web and rng.random() < 0.1:
            place = rng.randrange(len(drawn))
            drawn[place] = rng.choice(_WEB).format(drawn[place])
        made.append(" ".join(drawn))
    return made


def vocabulary_words() -> list[str]:
    """The words that captions are drawn from, the most frequent first."""
    return list(_words()[0])


@cache
def prompts_and_names() -> tuple[list[str], list[str]]:
    """OpenAI's 80 prompts with `{}` for the name, and the 1000 ImageNet class names."""
    package = importlib.util.find_spec("open_clip")
    assert package is not None
    assert package.origin is not None
    tree = ast.parse((Path(package.origin).parent / "zero_shot_metadata.py").read_text())
    values = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    names = ast.literal_eval(values["IMAGENET_CLASSNAMES"])
    prompts = []
    for function in ast.walk(values["OPENAI_IMAGENET_TEMPLATES"]):
        if isinstance(function, ast.JoinedStr):
            prompts.append("".join(part.value if isinstance(part, ast.Constant) else "{}" for part in function.values))
    return prompts, list(names)


@cache
def _words() -> tuple[list[str], list[float]]:
    """Words by frequency, and the running sum of their weights."""
    joined = ["".join(pair) for pair in read_vocabulary(find_vocabulary()).merges]
    known = [token.removesuffix("</w>") for token in joined if token.endswith("</w>")]
    known = [word for word in known if word.isascii() and word.isalpha() and len(word) > 1]
    rng = random.Random(0)
    rare = [rng.choice(known) + rng.choice(known) for _ in range(NUM_RARE)]
    words = ["a", "I", *known, *rare]
    return words, list(accumulate(rank**-EXPONENT for rank in range(1, len(words) + 1)))


def _dressed(word: str, rng: random.Random) -> str:
    chance = rng.random()
    if chance < 0.10:
        return word.capitalize()
    if chance < 0.16:
        return word + rng.choice((",", ".", "!", ":", "'s", "...", "-"))
    if chance < 0.18:
        return f'"{word}"' if chance < 0.17 else f"({word})"
    if chance < 0.20:
        return str(rng.choice((1, 2, 3, 10, 100, 2015, 2019, 24.99)) if chance < 0.195 else rng.randrange(10_000))
    return word


_WEB = (
    "\u201c{}\u201d",
    "{}\u2019s",
    "{} \u2013",
    "{} &amp;",
    "&quot;{}&quot;",
    "caf\u00e9 {}",
    "{} \u00ae",
    "{} \U0001f600",
    "{}\u2026",
)
