"""What a sample in a tar is: which members belong together, and what its captions and its label say.

One reading for shards with random access, streamed ones and those that are curated.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eyesmith.data.sample import IMAGE_EXTENSIONS, caption_lines, distinct
from eyesmith.data.tar_index import Member, TarIndex
from eyesmith.data.text import decoded, parse_json

TEXT_EXTENSIONS = ("txt", "json", "cls")
_ABOUT_ALL = re.compile(r"__[^/]*__(/|$)")  # WebDataset's names for what is about the whole shard
_MAX_LABEL_DIGITS = 9

Parts = dict[str, Member]  # of one sample, by extension


@dataclass(frozen=True, slots=True)
class TarSamples:
    """The samples of a shard by their keys, in the order of their first members, and what is wrong.

    faults: kind, key and detail. no_bytes: by key, which of its members have no bytes and why. is_cut: whether the
    last sample may lack members that stood behind it.
    """

    samples: dict[str, Parts]
    faults: list[tuple[str, str, str]]
    no_bytes: dict[str, str]
    is_cut: bool

    def lacks(self, key: str, *, required: Mapping[str, frozenset[str]]) -> str:
        """What a sample has not got, "" when it is complete.

        required: extensions by the name of what they hold, one of each is needed. Of a damaged shard the last sample
        needs the texts that the first one has, which may lie behind the damage.
        """
        parts = self.samples[key]
        missing = [name for name, extensions in required.items() if extensions.isdisjoint(parts)]
        if not missing and self.is_cut and key == next(reversed(self.samples)):
            first = next(iter(self.samples.values()))
            missing = [name for name in TEXT_EXTENSIONS if name in first and name not in parts]
        if not missing:
            return ""
        detail = f"no {', '.join(missing)}, only {', '.join(sorted(parts)) or 'members without bytes'}"
        if key in self.no_bytes:
            detail += f"; {self.no_bytes[key]}"
        dotted = next((name for name in parts if "." in name and name.rpartition(".")[2] in _KNOWN), None)
        if dotted is not None:
            detail += f"; a key ends at the first dot of the name, so {dotted!r} is an unknown extension: rename it"
        return detail


_KNOWN = {*IMAGE_EXTENSIONS, *TEXT_EXTENSIONS}


def shard_samples(index: TarIndex) -> TarSamples:
    """Group the members of a tar: those of one key are one sample, wherever they lie."""
    faults: list[tuple[str, str, str]] = []
    if index.damage:
        kind = "truncated_tar" if index.damage.startswith("cut") else "damaged_tar"
        faults.append((kind, "", f"{index.damage}; the {len(index.members):,} members before it are used"))
    samples: dict[str, Parts] = {}
    for member in index.members:
        key, extension = split_member_name(member.name)
        if not key:
            continue
        parts = samples.setdefault(key, {})
        if extension in parts:
            faults.append(("duplicate_key", key, f"a second {extension} member; the first is used"))
        else:
            parts[extension] = member
    no_bytes: dict[str, str] = {}
    for name, why in index.left_out:
        key, extension = split_member_name(name)
        if key and extension not in samples.setdefault(key, {}):
            no_bytes[key] = f"{extension} {why}"
    return TarSamples(samples, faults, no_bytes, index.damage is not None)


def split_member_name(name: str) -> tuple[str, str]:
    """Key and lower-case extension of a member name; both empty for what is no part of a sample.

    That are hidden files, names without an extension, and WebDataset's members about the whole shard (`__meta__/...`).
    """
    name = name.removeprefix("./")
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    if not stem or not extension or (name.startswith("__") and _ABOUT_ALL.match(name)):
        return "", ""
    return f"{folder}{slash}{stem}", extension.lower()


def captions_of(txt: bytes | None, meta: dict[str, Any] | None, faults: list[tuple[str, str]]) -> list[str]:
    """Captions of a sample: the lines of txt, then `texts` of json; when there are none, its `caption` or `text`.

    Where json's `caption` or `text` is the whole of txt, line ends included (img2dataset writes both), it is one
    caption. faults: gets kind and detail of what is wrong.
    """
    known = meta or {}
    whole = [value for name in ("caption", "text") if isinstance(value := known.get(name), str)]
    texts: list[str] = []
    if txt is not None:
        text, fault = decoded(txt)
        if fault:
            faults.append(("not_utf8", f"txt: {fault}"))
        one = next((value for value in whole if _same_text(value, text)), None) if "\n" in text.strip() else None
        texts += [one] if one is not None else caption_lines(text)
    listed = known.get("texts")
    if isinstance(listed, list):
        texts += [text for text in listed if isinstance(text, str)]
    return list(distinct(texts or whole))


def needs_json(txt: bytes | None, meta: bytes | None) -> bool:
    """Whether the json of a sample can change its captions; parsing it costs more than reading it.

    img2dataset writes a kilobyte of facts beside each caption.
    """
    if meta is None:
        return False
    return txt is None or not txt.strip() or b"\n" in txt.strip() or b'"texts"' in meta


def read_meta(content: bytes, faults: list[tuple[str, str]]) -> dict[str, Any]:
    """The object of a json member, {} where it is none. faults: gets kind and detail of what is wrong."""
    text, fault = decoded(content)
    try:
        value, half = parse_json(text)
    except (ValueError, RecursionError) as error:
        faults.append(("bad_json", f"json: {error}"))
        return {}
    if fault or half:
        faults.append(("not_utf8", f"json: {fault or half}"))
    if not isinstance(value, dict):
        faults.append(("bad_json", f"json: expected an object, got {type(value).__name__}"))
        return {}
    return value


def label_of(cls: bytes | None, meta: dict[str, Any] | None) -> int | str | None:
    """The label of a sample: `cls`, else `cls` of json; as text what is no whole number, None where there is none."""
    if cls is not None:
        raw = cls.strip()
        is_number = raw.isdigit() and len(raw) <= _MAX_LABEL_DIGITS
        return int(raw) if is_number else repr(decoded(raw[:40])[0])
    value = (meta or {}).get("cls")
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else repr(value)[:40]


def _same_text(one: str, other: str) -> bool:
    return _lines_of(one) == _lines_of(other)


def _lines_of(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()
