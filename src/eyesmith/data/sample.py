"""What every source of image-text pairs gives: samples, and findings about the ones it cannot give."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from eyesmith.images.collect import IMAGE_EXTENSIONS as IMAGE_EXTENSIONS

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its captions.

    image: the encoded file as it is stored; texts: captions, never blank; meta: whatever else the source says.
    """

    key: str
    image: bytes
    texts: tuple[str, ...]
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a data set. An "error" costs samples or falsifies numbers, a "warning" may.

    kind: a fixed word such as "empty_caption"; key: the sample's key ("" when it concerns no single sample);
    where: the shard, table row or file, relative to the data set; detail: the rest, for people.
    """

    kind: str
    severity: Severity
    key: str
    where: str
    detail: str


@runtime_checkable
class Source(Protocol):
    """Image-text pairs by index. Reading is thread-safe, a source can be pickled, its order never changes.

    name: short, for people; keys: one a sample; classes: all class names or None; labels: index into `classes`
    for each sample, or None when the source has no labels (DataError when some are missing or out of range);
    problems: what opening found unusable and left out.
    """

    name: str
    problems: list[Finding]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def texts(self, index: int) -> tuple[str, ...]:
        """Captions of a sample without reading its image; () when it has none that is not blank."""
        ...

    def text_findings(self, index: int) -> list[Finding]:
        """What is wrong with the texts and the label of one sample."""
        ...

    def image_bytes(self, index: int) -> bytes:
        """The encoded image alone."""
        ...

    def where(self, index: int) -> str:
        """Shard, row or file of a sample, for messages."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 over keys, member names and sizes and all small texts, in order; independent of the place on disk."""
        ...

    @property
    def keys(self) -> Sequence[str]: ...

    @property
    def classes(self) -> tuple[str, ...] | None: ...

    @property
    def labels(self) -> list[int] | None: ...


def files_of(source: Source) -> Iterable[Path | bytes]:
    """Where the bytes of a source's images lie; of a source that does not say so (`files`), the bytes of each."""
    files = getattr(source, "files", None)
    return files() if files is not None else (source.image_bytes(index) for index in range(len(source)))


def caption_lines(text: str) -> tuple[str, ...]:
    r"""Captions of one .txt: one a line, blank lines dropped, the two characters \n stand for a line end inside one.

    Source: the retrieval tars of CLIP_benchmark. Other characters, NUL and emoji included, pass unchanged.
    """
    lines = text.replace("\r\n", "\n").split("\n")  # not splitlines(): U+2028 and form feeds belong to the caption
    return tuple(line.strip().replace("\\n", "\n") for line in lines if line.strip())


def distinct(texts: Sequence[str]) -> tuple[str, ...]:
    """Texts without the blank and the repeated ones, in order."""
    return tuple(dict.fromkeys(text for text in texts if text.strip()))
