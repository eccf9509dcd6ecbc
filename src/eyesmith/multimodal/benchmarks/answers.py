"""What a free answer says: the rules by which LLaVA-1.5's benchmarks read a word, a letter, a yes or a no.

Sources: the evaluation server of VQA and its leave-one-out accuracy (Antol et al. 2015), LLaVA-1.5's scripts for POPE
and ScienceQA, MME's own calculation.
"""

import re
from collections.abc import Sequence

_ARTICLES = {"a", "an", "the"}
_NUMBERS = {
    word: str(value)
    for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
# words that are written with an apostrophe, or two; the server mends them where apostrophes are left out
_WITH_ONE = [
    "ain't",
    "aren't",
    "can't",
    "could've",
    "couldn't",
    "didn't",
    "doesn't",
    "don't",
    "hadn't",
    "hasn't",
    "haven't",
    "he'd",
    "he's",
    "how'd",
    "how'll",
    "how's",
    "isn't",
    "it'd",
    "it'll",
    "ma'am",
    "mightn't",
    "might've",
    "mustn't",
    "must've",
    "needn't",
    "not've",
    "o'clock",
    "oughtn't",
    "shan't",
    "should've",
    "shouldn't",
    "somebody'll",
    "somebody's",
    "someone'd",
    "someone'll",
    "someone's",
    "something'd",
    "something'll",
    "that's",
    "there'd",
    "there're",
    "there's",
    "they'd",
    "they'll",
    "they're",
    "they've",
    "'twas",
    "wasn't",
    "we've",
    "weren't",
    "what'll",
    "what're",
    "what's",
    "what've",
    "when's",
    "where'd",
    "where's",
    "where've",
    "who'd",
    "who'll",
    "who's",
    "who've",
    "why'll",
    "why're",
    "why's",
    "won't",
    "would've",
    "wouldn't",
    "y'all",
    "you'd",
    "you'll",
    "you're",
    "you've",
]
_WITH_TWO = [
    "couldn't've",
    "hadn't've",
    "he'd've",
    "it'd've",
    "mightn't've",
    "she'd've",
    "shouldn't've",
    "somebody'd've",
    "someone'd've",
    "something'd've",
    "there'd've",
    "they'd've",
    "we'd've",
    "who'd've",
    "wouldn't've",
    "y'all'll",
    "you'd've",
]
# as the server has it: the table's own oddities, and what can never be met in lower-case text left out
_MENDED = {
    **{word.replace("'", ""): word for word in _WITH_ONE},
    **{word[: word.rfind("'")] + word[word.rfind("'") + 1 :]: word for word in _WITH_TWO},
    **{word.replace("'", "", 1): word for word in _WITH_TWO},
    **dict.fromkeys(("ow's'at", "'ows'at", "'ow'sat"), "'ow's'at"),
    **dict.fromkeys(("yall'd've", "y'alld've", "y'all'dve"), "y'all'd've"),
    "somebody'd": "somebodyd",
}
_SIGNS = ';/[]"{}()=+\\_-><@`,?!'
_BETWEEN_DIGITS = re.compile(r"(?<=\d),+(?=\d)")
_POINT = re.compile(r"\.(?!\d)")


def vqa_words(answer: str) -> str:
    """An answer as VQA's server compares it: lower case, without articles and signs, numbers as digits."""
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    joins = bool(_BETWEEN_DIGITS.search(text))
    without = text
    for sign in _SIGNS:
        stands_free = f"{sign} " in text or f" {sign}" in text
        without = without.replace(sign, "" if stands_free or joins else " ")
    words = [_NUMBERS.get(word, word) for word in _POINT.sub("", without).lower().split()]
    return " ".join(_MENDED.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(answer: str, given: Sequence[str]) -> float:
    """The mean, over leaving out one of the people's answers, of min(1, equal others / 3).

    All are compared as `vqa_words`. An answer that nobody gave has 0; no answers of people: 0.
    """
    said, people = vqa_words(answer), [vqa_words(one) for one in given]
    scores = [min(1.0, (people[:i] + people[i + 1 :]).count(said) / 3) for i in range(len(people))]
    return sum(scores) / len(scores) if scores else 0.0


def letter(answer: str, choices: int) -> int | None:
    """The place of the chosen letter: of a bare one, of "B. ..." or of "The answer is B."; None for anything else."""
    text = answer.strip()
    known = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:choices]
    if text in known and len(text) == 1:
        return known.index(text)
    if len(text) >= 3 and text[0] in known and text[1:3] == ". ":
        return known.index(text[0])
    found = re.findall(r"The answer is ([A-Z])\.", text)
    return known.index(found[0]) if len(found) == 1 and found[0] in known else None


def pope_says_no(answer: str) -> bool:
    """POPE's reading: a no is "No", "no" or "not" as a word of the first sentence; everything else is a yes."""
    words = answer.split(".")[0].replace(",", "").split(" ")
    return bool({"No", "not", "no"} & set(words))


def mme_says(answer: str) -> str:
    """MME's reading: "yes", "no" or "other", by the first four letters."""
    text = answer.lower().strip().replace(".", "")
    if text in ("y", "n"):
        return {"y": "yes", "n": "no"}[text]
    if len(text) == 1:
        return "other"
    start = text[:4]
    return "yes" if "yes" in start else "no" if "no" in start else "other"
