import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyesmith.data.curate.substrings import SubstringMatcher, spaced
from eyesmith.errors import DataError


def naive(entries: list[str], texts: list[str]) -> list[list[int]]:
    """The rule itself: a space at both ends, around seven marks, for tab and line ends; then `in`."""
    found = []
    for text in texts:
        text = " " + text + " "
        for mark in ",.;:?!`":
            text = text.replace(mark, " " + mark + " ")
        for blank in "\t\n\r":
            text = text.replace(blank, " ")
        found.append([number for number, entry in enumerate(entries) if f" {entry} " in text])
    return found


def test_spaces_stand_at_the_ends_and_around_marks() -> None:
    assert spaced("a dog, (red)\tcar!") == " a dog ,  (red) car !  "


def test_case_and_other_marks_count() -> None:
    matcher = SubstringMatcher(["dog", "Dog", "dog's", "a dog", "dog a"])
    assert matcher.match(["a dog", "Dog", "dog's", "(dog)", "dog", "a", "dog a dog"]).sets() == [
        [0, 3], [1], [2], [], [0], [], [0, 3, 4],
    ]  # fmt: skip


def test_entries_do_not_reach_over_two_texts() -> None:
    assert SubstringMatcher(["a b", "b a"]).match(["a", "b", "a", "b a"]).sets() == [[], [], [], [1]]


def test_an_entry_counts_once_a_text() -> None:
    found = SubstringMatcher(["the"]).match(["the cat the dog the", None, ""])
    assert (found.texts.tolist(), found.entries.tolist(), found.num_texts) == ([0], [0], 3)


@pytest.mark.parametrize("entries", [["a", "a"], ["a", ""]])
def test_repeated_and_empty_entries_are_refused(entries: list[str]) -> None:
    with pytest.raises(DataError, match="distinct strings"):
        SubstringMatcher(entries)


def test_slices_of_columns_are_read_from_their_start() -> None:
    column = pa.array(["x y", "a b", "c"]).slice(1)
    assert SubstringMatcher(["a b", "c", "y"]).match(column).sets() == [[0], [1]]


_TEXT = st.text(alphabet="ab ,.!\t\n\u00a0é漢-", max_size=14)


@settings(max_examples=150, deadline=None)
@given(st.lists(_TEXT.filter(bool), unique=True, max_size=12), st.lists(_TEXT, max_size=8))
def test_equals_the_rule_on_any_text(entries: list[str], texts: list[str]) -> None:
    assert SubstringMatcher(entries).match(texts).sets() == naive(entries, texts)


def test_equals_the_rule_on_many_words() -> None:
    rng = random.Random(0)
    words = [f"w{number}" for number in range(60)]
    entries = list(dict.fromkeys(" ".join(rng.choices(words, k=rng.randint(1, 4))) for _ in range(2000)))
    texts = [" ".join(rng.choices(words, k=rng.randint(0, 12))) for _ in range(300)]
    assert SubstringMatcher(entries).match(texts).sets() == naive(entries, texts)


def test_scripts_without_spaces_need_none() -> None:
    pytest.importorskip("ahocorasick")
    entries = ["漢字", "cat", "漢 cat", "ไทย"]
    texts = ["これは漢字です", "a cat漢", "漢 cat", "xไทยx", "concat"]
    assert SubstringMatcher(entries, boundaries="scripts").match(texts).sets() == [[0], [], [1, 2], [3], []]
    assert SubstringMatcher(entries).match(texts).sets() == [[], [], [1, 2], [], []]
