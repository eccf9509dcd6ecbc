"""Image-text pairs in tar shards (the WebDataset and CLIP_benchmark layouts), with random access."""

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eyesmith.data.sample import IMAGE_EXTENSIONS, Finding, Sample
from eyesmith.data.tar_index import index_tar
from eyesmith.data.tar_samples import TEXT_EXTENSIONS, captions_of, label_of, read_meta, shard_samples
from eyesmith.errors import DataError
from eyesmith.files import open_binary, read_at

_MAX_OPEN_SHARDS = 256  # below the usual limit of 1,024 descriptors; more shards than this are opened at each read
_MAX_HASHED_BYTES = 1 << 16  # text members up to this size enter the fingerprint whole


class TarSource:
    """Samples of tar shards. Members of one shard that share a key are one sample, wherever they lie in it.

    The key is the path up to the first dot of the base name, the extension what follows. Image: the first of
    IMAGE_EXTENSIONS that is there. Captions: as `captions_of`; when there are none, the class name. Label: as
    `label_of`. Headers are read once, here; bytes only when asked for, with positioned reads, so that threads and
    forked workers can share one source.
    """

    def __init__(
        self,
        shards: Sequence[str | os.PathLike[str]],
        *,
        name: str,
        classes: Sequence[str] | None = None,
        problems: Sequence[Finding] = (),
        require_text: bool = True,
    ) -> None:
        """shards: files in the order of their samples; classes: names for `cls`; problems: known to the caller.

        Raises DataError when no shard holds a complete sample. With `require_text` false an image alone is complete.
        """
        self.name = name
        self.problems: list[Finding] = list(problems)
        self._classes = tuple(classes) if classes is not None else None
        self._require_text = require_text
        self._shards = [Path(shard).absolute() for shard in shards]
        self._shard_facts: list[tuple[int, int]] = []  # size and modification time when the index was made
        self._extensions: list[str] = []
        self._keys: list[str] = []
        self._labels: list[int] | None = None  # read when first asked for
        self._is_labelled = False
        self._index_shards()
        self._open_lazily()
        if not self._keys:
            raise DataError(f"{name}: no complete sample in {len(self._shards)} shard(s); " + self._first_problems())

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def keys(self) -> Sequence[str]:
        return self._keys

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self._classes

    @property
    def shards(self) -> list[str]:
        """Base names of the shards, in order."""
        return [shard.name for shard in self._shards]

    @property
    def labels(self) -> list[int] | None:
        if not self._is_labelled:
            self._labels = self._read_labels()
            self._is_labelled = True
        return self._labels

    def __getitem__(self, index: int) -> Sample:
        texts, meta, _ = self._read_texts(index)
        return Sample(self._keys[index], self.image_bytes(index), texts, meta)

    def image_bytes(self, index: int) -> bytes:
        members = self._members(index)
        return self._read(index, members[next(name for name in IMAGE_EXTENSIONS if name in members)])

    def member(self, index: int, extension: str) -> bytes | None:
        """Bytes of one member of a sample, such as "npy"; None when it has no such member."""
        place = self._members(index).get(extension)
        return None if place is None else self._read(index, place)

    def name_classes(self, classes: Sequence[str]) -> None:
        """Give the classes their names after the headers were read."""
        self._classes, self._is_labelled = tuple(classes), False

    def texts(self, index: int) -> tuple[str, ...]:
        return self._read_texts(index)[0]

    def where(self, index: int) -> str:
        return self._shards[self._shard_of[index]].name

    def text_findings(self, index: int) -> list[Finding]:
        texts, meta, faults = self._read_texts(index)
        if not texts and self._require_text:
            faults.append(("empty_caption", "no caption that is not blank"))
        if self._has_labels or meta.get("cls") is not None:
            wrong = self._label_fault(self._label(index))
            if wrong:
                faults.append(("bad_label", wrong))
        return [Finding(kind, "error", self._keys[index], self.where(index), detail) for kind, detail in faults]

    def files(self) -> list[Path | bytes]:
        """The shards, which hold the bytes of all images."""
        return list(self._shards)

    def fingerprint(self) -> str:
        """SHA-256 over class names, then for each sample its key, member names and sizes, and small text members."""
        digest = hashlib.sha256(json.dumps(self._classes).encode())
        for index, key in enumerate(self._keys):
            members = self._members(index)
            digest.update(json.dumps([key, sorted((name, size) for name, (_, size) in members.items())]).encode())
            for extension in TEXT_EXTENSIONS:
                if extension in members and members[extension][1] <= _MAX_HASHED_BYTES:
                    digest.update(self._read(index, members[extension]))
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_descriptors"], state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_lazily()

    def __del__(self) -> None:
        for descriptor in getattr(self, "_descriptors", {}).values():
            os.close(descriptor)

    def _open_lazily(self) -> None:
        self._descriptors: dict[int, int] = {}
        self._lock = threading.Lock()

    def _index_shards(self) -> None:
        # columns of numbers, not objects: a million samples of four members take 80 MB instead of a gigabyte
        starts, shard_of, extension_ids, offsets, sizes = [0], [], [], [], []
        extension_number: dict[str, int] = {}
        for number, shard in enumerate(self._shards):
            for key, parts in self._index_shard(shard).items():
                for extension, (offset, size) in parts.items():
                    extension_ids.append(extension_number.setdefault(extension, len(extension_number)))
                    offsets.append(offset)
                    sizes.append(size)
                starts.append(len(offsets))
                shard_of.append(number)
                self._keys.append(key)
        self._extensions = list(extension_number)
        self._starts = np.array(starts, dtype=np.int64)  # [N + 1]
        self._shard_of = np.array(shard_of, dtype=np.int32)  # [N]
        self._extension_ids = np.array(extension_ids, dtype=np.int16)  # [members]
        self._offsets = np.array(offsets, dtype=np.int64)  # [members]
        self._sizes = np.array(sizes, dtype=np.int64)  # [members]
        self._has_labels = "cls" in extension_number

    def _index_shard(self, shard: Path) -> dict[str, dict[str, tuple[int, int]]]:
        """Complete samples of one shard: key to extension to offset and size; what is wrong goes to `problems`."""

        def problem(kind: str, key: str, detail: str) -> None:
            self.problems.append(Finding(kind, "error", key, shard.name, detail))

        try:
            index = index_tar(shard)
        except DataError as error:
            self._shard_facts.append((0, 0))
            problem("unreadable_shard", "", str(error))
            return {}
        self._shard_facts.append((index.file_size, index.modified_ns))
        found = shard_samples(index)
        for fault in found.faults:
            problem(*fault)
        required: dict[str, frozenset[str]] = {"image": frozenset(IMAGE_EXTENSIONS)}
        if self._require_text:
            required["text (txt, json or cls)"] = frozenset(TEXT_EXTENSIONS)
        complete = {}
        for key, parts in found.samples.items():
            missing = found.lacks(key, required=required)
            if missing or key in found.no_bytes:
                problem("missing_member", key, missing or found.no_bytes[key])
            if not missing:
                complete[key] = {extension: (member.offset, member.size) for extension, member in parts.items()}
        return complete

    def _members(self, index: int) -> dict[str, tuple[int, int]]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name}: sample {index} of {len(self)}")
        index %= len(self)
        rows = range(self._starts[index], self._starts[index + 1])
        return {self._extensions[self._extension_ids[i]]: (int(self._offsets[i]), int(self._sizes[i])) for i in rows}

    def _read(self, index: int, place: tuple[int, int]) -> bytes:
        shard = int(self._shard_of[index])
        offset, size = place
        descriptor = self._descriptors.get(shard)
        if descriptor is not None:
            content = read_at(descriptor, size, offset)
        else:
            content = self._read_first(shard, size, offset)
        if len(content) != size:
            raise DataError(f"{self._shards[shard]}: sample {self._keys[index]} is cut: the shard changed while in use")
        return content

    def _read_first(self, shard: int, size: int, offset: int) -> bytes:
        path = self._shards[shard]
        try:
            descriptor = open_binary(path)
            facts = os.fstat(descriptor)
        except OSError as error:
            raise DataError(f"{path}: cannot read this shard: {error.strerror or error}") from error
        if (facts.st_size, facts.st_mtime_ns) != self._shard_facts[shard]:
            os.close(descriptor)
            raise DataError(f"{path}: the shard was changed after it was opened; open the data set again")
        content = read_at(descriptor, size, offset)
        with self._lock:
            if len(self._descriptors) < _MAX_OPEN_SHARDS and shard not in self._descriptors:
                self._descriptors[shard] = descriptor
            else:
                os.close(descriptor)
        return content

    def _read_texts(self, index: int) -> tuple[tuple[str, ...], dict[str, Any], list[tuple[str, str]]]:
        members = self._members(index)
        faults: list[tuple[str, str]] = []
        txt = self._read(index, members["txt"]) if "txt" in members else None
        meta = read_meta(self._read(index, members["json"]), faults) if "json" in members else {}
        texts = captions_of(txt, meta, faults)
        if not texts and txt is None and self._classes is not None:
            label = self._label(index)
            if isinstance(label, int) and 0 <= label < len(self._classes) and self._classes[label].strip():
                texts.append(self._classes[label])
        return tuple(texts), meta, faults

    def _label(self, index: int) -> int | str | None:
        members = self._members(index)
        if "cls" in members:
            return label_of(self._read(index, members["cls"]), None)
        return label_of(None, read_meta(self._read(index, members["json"]), [])) if "json" in members else None

    def _read_labels(self) -> list[int] | None:
        values = [self._label(index) for index in range(len(self))]
        if all(value is None for value in values):
            return None
        for index, value in enumerate(values):
            wrong = self._label_fault(value)
            if wrong:
                raise DataError(
                    f"{self.name}: sample {self._keys[index]} in {self.where(index)}: {wrong}; "
                    "`eyesmith data check` lists all of them"
                )
        return [value for value in values if isinstance(value, int)]  # all of them: others were refused above

    def _label_fault(self, value: int | str | None) -> str:
        if value is None:
            return "no label, other samples have one"
        if isinstance(value, str):
            return f"cls: expected a whole number, got {value}"
        if value < 0 or (self._classes is not None and value >= len(self._classes)):
            limit = f"0 to {len(self._classes) - 1}" if self._classes is not None else "0 or more"
            return f"label {value} is out of range, expected {limit}"
        return ""

    def _first_problems(self) -> str:
        shown = [f"{problem.where}: {problem.key} {problem.detail}" for problem in self.problems[:3]]
        return "; ".join(shown) or "expected members such as 000.jpg with 000.txt"
