"""HTML and SVG elements as values: every text that goes in is escaped, only what these functions made is not."""

import html
import re
from collections.abc import Iterable

VOID = frozenset({"br", "hr", "img", "meta", "link", "input", "col"})
# characters that no HTML document may hold: controls other than tab and newline, lone surrogates, non-characters
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Text that is HTML already. Made by `element` and `join` only."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]


def text(value: object) -> Markup:
    """`value` as escaped HTML text; characters that HTML forbids become U+FFFD."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(FORBIDDEN.sub("\ufffd", str(value)), quote=True))


def join(*children: Child) -> Markup:
    """Children one after another: markup as it is, text escaped, None left out, iterables flattened."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, str | int | float):
            parts.append(text(child))
        else:
            parts.append(join(*child))
    return Markup("".join(parts))


def element(tag: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """`<tag attributes>children</tag>`.

    A trailing underscore of an attribute name is dropped (`class_`), an inner one becomes a hyphen (`stroke_width`);
    None and False leave the attribute out, True writes it without a value.
    """
    opening = [tag]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-")
        opening.append(label if value is True else f'{label}="{text(value)}"')
    start = f"<{' '.join(opening)}>"
    if tag in VOID:
        return Markup(start)
    return Markup(f"{start}{join(*children)}</{tag}>")
