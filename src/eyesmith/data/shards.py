"""Tar shards and the folder of a made data set, in the layout of the published WebDataset evaluation sets.

`DIR/<split>/<n>.tar` and `DIR/<split>/nshards.txt`, `DIR/classnames.txt`, `DIR/zeroshot_classification_templates.txt`
(placeholder `{c}`) and, last of all, `DIR/dataset.json`. Bytes depend on the content only: no time, user or order of
the file system enters a tar. A killed make leaves `unfinished.json` and no `dataset.json`.
"""

import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from eyesmith.errors import ConfigError, DataError
from eyesmith.files import load_json, sha256_file, write_atomic, write_json

DATASET_FILE = "dataset.json"
UNFINISHED_FILE = "unfinished.json"
IDENTITY = ("name", "maker", "maker_version", "parameters")  # equal in these: the same data set


class ShardWriter:
    """Writes samples into `folder/0.tar`, `1.tar` ...; each appears when it is full, `nshards.txt` when all are there.

    A context manager: an exception inside drops the shard in progress and leaves no `nshards.txt`.
    """

    def __init__(self, folder: Path, *, shard_samples: int = 256) -> None:
        if shard_samples < 1:
            raise ConfigError(f"shard_samples: expected at least 1, got {shard_samples}")
        self.folder = Path(folder)
        self.shard_samples = shard_samples
        self.num_samples = 0
        self.sha256: list[str] = []  # of the finished shards, in order
        self._keys: set[str] = set()
        self._waiting: list[tuple[str, Mapping[str, bytes]]] = []

    def write(self, key: str, members: Mapping[str, bytes]) -> None:
        """Add one sample. `members`: extension (as in "png", without dot) to bytes, kept in the given order.

        Raises DataError for a key that was written before or cannot stand in a WebDataset file name.
        """
        if not key or "." in key or "/" in key or "\\" in key or "\0" in key:
            raise DataError(f"{self.folder}: sample key {key!r}: expected a name without dots and slashes")
        if key in self._keys:
            raise DataError(f"{self.folder}: sample key {key!r} is written twice")
        self._waiting.append((key, dict(members)))
        self._keys.add(key)
        self.num_samples += 1
        if self.num_samples % self.shard_samples == 0:
            self._finish_shard()

    def close(self) -> None:
        """Finish the last shard and write `nshards.txt`."""
        self._finish_shard()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / "nshards.txt", f"{len(self.sha256)}\n")

    def _finish_shard(self) -> None:
        if not self._waiting:
            return
        content = shard_bytes(self._waiting)
        write_atomic(self.folder / f"{len(self.sha256)}.tar", content)
        self.sha256.append(hashlib.sha256(content).hexdigest())
        self._waiting = []

    def __enter__(self) -> Self:
        (self.folder / "nshards.txt").unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()


def shard_bytes(samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> bytes:
    """A tar of samples: keys, each with its members by extension. Equal samples give equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, members in samples:
            for extension, content in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")  # its defaults: time, user, group are zero, mode is 0644
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def begin_dataset(folder: Path, identity: Mapping[str, Any], *, keeps: bool = False) -> dict[str, Any] | None:
    """Take `folder` for a data set with this `identity` (the keys of IDENTITY).

    keeps: what a killed attempt at exactly this set has left stays where it is, for the caller to go on from.

    Returns the content of dataset.json when exactly this set already lies there, whole; None when the caller is to
    make it. Raises DataError when the folder holds anything else, or when a shard of the set is damaged.
    """
    folder = Path(folder)
    want = {name: identity[name] for name in IDENTITY}
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: expected a folder (or nothing yet), found a file; choose another place")
    if (folder / DATASET_FILE).exists():
        dataset = read_dataset(folder)
        have = {name: dataset.get(name) for name in IDENTITY}
        if have != want:
            unequal = [name for name in IDENTITY if have[name] != want[name]]
            differs = ", ".join(f"{name} is {have[name]!r}, not {want[name]!r}" for name in unequal)
            raise DataError(
                f"{folder}: another data set lies here ({differs}); choose another folder or delete this one"
            )
        _check_shards(folder, dataset)
        (folder / UNFINISHED_FILE).unlink(missing_ok=True)
        return dataset
    ours = (folder / UNFINISHED_FILE).exists()
    others = [] if ours or not folder.exists() else sorted(path.name for path in folder.iterdir())
    others = [name for name in others if not (name.startswith(f".{UNFINISHED_FILE}.") and name.endswith(".part"))]
    if others:
        raise DataError(
            f"{folder}: expected an empty folder, found {', '.join(others[:3])}{' ...' if len(others) > 3 else ''}; "
            f"choose another place, nothing was changed"
        )
    if keeps and ours and _is_unfinished(folder, want):
        return None
    if ours:  # what an attempt that was killed has left, perhaps at another data set
        for pattern in ("*/[0-9]*.tar", "*/nshards.txt", "**/.*.part"):
            for path in sorted(folder.glob(pattern)):
                path.unlink(missing_ok=True)
        for path in folder.iterdir():
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
    write_json(folder / UNFINISHED_FILE, want)
    return None


def finish_dataset(folder: Path, dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Write the class names, the templates and at last dataset.json; returns its content.

    dataset: the fields of IDENTITY and "classes", "templates" (placeholder {}), "splits", "sources" ... as given.
    """
    folder = Path(folder)
    write_atomic(folder / "classnames.txt", "".join(f"{name}\n" for name in dataset["classes"]))
    templates = "".join(template.replace("{}", "{c}") + "\n" for template in dataset["templates"])
    write_atomic(folder / "zeroshot_classification_templates.txt", templates)
    write_json(folder / DATASET_FILE, dict(dataset))
    (folder / UNFINISHED_FILE).unlink(missing_ok=True)
    return dict(dataset)


def split_facts(writer: ShardWriter, classes: Sequence[str]) -> dict[str, Any]:
    """The entry of one split in dataset.json. classes: the candidates of the split's zero-shot task."""
    return {
        "samples": writer.num_samples,
        "shards": len(writer.sha256),
        "sha256": list(writer.sha256),
        "classes": list(classes),
    }


def read_dataset(folder: Path) -> dict[str, Any]:
    """The content of dataset.json. Raises DataError when there is none or it is not one of ours."""
    path = Path(folder) / DATASET_FILE
    try:
        dataset = load_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        unfinished = (Path(folder) / UNFINISHED_FILE).exists()
        half_way = "making it was stopped half-way; make it again"
        raise DataError(
            f"{path}: not there; {half_way if unfinished else 'did `eyesmith data make` make this folder?'}"
        ) from error
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); delete the folder and make it again") from error
    if not isinstance(dataset, dict) or not isinstance(dataset.get("splits"), dict):
        raise DataError(f"{path}: expected an object with 'splits'; delete the folder and make it again")
    return dataset


def _is_unfinished(folder: Path, want: Mapping[str, Any]) -> bool:
    try:
        return load_json((folder / UNFINISHED_FILE).read_text(encoding="utf-8")) == want
    except ValueError:
        return False


def _check_shards(folder: Path, dataset: Mapping[str, Any]) -> None:
    for split, facts in dataset["splits"].items():
        for index, expected in enumerate(facts["sha256"]):
            path = folder / split / f"{index}.tar"
            if not path.is_file() or sha256_file(path) != expected:
                state = "damaged" if path.exists() else "missing"
                raise DataError(f"{path}: this shard is {state}; delete {folder} and make the data set again")
