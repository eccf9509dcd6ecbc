"""Text out of other people's files, as it may go to a terminal."""

import re

# a terminal obeys them: they move its cursor, hide text, set its title, turn the order of letters round
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """`text` with U+FFFD in place of what a terminal obeys; tabs and line ends stay."""
    return _OBEYED.sub("\ufffd", text)
