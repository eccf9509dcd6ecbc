"""The cleaning CLIP's captions go through: mended encoding, HTML entities resolved, single spaces, lower case.

`words` and `pieces` take any text and return its words. Source: open_clip 3.3 SimpleTokenizer with clean="lower".
The cleanings that other tokenizers' texts go through are whole functions of a text.
"""

import html
import re
import string
import unicodedata
from functools import cache
from typing import Any

# ftfy leaves such text alone but for line ends, which are spaces here: no entity can start without "&", no ASCII text
# is mis-decoded, and the control characters it strips are not among these
_PLAIN_WITH_LINES = re.compile(r"[\t\n\r -%'-~]*")
# one line without "&" and without any character that ftfy replaces: controls, ligatures, full-width forms, separators,
# surrogates; curly quotes are replaced here first. What is left for ftfy is mojibake, which it looks for with is_bad
_UNTOUCHED = re.compile(
    "[ -%'-~\u00a0-\u0131\u0134-\u0148\u014a-\u01c3\u01cd-\u01f0\u01f4-\u02bb\u02bd-\u2017\u2020-\u2027"
    "\u202a-\u2069\u2070-\u2fff\u3001-\ud7ff\ue000-\ufaff\ufe00-\ufe6f\U00010000-\U0010ffff]*"
)
_STRAIGHT = dict.fromkeys((700, *range(8216, 8220)), "'") | dict.fromkeys(range(8220, 8224), '"')
_MAX_SEGMENT = 1_000_000  # ftfy looks at longer text in parts
_PIECES_ASCII = re.compile("<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^a-z0-9]+")


def words(text: str) -> list[str]:
    """The cleaned, lower-case words of `text`, split at white space.

    The general way is the last two lines; the two ways before it skip steps that are known to change nothing.
    """
    if text.isascii() and "&" not in text and (text.isprintable() or _PLAIN_WITH_LINES.fullmatch(text)):
        return text.lower().split()
    straight = text.translate(_STRAIGHT)
    if (
        len(text) < _MAX_SEGMENT
        and _UNTOUCHED.fullmatch(straight)
        and unicodedata.is_normalized("NFC", straight)
        and not _is_bad(text)
        and (straight == text or not _is_bad(straight))
    ):
        return straight.lower().split()
    cleaned = html.unescape(html.unescape(_ftfy().fix_text(text)))
    return " ".join(cleaned.split()).lower().split(" ") if cleaned.strip() else []


def pieces(word: str) -> list[str]:
    """Cut a cleaned word into what is merged by itself: special tokens, endings, letters, single digits, the rest."""
    if word.isascii() and word.isalpha():
        return [word]
    return _PIECES_ASCII.findall(word) if word.isascii() else _pieces_unicode().findall(word)


@cache
def _pieces_unicode() -> Any:
    import regex  # knows Unicode's letter and number classes; loaded with the first text that needs it, as is ftfy

    return regex.compile(
        r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", regex.IGNORECASE
    )


_PUNCTUATION = str.maketrans("", "", string.punctuation)


def single_spaces(text: str) -> str:
    """Mended encoding, entities resolved, single spaces. Source: open_clip 3.3, clean="whitespace"."""
    return " ".join(html.unescape(html.unescape(_ftfy().fix_text(text))).split())


def canonical(text: str) -> str:
    """As single_spaces, then no ASCII punctuation and lower case, an underscore for a space. Source: open_clip 3.3,
    clean="canonicalize", after big_vision's evaluation of SigLIP.
    """
    return " ".join(single_spaces(text).replace("_", " ").translate(_PUNCTUATION).lower().split())


def without_punctuation(text: str) -> str:
    """Lower case, no ASCII punctuation, single spaces. Source: transformers 5.23, SiglipTokenizer."""
    return re.sub(r"\s+", " ", text.lower().translate(_PUNCTUATION)).strip()


def _is_bad(text: str) -> bool:
    """Whether ftfy would look for mojibake in `text`."""
    return not text.isascii() and _ftfy().badness.is_bad(text)


@cache
def _ftfy() -> Any:
    import ftfy.badness

    return ftfy
