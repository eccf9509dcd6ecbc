"""Where bytes become text: captions, tables, names of classes, files and tar members.

Text of a sample is mended and what was wrong is told; names that stand for many samples are refused; names of files are
only keys, so their bytes are kept, written as escapes.
"""

import os
import re
from pathlib import Path
from typing import Any

from eyesmith.errors import DataError
from eyesmith.files import load_json

_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16, as Windows calls "Unicode"
_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def decoded(content: bytes) -> tuple[str, str]:
    """Text of UTF-8 bytes without a byte-order mark, and what is wrong with it, "" if nothing.

    Bytes that are not UTF-8 become replacement characters.
    """
    try:
        return content.decode("utf-8-sig"), ""
    except UnicodeDecodeError as error:
        found = f"byte {error.start} is not UTF-8; read with replacement characters"
        return content.decode("utf-8-sig", "replace"), found


def mended(text: str) -> tuple[str, str]:
    """Text whose lone surrogates are replaced by U+FFFD, and what is wrong with it, "" if nothing.

    JSON may hold half an emoji as an escape; no text can be written or tokenized with it.
    """
    found = _SURROGATE.search(text)
    if found is None:
        return text, ""
    return _SURROGATE.sub("\ufffd", text), f"character {found.start()} is half of a pair (a surrogate); replaced"


def is_bytes(text: str) -> bool:
    """Whether text that was read with `surrogateescape` holds bytes that are no UTF-8."""
    return any("\udc80" <= character <= "\udcff" for character in text)


def file_key(path: str) -> str:
    """A file's name as text: bytes that are no UTF-8 as escapes such as \\xe9, so that different names differ."""
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")


def member_name(field: bytes) -> str:
    """A name in a tar's header, up to its NUL; as `file_key`."""
    return field.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def parse_json(content: str) -> tuple[Any, str]:
    """A JSON value without lone surrogates, and what was wrong with its texts. Raises ValueError."""
    value = load_json(content)
    if not (_SURROGATE_ESCAPE.search(content) or _SURROGATE.search(content)):
        return value, ""
    return mended_inside(value)


def mended_inside(value: Any) -> tuple[Any, str]:
    """A value of JSON's kinds with every text in it `mended`, and what was wrong with the first, "" if nothing."""
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, list):
        parts = [mended_inside(item) for item in value]
        return [part for part, _ in parts], next(filter(None, (fault for _, fault in parts)), "")
    if isinstance(value, dict):
        names, parts = [mended(str(name)) for name in value], [mended_inside(item) for item in value.values()]
        found = {name: part for (name, _), (part, _) in zip(names, parts, strict=True)}
        return found, next(filter(None, (fault for _, fault in [*names, *parts])), "")
    return value, ""


def read_lines(path: Path) -> tuple[str, ...]:
    """Stripped lines of a names or templates file, empty ones in the middle too: a class may have an empty name.

    Raises DataError naming the line and byte that are not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    refuse_wide(path, content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{path}: line {line}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    return tuple(line.strip() for line in text.replace("\r\n", "\n").removesuffix("\n").split("\n"))


def refuse_wide(path: Path, content: bytes) -> None:
    """Raise DataError where a text file begins as UTF-16."""
    if content.startswith(_WIDE_MARKS):
        raise DataError(f'{path}: this file is UTF-16 (the "Unicode" of Windows programs); save it as UTF-8')
