"""Text out of other people's files, as it may go to a terminal, a log or a table: one line, shown, never obeyed."""

import re

# a terminal obeys them: they move its cursor, hide text, set its title, turn the order of letters round, begin a line;
# and what no stream can encode, which comes out of file names
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    r"""`text` in one line, with what a terminal obeys as Python writes it: \x1b, \n, \u202e."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def plain_json(text: str) -> str:
    r"""JSON with what a terminal obeys as \u001b inside its strings; its own line ends stay."""
    return _OBEYED.sub(lambda found: "\n" if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def csv_cell(text: str) -> str:
    """A cell of a table for spreadsheets: plain, and a name that would run as a formula with an apostrophe in front."""
    shown = plain(text)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) and not _is_number(shown) else shown


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
