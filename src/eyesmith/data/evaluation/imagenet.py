"""ImageNet's classes by label, as classifiers that are published know them: their names and their WordNet ids.

A published file has rows of numbers, no names. Its classes are ImageNet's thousand, or the 21,841 of ImageNet-21K (of
2011), both in the order of their WordNet ids: the order of the folders that the images lie in.
"""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

from eyesmith.data.evaluation.names import IMAGENET, class_names, package_file
from eyesmith.errors import MissingDependencyError

_ID_FILES = {1000: "imagenet_synsets.txt", 21_841: "imagenet22k_synsets.txt"}  # of timm, an id a line
_WORDS_FILE = "imagenet_synset_to_lemma.txt"  # of timm, id, tab, words


@cache
def published_classes(count: int) -> tuple[str, ...]:
    """Different names of a published classifier's `count` classes, by label.

    The names of ImageNet's thousand are CLIP's (`class_names`), those of ImageNet-21K WordNet's words out of timm. Of a
    name that several classes have, each is followed by its WordNet id. Other counts, and where no installed package
    has the lists: the labels themselves, "0", "1" ...
    """
    numbers = tuple(map(str, range(count)))
    ids = _ids(count)
    try:
        names = class_names(IMAGENET) if count == 1000 else _words(ids)
    except MissingDependencyError:
        names = ()
    if len(names) != count:
        return numbers
    times = Counter(names)
    marks = ids or numbers
    return tuple(name if times[name] == 1 else f"{name} ({mark})" for name, mark in zip(names, marks, strict=True))


def wordnet_ids(classes: Sequence[str]) -> tuple[str, ...]:
    """WordNet ids ("n01440764") of the classes of a published classifier, by label; () where they are others."""
    ids = _ids(len(classes))
    return ids if ids and tuple(classes) == published_classes(len(classes)) else ()


def is_wordnet_id(name: str) -> bool:
    """Whether a class is named by its WordNet id, as ImageNet's folders are."""
    return re.fullmatch(r"n\d{8}", name) is not None


@cache
def _ids(count: int) -> tuple[str, ...]:
    lines = _lines(_ID_FILES[count]) if count in _ID_FILES else ()
    return lines if len(lines) == count else ()


def _words(ids: Sequence[str]) -> tuple[str, ...]:
    words = dict(csv.reader(_lines(_WORDS_FILE), delimiter="\t"))
    return tuple(words[name] for name in ids) if all(name in words for name in ids) else ()


def _lines(file: str) -> tuple[str, ...]:
    # timm is looked for and not imported
    path = package_file("timm", f"data/_info/{file}")
    return () if path is None else tuple(path.read_text("utf-8").splitlines())
