import html
import re
import string

import ftfy
from hypothesis import given, settings
from hypothesis import strategies as st

from eyesmith.tokenizer.clean import pieces, words


def cleaned(text: str) -> list[str]:
    """The steps of the reference, one by one."""
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return " ".join(text.split()).strip().lower().split()


def test_plain_ascii_characters_are_left_alone_by_the_long_way() -> None:
    # every printable ASCII character in every neighbourhood of two: what the short way skips changes nothing
    plain = [c for c in string.printable[:95] if c != "&"]
    for first in plain:
        text = "".join(first + second for second in plain)
        assert ftfy.fix_text(text) == text
        assert html.unescape(text) == text


@settings(max_examples=150, deadline=None)
@given(
    st.text(
        st.sampled_from(" \t\n\r&;#abcXYZ019'\"<>\x1b[mé\u2018\u201d\u2026\u00a0\u00c3\u00c2\u20ac\u0132\uff21\u0301Σ")
    )
)
def test_short_ways_equal_the_long_way(text: str) -> None:
    assert words(text) == cleaned(text)


@settings(max_examples=150, deadline=None)
@given(st.text())
def test_any_text_equals_the_long_way(text: str) -> None:
    assert words(text) == cleaned(text)


def test_white_space_of_every_kind_separates() -> None:
    assert words("a\tb\r\nc\u00a0d\u2003e\u3000f  g ") == list("abcdefg")
    assert words(" \n\t ") == []
    assert words("\u00a0") == []


def test_pieces() -> None:
    assert pieces("it's") == ["it", "'s"]
    assert pieces("a12b!?c_d") == ["a", "1", "2", "b", "!?", "c", "_", "d"]
    assert pieces("<end_of_text>.") == ["<end_of_text>", "."]
    assert pieces("né2½!") == ["né", "2", "½", "!"]
    assert all("".join(pieces(w)) == w for w in re.findall(r"\S+", string.printable))
