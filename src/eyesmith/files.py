"""Files that appear whole or not at all: write beside the target, fsync, rename."""

import errno
import hashlib
import json
import lzma
import os
import secrets
import shutil
import threading
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk is full, a quota is used up, `ulimit -f`
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # of a file system that cannot lock files
_SEEKING = threading.Lock()
SEAL_BYTES = 32
_MAX_DEPTH = 100
_TOO_DEEP = "lists and objects in it are nested too deep"


DAMAGED_ZIP: tuple[type[Exception], ...] = (
    *(OSError, ValueError, EOFError, LookupError, AttributeError, TypeError, MemoryError),
    *(RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError),
)
"""What damaged bytes reach in `zipfile` and in NumPy's reader of .npz: other methods of packing, odd headers."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on a clean exit it is synced and renamed to `path`.

    On any error (also a full disk or Ctrl-C) the temporary file is removed and what stood at `path` before stays.
    An OSError about the temporary file, or about no file, leaves here with `path` as its filename; a library's own
    error for a full disk leaves as OSError (one of NO_ROOM).
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(3)}.part")
    try:
        part.touch()
        mode = part.stat().st_mode  # as the user's umask has it; some writers replace the file and make it private
        yield part
        part.chmod(mode)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(part, target)
        sync_folder(target.parent)
    except OSError as error:
        if error.filename is None or os.fspath(error.filename) == os.fspath(part):
            error.filename = os.fspath(target)
        raise
    except Exception as error:
        if (number := _no_room(error)) is not None:
            raise OSError(number, os.strerror(number), os.fspath(target)) from error
        raise
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def sealed_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """As `atomic_path`, for a file of a cache: the SHA-256 of its bytes comes behind them, which NumPy passes over."""
    with atomic_path(path) as part:
        yield part
        seal(part)


def seal(path: Path) -> None:
    """Put the SHA-256 of a file's bytes behind them."""
    digest = bytes.fromhex(sha256_file(path))
    with path.open("ab") as stream:
        stream.write(digest)


def is_sealed(path: str | os.PathLike[str]) -> bool:
    """Whether a file is there and ends in the SHA-256 of the bytes before it, as none does that was damaged."""
    try:
        with Path(path).open("rb") as stream:
            left = os.fstat(stream.fileno()).st_size - SEAL_BYTES
            digest = hashlib.sha256()
            while left > 0 and (chunk := stream.read(min(left, 1 << 20))):
                digest.update(chunk)
                left -= len(chunk)
            return left == 0 and stream.read() == digest.digest()
    except OSError:
        return False


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write `content` (text as UTF-8) to `path`, whole or not at all."""
    with atomic_path(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def load_json(content: str | bytes) -> Any:
    """`json.loads` of a file that anybody may have written: one that nests too deep is a ValueError, as other faults.

    What is deeper than `_MAX_DEPTH` cannot be a file of ours, and those who go through it would fail in the middle.
    """
    try:
        found = json.loads(content)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    opened = sum(map(content.count, (b"{", b"[") if isinstance(content, bytes) else ("{", "[")))  # pyright: ignore
    level, depth = [found] if opened > _MAX_DEPTH else [], 0
    while level := [inner for one in level if isinstance(one, dict | list) for inner in _inner(one)]:
        if (depth := depth + 1) > _MAX_DEPTH:
            raise ValueError(_TOO_DEEP)
    return found


def _inner(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def not_linked(path: str, flags: int) -> int:
    """For `open(path, "a", opener=not_linked)`: writes to the file itself, never through a symbolic link.

    A folder that was copied may hold a link to any file of its reader. Raises OSError (ELOOP) for a link.
    """
    try:
        return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            error.strerror = "is a link to another file, which is not written to; put a file in its place"
        raise


@contextmanager
def locked(path: str | os.PathLike[str], *, wait: bool = True, leave: bool = True) -> Iterator[bool]:
    """Hold the lock file `path` for the block; the value is whether it is held.

    wait: until another process lets go of it; else the value is False at once where another has it. leave: let the file
    stay afterwards; where it goes, who waits for it sees that and makes its own. A system that cannot lock files (some
    network file systems) gets a lock that is a file's mere presence.
    """
    from filelock import FileLock, SoftFileLock, Timeout

    target, timeout = Path(path), -1 if wait else 0
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(target, fallback_to_soft=False)  # the one below lies beside it, and says nothing
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        yield False
        return
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        lock = SoftFileLock(target.with_name(f"{target.name}.soft"))
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            yield False
            return
    try:
        yield True
    finally:
        if not leave and os.name == "posix":  # elsewhere an open file cannot go
            target.unlink(missing_ok=True)
        lock.release()


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """`size` bytes of an open file from `offset` on, fewer at its end; threads may share the descriptor."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    with _SEEKING:  # Windows: its one position belongs to one thread at a time
        os.lseek(descriptor, offset, os.SEEK_SET)
        parts = []
        while size > 0 and (part := os.read(descriptor, size)):
            parts.append(part)
            size -= len(part)
    return b"".join(parts)


def open_binary(path: str | os.PathLike[str]) -> int:
    """A descriptor to read a file's bytes as they are; Windows else changes the ends of lines."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))


def link_or_copy(source: Path, target: Path) -> None:
    """Let `target` be `source`: a symbolic link, a second name of the file, or a copy, whichever the system allows.

    Windows asks for a right to make symbolic links, some file systems have none.
    """
    for make in (os.symlink, os.link, shutil.copyfile):
        try:
            make(source, target)
            return
        except (OSError, NotImplementedError):
            if make is shutil.copyfile:
                raise


def cache_folder() -> Path:
    """Where what can be fetched or computed again is kept: $EYESMITH_CACHE, or ~/.cache/eyesmith."""
    chosen = os.environ.get("EYESMITH_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "eyesmith"


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _no_room(error: BaseException | None) -> int | None:
    """The system's number for a disk, quota or file size that is used up, where a library says so in its own error."""
    # safetensors repeats the system's words, torch.save raises its own error while handling the system's
    while error is not None:
        for number in NO_ROOM:
            if os.strerror(number) in str(error):
                return number
        error = error.__cause__ or error.__context__
    return None


def sync_folder(folder: Path) -> None:
    # a rename survives a power cut only when the folder entry is on disk too; Windows has no such call
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
