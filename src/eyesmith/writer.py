"""One writer a folder: who writes to it, what a killed process left there, whether it can be written to at all."""

import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from eyesmith.errors import ConfigError
from eyesmith.files import load_json, locked, not_linked, write_json

LOCK_FILE = ".writer.lock"
WRITER_FILE = ".writer.json"  # who holds the lock, for the message to the next one
_PART = re.compile(r"\..+\.\d+-[0-9a-f]{6}\.part")  # as `files.atomic_path` names them


@contextmanager
def one_writer(
    folder: str | os.PathLike[str],
    *,
    once: Callable[[Callable[[], Any]], Any] = lambda action: action(),
    called: str = "folder",
) -> Iterator[None]:
    """Only this process, or those of the world whose `once` is given, writes to `folder` inside the block.

    What a killed process left half-written there is removed. The lock is the system's, so that of a killed process
    holds nobody up; nothing of it stays behind, nor a folder in which nothing was written. called: what the folder is
    in the message. Raises ConfigError where another process has it.
    """
    with ExitStack() as held:
        once(lambda: held.enter_context(_held(Path(folder), called)))
        yield


@contextmanager
def _held(folder: Path, called: str) -> Iterator[None]:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file, no folder; choose another place")
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        with locked(folder / LOCK_FILE, wait=False) as is_ours:
            if not is_ours:
                raise ConfigError(
                    f"{folder}: {_writer(folder)} is writing to this {called}; wait for it, end it, or choose another"
                )
            try:
                sweep(folder)
                write_json(folder / WRITER_FILE, {"pid": os.getpid(), "host": socket.gethostname()})
                yield
            finally:
                (folder / WRITER_FILE).unlink(missing_ok=True)
                (folder / LOCK_FILE).unlink(missing_ok=True)  # who opened it before sees that, and makes its own
    finally:
        for one in made:
            if not one.is_dir() or any(one.iterdir()):
                break
            one.rmdir()


def _writer(folder: Path) -> str:
    try:
        facts = load_json((folder / WRITER_FILE).read_text(encoding="utf-8"))
        return f"process {int(facts['pid'])} on {facts['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder.

    Links are not followed, and a folder in it that has a lock of its own is left to its next writer.
    """
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not Path(place, name, LOCK_FILE).exists()]
        for name in files:
            if _PART.fullmatch(name):
                Path(place, name).unlink(missing_ok=True)


def content(folder: Path) -> set[str]:
    """Names in a folder, without what a writer of ours holds there, or left when it was killed; none of no folder."""
    if not folder.is_dir():
        return set()
    return {one.name for one in folder.iterdir() if not _PART.fullmatch(one.name)} - {LOCK_FILE, WRITER_FILE}


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise OSError unless a file or folder can be written at `path`; nothing is left there.

    What cannot be known before is found when it happens: a disk that fills, a folder that goes.
    """
    target = Path(path)
    if target.is_file():
        os.close(not_linked(os.fspath(target), os.O_WRONLY | os.O_APPEND))
        return
    place = next(one for one in (target, *target.absolute().parents) if one.exists() or one.is_symlink())
    with tempfile.TemporaryFile(dir=place):
        pass
