"""Remote shards on the local disk: fetched whole, kept in a folder of bounded size, resumed after an interruption."""

import errno
import glob
import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from eyesmith.data.stream.places import file_system, is_remote
from eyesmith.errors import DataError
from eyesmith.files import NO_LOCKS, load_json, locked, write_json

_CHUNK_BYTES = 4 << 20
_TRIES = 4
_FIRST_WAIT_S = 0.5
_LONG_S = 3600.0  # unused so long, a copy is in no use, where locks cannot say


class ShardCache:
    """Local copies of remote shards. A local shard is its own copy and costs nothing.

    A copy is believed when it is of the size and mark (etag, checksum or time) that the server gives, asked once by
    each cache; another version is another copy, so that a process that reads the old one is not disturbed. Only where
    the server cannot be reached is the newest copy taken as it is.
    Several processes may share the folder: a shard is fetched by one of them while the others wait. A fetch that was
    interrupted goes on where it stopped, if the remote file is still the same. Above `limit_bytes` the copies used
    longest ago are deleted, except those that a process holds; so what is held, and the few shards being fetched at the
    same time, may exceed it.
    """

    def __init__(self, folder: str | os.PathLike[str], *, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = Path(folder), limit_bytes
        self._held: dict[str, tuple[int, int]] = {}  # how often, and a descriptor locked as long
        self._sizes: dict[str, int] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def hold(self, shard: str) -> str:
        """The local path of a shard, fetched if it is not there; it stays until `release`. Raises DataError."""
        if not is_remote(shard):
            return shard
        self._mark(shard)
        try:
            return str(self.fetch(shard))
        except BaseException:
            self.release(shard)
            raise

    def release(self, shard: str) -> None:
        """Take back one `hold`."""
        if not is_remote(shard):
            return
        with self._lock:
            times, mark = self._held.pop(shard)
            if times > 1:
                self._held[shard] = (times - 1, mark)
            else:
                os.close(mark)

    def __del__(self) -> None:
        for _, mark in self._held.values():
            os.close(mark)

    def know(self, sizes: Mapping[str, int]) -> None:
        """Bytes of remote shards that a listing gave already: each of them is one question less."""
        self._sizes.update(sizes)

    def size(self, shard: str) -> int:
        """Bytes of a remote shard; 0 for a local one, which needs no copy."""
        if not is_remote(shard):
            return 0
        if shard not in self._sizes:
            self._sizes[shard] = _remote_facts(shard)["size"]
        return self._sizes[shard]

    def fetch(self, shard: str) -> Path:
        """The local copy of a remote shard, made if it is not there. Raises DataError when it cannot be fetched."""
        copy = self._place(shard)
        with locked(copy.with_name(f"{copy.name}.lock")):
            if not copy.is_file():
                self._make_room(self.size(shard))
                self._fetch(shard, copy)
            with suppress(OSError):
                os.utime(
                    copy, (time.time(), copy.stat().st_mtime)
                )  # the time of its last use; an index knows it by the other
        return copy

    def _place(self, shard: str) -> Path:
        """Where the copy of the server's version lies, or will; without a server the newest copy. Raises DataError."""
        stem, name = _short_hash(shard), shard.rpartition("/")[2] or "shard"
        for attempt in range(_TRIES):
            try:
                facts = self._facts.get(shard) or _remote_facts(shard)
            except OSError as error:
                kept = list(self.folder.glob(f"{stem}-*-{glob.escape(name)}"))
                if kept:
                    return max(kept, key=lambda copy: copy.stat().st_mtime)
                if attempt == _TRIES - 1:
                    raise DataError(f"{shard}: cannot be fetched after {_TRIES} tries: {error}") from error
                time.sleep(_FIRST_WAIT_S * 2**attempt)
            else:
                self._facts[shard] = facts
                return self.folder / f"{stem}-{_short_hash(json.dumps(facts, sort_keys=True))}-{name}"
        raise AssertionError

    def _mark(self, shard: str) -> None:
        copy = self._place(shard)
        with self._lock:
            if shard in self._held:
                times, mark = self._held[shard]
            else:
                times, mark = 0, _open_lock(copy.with_name(f"{copy.name}.held"))
                _lock(mark, shared=True)
            self._held[shard] = (times + 1, mark)

    def _fetch(self, shard: str, copy: Path) -> None:
        part, note = copy.with_name(f"{copy.name}.part"), copy.with_name(f"{copy.name}.part.json")
        for attempt in range(_TRIES):
            try:
                facts = self._facts[shard]
                if not _is_same(note, facts):
                    part.unlink(missing_ok=True)
                    write_json(note, facts)
                _copy(shard, part, facts["size"])
                os.replace(part, copy)
                note.unlink(missing_ok=True)
                return
            except FileNotFoundError as error:
                raise DataError(f"{shard}: no such shard") from error
            except OSError as error:
                if attempt == _TRIES - 1:
                    del self._facts[shard]  # perhaps it changed meanwhile
                    raise DataError(f"{shard}: cannot be fetched after {_TRIES} tries: {error}") from error
                time.sleep(_FIRST_WAIT_S * 2**attempt)

    def _make_room(self, num_bytes: int) -> None:
        copies = []
        for file in self.folder.iterdir():
            if not file.name.endswith((".lock", ".held", ".json", ".part")):
                with suppress(OSError):
                    facts = file.stat()
                    copies.append((facts.st_atime, facts.st_size, file))
        total = sum(size for _, size, _ in copies) + num_bytes
        for used, size, file in sorted(copies):
            if total <= self.limit_bytes:
                return
            mark = _open_lock(file.with_name(f"{file.name}.held"))
            is_ours = _lock(mark)
            is_old = is_ours is None and time.time() - used > _LONG_S
            with suppress(PermissionError):  # Windows keeps a file that is open
                if is_ours or is_old:  # nobody holds it
                    file.unlink(missing_ok=True)
                    total -= size
            os.close(mark)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _remote_facts(shard: str) -> dict[str, Any]:
    """Size in bytes, and what changes when the file does."""
    files, path = file_system(shard)
    try:
        facts = files.info(path)
    except FileNotFoundError as error:
        raise DataError(f"{shard}: no such shard") from error
    size = facts.get("size")
    if not isinstance(size, int):
        raise DataError(f"{shard}: the server does not say how large this shard is; fetch it first and give the file")
    marks = ("etag", "ETag", "md5Hash", "content_md5", "LastModified", "last_modified", "mtime", "created", "updated")
    return {"size": size, "mark": {name: str(facts[name]) for name in marks if facts.get(name)}}


def _is_same(note: Path, facts: dict[str, Any]) -> bool:
    try:
        return load_json(note.read_text("utf-8")) == facts
    except (OSError, ValueError):
        return False


def _copy(shard: str, part: Path, size: int) -> None:
    files, path = file_system(shard)
    with part.open("ab") as target:
        done = target.tell()
        if done > size:
            target.truncate(0)
            done = 0
        with files.open(path, "rb") as stream:
            stream.seek(done)
            while chunk := stream.read(_CHUNK_BYTES):
                target.write(chunk)
                done += len(chunk)
        target.flush()
        os.fsync(target.fileno())
    if done != size:
        raise OSError(f"got {done:,} bytes, expected {size:,}")


def _open_lock(file: Path) -> int:
    file.parent.mkdir(parents=True, exist_ok=True)
    return os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)


def _lock(descriptor: int, *, shared: bool = False) -> bool | None:
    """Lock a file against other processes until it is closed, however the process ends; False when others have it.

    shared: with others that share it, waiting for one that does not; else at once or not at all. None where there are
    no such locks: on Windows and some network file systems, where others do not see what is held.
    """
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError) as error:
        if isinstance(error, ImportError) or error.errno in NO_LOCKS:
            return None
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True
