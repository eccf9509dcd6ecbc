"""Ids equal those of open_clip's SimpleTokenizer, whatever the text."""

import random
import warnings
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.tokenizer import ClipTokenizer

pytestmark = pytest.mark.skipif(find_spec("open_clip") is None, reason="needs open_clip_torch")

FRAGMENTS = [
    *("<start_of_text>", "<END_of_text>", "<\u017ftart_of_text>", "</w>", "<|endoftext|>", "--", "...", "_", "</", ">"),
    *("&amp;", "&lt;", "&#39;", "&#x1F600;", "&nbsp;", "&amp;amp;", "&AMP;", "&EACUTE;", "&notit;", "&", "&#0;"),
    *("&#xD800;", "\0", "\x1b[31m", "\x1b", "\x7f", "\x0b", "\x0c", "\x1c", "\x1f", "\x80", "\x85", "\x93", "\xa0"),
    *("\u2028", "\u2029", "\u200b", "\u3000", "\ufeff", "\r\n", "\r", "\n", "\t", "  ", "'s", "'S", "'\u017f"),
    *("\u2019s", "\u2019ll", "'ll", "'RE", "\u201c", "\u201d", "\u2026", "\u2014", "\u2013", "\xe9", "e\u0301"),
    *("\xc3\xa9", "\xe2\u20ac\u2122", "\xe2\u20ac\u0153", "\xc2 ", "voil\xc3 le", "\u0130", "\xdf", "\u1e9e"),
    *("\u03a3", "\u0391\u03a3", "\u03c2", "\ufb01", "\u0133", "\u0149", "\u01c4", "\uff21\uff22", "\uff71", "\uff11"),
    *("\u0662", "\xb2", "\xbd", "\u2167", "\u4f60\u597d", "\ud55c\uad6d", "\u0939\u093f\u0928\u094d", "\u0639\u0631"),
    *("\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u263a\ufe0f", "\ud83d\ude00", "\ud800", "\udc00"),
    *(
        "\U0010ffff",
        "\u212a",
        "\u212b",
        "\xaa",
        "\u01c5",
        "\u0345",
        "\ufffd",
        "\xad",
        "\xbf",
        "\xa35",
        "\u20ac",
        "\xae",
    ),
    *("a", "I", "the", "photo", "Cat", "don't", "x" * 50, "1234", "3.14", "http://a.b/c?d=e&f=g", "@user", "#tag", "?"),
]


@pytest.fixture(scope="module")
def ours() -> ClipTokenizer:
    return ClipTokenizer.load()


@pytest.fixture(scope="module")
def theirs() -> Any:
    ensure_torchvision()
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def assert_equal(ours: ClipTokenizer, theirs: Any, texts: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs(texts).tolist()
    for text, mine, peer in zip(texts, ours(texts).tolist(), expected, strict=True):
        assert mine == peer, ascii(text)


def test_mixed_fragments(ours: ClipTokenizer, theirs: Any) -> None:
    rng = random.Random(7)
    texts = [
        "".join(rng.choice(FRAGMENTS) + rng.choice(("", " ")) for _ in range(rng.randint(0, 14))) for _ in range(1500)
    ]
    assert_equal(ours, theirs, texts)


def test_random_code_points(ours: ClipTokenizer, theirs: Any) -> None:
    rng = random.Random(8)
    tops = (0x80, 0x250, 0x3000, 0x110000)
    texts = ["".join(chr(rng.randrange(rng.choice(tops))) for _ in range(rng.randint(1, 40))) for _ in range(600)]
    assert_equal(ours, theirs, texts)


def test_long_texts(ours: ClipTokenizer, theirs: Any) -> None:
    rng = random.Random(9)
    word = "".join(rng.choice("abcdefghijklmnop") for _ in range(2000))
    assert_equal(ours, theirs, [word, "caption " * 1250, "a1" * 5000, "\U0001f600" * 500, "!" * 3000])


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text(ours: ClipTokenizer, theirs: Any, text: str) -> None:
    assert_equal(ours, theirs, [text])
