"""How answers are read, against what the benchmarks' own rules say by hand."""

import pytest

from eyesmith.multimodal.benchmarks.answers import letter, mme_says, pope_says_no, vqa_accuracy, vqa_words


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("The Red Ball.", "red ball"),
        ("two", "2"),
        ("none", "0"),
        ("dont know", "don't know"),
        ("1,000", "1000"),
        ("3.5 m", "3.5 m"),
        ("x-ray", "x ray"),
        ("yes, it is", "yes it is"),
        ("- no", "no"),
        ("a", ""),
        ("it's", "it 's"),
        ("ten\nfive", "10 5"),
        ("U.S.", "us"),
        ("red/blue", "red blue"),
        ("somebodydve", "somebodydve"),
        ("shouldntve", "shouldntve"),
        ("shouldn'tve", "shouldn't've"),
    ],
)
def test_words_are_compared_as_vqas_server_does(said: str, read: str) -> None:
    assert vqa_words(said) == read


def test_vqa_leaves_each_person_out_once() -> None:
    people = ["red"] * 3 + ["blue"] * 7
    # leaving out one of three red leaves 2 of 3; leaving out a blue one leaves 3
    assert vqa_accuracy("Red.", people) == pytest.approx((3 * 2 / 3 + 7 * 1) / 10)
    assert vqa_accuracy("blue", people) == 1.0
    assert vqa_accuracy("green", people) == 0.0
    assert vqa_accuracy("", people) == 0.0
    assert vqa_accuracy("red", ["red"] + ["blue"] * 9) == pytest.approx(9 / 10 / 3)
    assert vqa_accuracy("red", []) == 0.0


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        ("B", 1),
        (" C ", 2),
        ("A. a cat", 0),
        ("The answer is D.", 3),
        ("So. The answer is B. Sure", 1),
        ("The answer is B. The answer is C.", None),
        ("b", None),
        ("E", None),
        ("B) cat", None),
        ("The answer is B", None),
        ("AB", None),
        ("", None),
        ("cat", None),
    ],
)
def test_a_letter_is_read_where_llava_reads_one(said: str, choice: int | None) -> None:
    assert letter(said, 4) == choice


@pytest.mark.parametrize(
    ("said", "is_no"),
    [
        ("No", True),
        ("No, there is not.", True),
        ("There is no dog", True),
        ("There is not. Yes", True),
        ("Yes. No dog", False),
        ("nothing", False),
        ("NO", False),
        ("Not a dog", False),
        ("", False),
        ("It is no, sure", True),
    ],
)
def test_pope_finds_a_no_as_a_word_of_the_first_sentence(said: str, is_no: bool) -> None:
    assert pope_says_no(said) is is_no


@pytest.mark.parametrize(
    ("said", "read"),
    [("Yes.", "yes"), ("no", "no"), ("Y", "yes"), ("n.", "no"), ("x", "other"), ("now yes", "no"),
     ("It is yes", "other"), ("", "other"), ("yes and no", "yes"), ("I no", "no")],
)  # fmt: skip
def test_mme_reads_the_first_four_letters(said: str, read: str) -> None:
    assert mme_says(said) == read
