"""Conversations about pictures: LLaVA's JSON, the questions of made scenes, plain caption pairs."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyesmith.data.sample import Finding, Source
from eyesmith.data.sources import open_source
from eyesmith.data.text import decoded, parse_json, refuse_wide
from eyesmith.errors import DataError

IMAGE_WORD = "<image>"
DESCRIBE = "Describe the image."
_SAID_BY = {"human": True, "user": True, "gpt": False, "assistant": False}  # by who speaks: whether it is the user


@dataclass(frozen=True, slots=True)
class Turn:
    """What is asked and what is to be answered. kind: of question, "" where the data do not say it."""

    question: str
    answer: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A picture and what is said of it. Row for row it is what a language model with an eye learns from.

    picture: its place in the set's images, None for a conversation without one. branches: each a dialogue of its own
    that begins with the picture; those of one picture do not know of each other.
    """

    key: str
    picture: int | None
    branches: tuple[tuple[Turn, ...], ...]


class ConversationSet:
    """Conversations by index, and the pictures they are about.

    name: for people; items: the usable conversations; problems: what was left out and why.
    """

    def __init__(
        self,
        name: str,
        items: Sequence[Conversation],
        problems: Sequence[Finding],
        *,
        read: Callable[[int], bytes],
        num_pictures: int,
        images: str,
        source: Source | None = None,
    ) -> None:
        """read: the encoded picture of a place. images: a hash of all pictures, by what is known of their files.

        source: that they come from, whose own bytes say more than `images`.
        """
        self.name, self.items, self.problems = name, tuple(items), list(problems)
        self.image_bytes, self.num_pictures, self.images_hash = read, num_pictures, images
        self.source = source
        if not self.items:
            first = f"; first: {self.problems[0].key}: {self.problems[0].detail}" if self.problems else ""
            raise DataError(f"{name}: holds no usable conversation{first}")

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Conversation]:
        return iter(self.items)

    def fingerprint(self) -> str:
        """SHA-256 of everything that is said, in order, and of the pictures."""
        digest = hashlib.sha256(self.images_hash.encode())
        for item in self.items:
            said = [[[turn.question, turn.answer, turn.kind] for turn in branch] for branch in item.branches]
            digest.update(json.dumps([item.key, item.picture, said]).encode())
        return digest.hexdigest()


def open_conversations(
    path: str,
    *,
    split: str | None = None,
    images: str = "",
    captions_only: bool = False,
    image_column: str = "image",
    text_column: str = "caption",
) -> ConversationSet:
    """The conversations at `path`.

    A `.json` or `.jsonl` file is LLaVA's: a list of {"id", "image", "conversations": [{"from", "value"}, ...]}, whose
    pictures lie in the folder `images`, by default the file's own; one without "image" is text alone. Anything else is
    what `open_source` takes: scenes with questions give one branch a question, other pairs are described by their
    first caption, as are scenes where captions_only is set.

    A missing picture is an error. Left out and named in `problems` are conversations that cannot be learnt from. Raises
    DataError for a file that is no such list, and as `open_source` does.
    """
    if path.endswith((".json", ".jsonl")) and Path(path).is_file():
        return _llava(Path(path), Path(images or Path(path).parent))
    source = open_source(path, split=split, image_column=image_column, text_column=text_column)
    return _of_source(source, captions_only=captions_only)


def _of_source(source: Source, *, captions_only: bool) -> ConversationSet:
    items = []
    for index in range(len(source)):
        asked = () if captions_only else _questions(source, index)
        branches = tuple((turn,) for turn in asked)
        if not branches and (texts := source.texts(index)):
            branches = ((Turn(DESCRIBE, texts[0], "caption"),),)
        if branches:
            items.append(Conversation(str(source.keys[index]), index, branches))
    return ConversationSet(
        source.name,
        items,
        source.problems,
        read=source.image_bytes,
        num_pictures=len(source),
        images=source.fingerprint(),
        source=source,
    )


