"""A source of single image files (or images embedded in a table), with everything but the pixels in memory."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eyesmith.data.sample import Finding, Sample, distinct
from eyesmith.errors import DataError


@dataclass(slots=True)
class Record:
    """One sample before its pixels are read. image: a file, or the encoded image itself; where: row or file."""

    key: str
    image: Path | bytes
    size: int
    texts: tuple[str, ...]
    where: str
    label: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)


class FileSource:
    """Samples whose images are files of their own. Made by `open_table` and `open_image_folder`."""

    def __init__(
        self,
        records: Sequence[Record],
        *,
        name: str,
        classes: Sequence[str] | None = None,
        class_texts: Sequence[str] | None = None,
        problems: Sequence[Finding] = (),
        require_text: bool = True,
    ) -> None:
        """records: one a sample; classes: allowed values of their labels; class_texts: other names for those.

        Records without a caption are left out and added to `problems` unless `require_text` is false. Raises DataError
        when nothing is left.
        """
        self.name = name
        self.problems: list[Finding] = list(problems)
        self._records: list[Record] = []
        for record in records:
            record.texts = distinct(record.texts)
            if record.texts or not require_text:
                self._records.append(record)
            else:
                detail = "no caption that is not blank"
                self.problems.append(Finding("empty_caption", "error", record.key, record.where, detail))
        if not self._records:
            shown = "; ".join(f"{problem.where}: {problem.detail}" for problem in self.problems[:3])
            raise DataError(f"{name}: no usable sample" + (f"; {shown}" if shown else ""))
        self._keys = [record.key for record in self._records]
        self._classes = tuple(class_texts or classes) if classes is not None else None
        self._labels = None
        if classes is not None:
            index_of = {label: index for index, label in enumerate(classes)}
            self._labels = [index_of[record.label] for record in self._records if record.label is not None]
            assert len(self._labels) == len(self._records)

    def __len__(self) -> int:
        return len(self._records)

    @property
    def keys(self) -> Sequence[str]:
        return self._keys

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self._classes

    @property
    def labels(self) -> list[int] | None:
        return self._labels

    def __getitem__(self, index: int) -> Sample:
        record = self._records[index]
        return Sample(record.key, self.image_bytes(index), record.texts, dict(record.meta))

    def image_bytes(self, index: int) -> bytes:
        record = self._records[index]
        if isinstance(record.image, bytes):
            return record.image
        try:
            if not record.image.is_file():  # a pipe would block for ever, a device never end
                reason = "no file" if not record.image.exists() else "a folder or a device"
                raise DataError(f"{record.image}: cannot read the image of {record.where}: {reason}")
            return record.image.read_bytes()
        except OSError as error:
            raise DataError(f"{record.image}: cannot read the image of {record.where}: {error.strerror}") from error

    def texts(self, index: int) -> tuple[str, ...]:
        return self._records[index].texts

    def where(self, index: int) -> str:
        return self._records[index].where

    def text_findings(self, index: int) -> list[Finding]:
        del index  # texts are read when the source is opened: what is wrong with them is already in `problems`
        return []

    def files(self) -> list[Path | bytes]:
        """Where the bytes of each image lie: a file, or (embedded in a table) the bytes themselves."""
        return [record.image for record in self._records]

    def fingerprint(self) -> str:
        """SHA-256 over class names, then for each sample its key, image size in bytes, captions and label."""
        digest = hashlib.sha256(json.dumps(self._classes).encode())
        for record in self._records:
            digest.update(json.dumps([record.key, record.size, record.texts, record.label]).encode())
        return digest.hexdigest()
