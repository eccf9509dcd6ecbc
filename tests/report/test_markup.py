from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from eyesmith.report.markup import Markup, element, join, text


def test_attributes_and_children_are_escaped() -> None:
    made = element("a", "1 < 2 & 3", href='"x"', class_="it's", data_x=1, hidden=True, title=None)
    assert made == '<a href="&quot;x&quot;" class="it&#x27;s" data-x="1" hidden>1 &lt; 2 &amp; 3</a>'


def test_void_elements_have_no_end() -> None:
    assert element("img", alt="x") == '<img alt="x">'


def test_markup_passes_once_and_plain_sums_of_it_are_text_again() -> None:
    bold = element("b", "x")
    assert join(bold, None, [bold, "<"]) == "<b>x</b><b>x</b>&lt;"
    assert text(bold + bold) == "&lt;b&gt;x&lt;/b&gt;&lt;b&gt;x&lt;/b&gt;"


def test_forbidden_characters_are_replaced() -> None:
    assert text("a\x00b\ud800c\x1bd\ne") == "a\ufffdb\ufffdc\ufffdd\ne"
    text("a\x00b\ud800c").encode("utf-8")


@given(st.text())
def test_any_text_comes_back_as_text(value: str) -> None:
    seen: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag == "p"
            assert len(attrs) == 1
            seen.append(attrs[0][1] or "")

        def handle_data(self, data: str) -> None:
            seen.append(data)

    reader = Reader()
    reader.feed(element("p", value, title=value))
    reader.close()
    assert seen[0] == "".join(seen[1:])
    assert len(seen[0]) == len(value)
    assert isinstance(element("p", value), Markup)