def _questions(source: Source, index: int) -> tuple[Turn, ...]:
    """The "questions" of a made sample: {"kind", "question", "answer"}."""
    found = source[index].meta.get("questions")
    if not isinstance(found, list):
        return ()
    turns = []
    for one in found:
        if not (isinstance(one, dict) and isinstance(one.get("question"), str) and isinstance(one.get("answer"), str)):
            raise DataError(
                f"{source.where(index)}: {source.keys[index]}: questions: expected objects with question and answer, "
                f"got {str(one)[:60]!r}"
            )
        turns.append(Turn(one["question"], one["answer"], str(one.get("kind", ""))))
    return tuple(turns)


def _llava(path: Path, images: Path) -> ConversationSet:
    records, problems = _records(path)
    pictures: dict[str, int] = {}
    items = []
    for number, record in enumerate(records):
        key = str(record.get("id", number)) if isinstance(record, dict) else str(number)
        try:
            turns, file = _turns(record)
        except ValueError as error:
            problems.append(Finding("bad_conversation", "error", key, f"{path.name}[{number}]", str(error)))
            continue
        if file is not None and file not in pictures:
            if not (images / file).is_file():
                raise DataError(
                    f"{path}: {key}: its picture {images / file} is missing; give the folder that holds the pictures "
                    "(`images`), or take the conversation out"
                )
            pictures[file] = len(pictures)
        items.append(Conversation(key, None if file is None else pictures[file], (turns,)))
    files = [images / file for file in pictures]
    digest = hashlib.sha256()
    for name, file in zip(pictures, files, strict=True):
        found = file.stat()
        digest.update(json.dumps([name, found.st_size, found.st_mtime_ns]).encode())
    return ConversationSet(
        path.name,
        items,
        problems,
        read=lambda index: files[index].read_bytes(),
        num_pictures=len(files),
        images=digest.hexdigest(),
    )


def _turns(record: Any) -> tuple[tuple[Turn, ...], str | None]:
    """The turns of one record without their image word, and its picture. Raises ValueError saying what is wrong."""
    said = record.get("conversations") if isinstance(record, dict) else None
    if not isinstance(said, list) or not all(
        isinstance(one, dict) and isinstance(one.get("value"), str) and one.get("from") in _SAID_BY for one in said
    ):
        raise ValueError('expected "conversations", a list of {"from": "human" or "gpt", "value": text}')
    file = record.get("image")
    if file is not None and not isinstance(file, str):
        raise ValueError(f'expected one file as "image", got {str(file)[:40]!r}')
    if said and not _SAID_BY[said[0]["from"]]:
        said = said[1:]  # as LLaVA: what the model says before it is asked is left out
    is_user = [_SAID_BY[one["from"]] for one in said]
    if len(said) < 2 or len(said) % 2 or is_user != [True, False] * (len(said) // 2):
        raise ValueError(f"expected human and gpt in turn, got {', '.join(one['from'] for one in said) or 'nothing'}")
    values = [one["value"] for one in said]
    words = [value.count(IMAGE_WORD) for value in values]
    if file is not None and not words[0]:
        raise ValueError(f"has a picture, and no {IMAGE_WORD} in its first human turn")
    if sum(words) != (file is not None):
        raise ValueError(f"expected {int(file is not None)} {IMAGE_WORD}, got {sum(words)}")
    texts = [value.replace(IMAGE_WORD, "").strip() for value in values]
    turns = tuple(Turn(*pair) for pair in zip(texts[::2], texts[1::2], strict=True))
    if not all(turn.answer for turn in turns):
        raise ValueError("an answer is empty")
    return turns, file


def _records(path: Path) -> tuple[list[Any], list[Finding]]:
    """The list in a file of JSON, or of JSON lines, and what was mended in its texts."""
    content = path.read_bytes()
    refuse_wide(path, content)
    text, fault = decoded(content)
    found = [fault] if fault else []

    def parse(part: str, where: str) -> Any:
        try:
            value, mended = parse_json(part)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: {where}cannot be read as JSON ({error})") from None
        found.extend([f"{where}{mended}"] if mended else [])
        return value

    if path.suffix == ".jsonl":
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        records = [parse(line, f"line {number}: ") for number, line in lines]
    else:
        records = parse(text, "")
    if not isinstance(records, list):
        raise DataError(f"{path}: expected a list of conversations as LLaVA writes it, got {type(records).__name__}")
    return records, [Finding("not_utf8", "warning", "", path.name, detail) for detail in found]
