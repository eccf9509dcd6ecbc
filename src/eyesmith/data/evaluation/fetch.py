"""Evaluation sets from the hub to the local disk: sizes and checksums compared, an interrupted file continued.

The line is huggingface_hub's client: its endpoint, token, proxies, and redirects that leave the token behind. Not its
downloads: those compare no SHA-256, so that a damaged shard on the disk would stay, and know no converted tables.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from eyesmith.data.evaluation.names import CLASS_FILE, TEMPLATE_FILE
from eyesmith.data.evaluation.tars import COUNT_FILE, TYPE_FILE, shard_count
from eyesmith.errors import DataError, EyesmithError
from eyesmith.files import load_json, sha256_file, write_atomic, write_json

_TRIES = 4
_FIRST_WAIT_S = 0.5
_MAX_TEXT_BYTES = 64 << 20
_POINTER = b"version https://git-lfs"

OnBytes = Callable[[str, int, int], None]  # file, bytes there, bytes in all


class _LineError(Exception):
    """The line or the server failed; asking again may help."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What a fetch did. files: all files of the set; num_bytes: of these, new on the disk."""

    folder: Path
    files: tuple[str, ...]
    num_new: int
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class Hub:
    """Where data sets are fetched from. endpoint: the one huggingface_hub uses when ""; wait_s: first pause.

    A token that huggingface_hub knows is sent to the endpoint, never to the host a file is redirected to.
    """

    endpoint: str = ""
    revision: str = "main"
    timeout_s: float = 30.0
    wait_s: float = _FIRST_WAIT_S

    def url(self, repo: str, kind: str, file: str) -> str:
        """Address of a file of a data set repository; kind: "raw" (as stored in git) or "resolve" (the content)."""
        revision = quote(self.revision, safe="")
        return f"{self._base()}/datasets/{repo}/{kind}/{revision}/{quote(file)}"

    def parquet_url(self, repo: str) -> str:
        """Address of the list of a repository's converted Parquet files."""
        return f"{self._base()}/api/datasets/{repo}/parquet"

    def _base(self) -> str:
        if self.endpoint:
            return self.endpoint.rstrip("/")
        from huggingface_hub import constants

        return constants.ENDPOINT.rstrip("/")

    def read(self, url: str, *, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """Pieces of a file, each with the byte it begins at: from `start` on, from 0 if the server sends all again.

        Raises DataError for an address that is none of the web (the server says where files lie), or that the server
        refuses for good; FileNotFoundError for one that it lacks; _LineError for what may pass.
        """
        from huggingface_hub.utils import build_hf_headers, get_session

        if not url.startswith(("http://", "https://")):
            raise DataError(f"{url}: expected an address that begins with https:// or http://")
        token = None if url.startswith(self._base() + "/") else False  # None: the one that huggingface_hub knows
        headers = build_hf_headers(token=token, library_name="eyesmith") | {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            with get_session().stream("GET", url, headers=headers, timeout=self.timeout_s) as answer:
                if answer.is_error:
                    _refuse(url, answer.status_code, answer.reason_phrase)
                place = start if answer.status_code == 206 else 0
                for piece in answer.iter_bytes():
                    yield place, piece
                    place += len(piece)
        except (_LineError, DataError, FileNotFoundError):
            raise
        except Exception as error:  # which library is the client, and so its errors, differs between versions
            raise _LineError(f"{type(error).__name__}: {error}") from error


def fetch_evaluation_set(
    repo: str,
    folder: str | os.PathLike[str],
    *,
    split: str = "test",
    hub: Hub | None = None,
    on_bytes: OnBytes | None = None,
) -> Fetched:
    """Bring the set of repository `repo` (owner/name) to `folder`, in the layout of the hub.

    Text files come first and the shard count last of all, so that a folder with nshards.txt is whole. A shard whose
    size and SHA-256 are those of its pointer in the repository is not fetched again; one that was interrupted goes on
    where it stopped; a file appears under its name only when both are right. Raises DataError when the repository or a
    file does not exist or may not be read, or when the bytes are not the right ones; EyesmithError when the server
    cannot be reached after some tries.
    """
    hub = hub or Hub()
    folder = Path(folder)
    new: list[int] = []
    count = _text(hub, repo, f"{split}/{COUNT_FILE}")
    assert count is not None  # it is required: _text raised
    num_shards = shard_count(count)
    if num_shards is None:
        raise DataError(
            f"{hub.url(repo, 'raw', f'{split}/{COUNT_FILE}')}: expected the number of shards, got {count[:40]!r}"
        )
    files = [f"{split}/{number}.tar" for number in range(num_shards)]
    for name in (CLASS_FILE, TEMPLATE_FILE, TYPE_FILE):
        content = _text(hub, repo, name, is_optional=True)
        if content is not None:
            _write_if_new(folder / name, content, new)
            files.insert(0, name)
    for name in files:
        if name.endswith(".tar"):
            size, digest = _pointer(hub, repo, name)
            new.append(fetch_file(hub, hub.url(repo, "resolve", name), folder / name, size, digest, on_bytes=on_bytes))
    _write_if_new(folder / split / COUNT_FILE, count, new)
    return Fetched(
        folder=folder,
        files=(*files, f"{split}/{COUNT_FILE}"),
        num_new=sum(count > 0 for count in new),
        num_bytes=sum(new),
    )


def fetch_file(
    hub: Hub, url: str, target: Path, size: int | None, digest: str | None, *, on_bytes: OnBytes | None = None
) -> int:
    """Bring one file to `target`; returns the bytes that came over the wire, 0 when it lies there already.

    size in bytes and digest (SHA-256, hexadecimal) are compared where they are known. What an interrupted call left in
    a .part file beside the target is continued, if it is of the same file.
    """
    if target.is_file() and _is_right(target, size, digest):
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    part, note = target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.part.json")
    facts = {"size": size, "sha256": digest}
    if not _is_same(note, facts) or (size is None and digest is None):
        part.unlink(missing_ok=True)
        write_json(note, facts)
    total = 0
    reason: object = None
    for attempt in range(_TRIES):
        try:
            total += _continue(
                hub, url, part, size, lambda done: on_bytes and on_bytes(target.name, done, size or done)
            )
        except _LineError as error:
            reason = error
        except FileNotFoundError as error:
            raise DataError(str(error)) from error
        else:
            if _is_right(part, size, digest):
                os.replace(part, target)
                note.unlink(missing_ok=True)
                return total
            if size is not None and part.stat().st_size < size:
                reason = f"got {part.stat().st_size:,} bytes, expected {size:,}"
            else:
                part.unlink()
                reason = "the bytes are not those of the repository (size or SHA-256 differ); nothing of them was kept"
                if attempt:  # twice the wrong content is no accident of the line
                    note.unlink(missing_ok=True)
                    raise DataError(f"{url}: {reason}")
        if attempt < _TRIES - 1:
            time.sleep(hub.wait_s * 2**attempt)
    raise EyesmithError(f"{url}: cannot be fetched after {_TRIES} tries: {reason}; run the command again to go on")


def _continue(hub: Hub, url: str, part: Path, size: int | None, on_done: Callable[[int], object]) -> int:
    start = part.stat().st_size if part.is_file() else 0
    if size is not None and start >= size:
        if start == size:
            return 0
        part.unlink()
        start = 0
    came = 0
    with part.open("ab") as stream:
        for place, piece in hub.read(url, start=start):
            if came == place == 0:  # the server sends the whole file again
                stream.truncate(0)
            stream.write(piece)
            came += len(piece)
            on_done(place + len(piece))
        stream.flush()
        os.fsync(stream.fileno())
    return came


def _is_right(file: Path, size: int | None, digest: str | None) -> bool:
    if size is not None and file.stat().st_size != size:
        return False
    return digest is None or sha256_file(file) == digest


def _is_same(note: Path, facts: dict[str, Any]) -> bool:
    try:
        return load_json(note.read_text("utf-8")) == facts
    except (OSError, ValueError):
        return False


def _pointer(hub: Hub, repo: str, file: str) -> tuple[int, str]:
    """Size and SHA-256 of a large file, from what the repository keeps in its place."""
    url = hub.url(repo, "raw", file)
    content = get(hub, url, limit=1 << 16)
    assert content is not None
    if not content.startswith(_POINTER):
        if len(content) >= 1 << 16:
            raise DataError(f"{url}: expected the pointer of a large file, got something else; is this the right hub?")
        return len(content), hashlib.sha256(content).hexdigest()  # a small shard may be kept in git itself
    facts = dict(line.split(" ", 1) for line in content.decode("utf-8", "replace").splitlines() if " " in line)
    try:
        return int(facts["size"]), facts["oid"].removeprefix("sha256:")
    except (KeyError, ValueError) as error:
        raise DataError(f"{url}: a pointer without size and oid: {content[:100]!r}") from error


def _text(hub: Hub, repo: str, file: str, *, is_optional: bool = False) -> str | None:
    url = hub.url(repo, "raw", file)
    content = get(hub, url, limit=_MAX_TEXT_BYTES, is_optional=is_optional)
    try:
        return None if content is None else content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{url}: not a text file") from error


def get(hub: Hub, url: str, *, limit: int, is_optional: bool = False) -> bytes | None:
    """The first `limit` bytes at `url`; None when it does not exist and `is_optional`. Errors as `fetch_file`."""
    reason: object = None
    for attempt in range(_TRIES):
        content = bytearray()
        try:
            for _, piece in hub.read(url):
                content += piece
                if len(content) >= limit:
                    break
            return bytes(content[:limit])
        except FileNotFoundError as error:
            if is_optional:
                return None
            raise DataError(str(error)) from error
        except _LineError as error:
            reason = error
        if attempt < _TRIES - 1:
            time.sleep(hub.wait_s * 2**attempt)
    raise EyesmithError(f"{url}: cannot be reached after {_TRIES} tries: {reason}. Is the network up?")


def _refuse(url: str, status: int, reason: str) -> NoReturn:
    if status in (401, 403):
        raise DataError(
            f"{url}: may not be read ({status}). Accept the set's terms on its page, then log in with `hf auth login`"
        )
    if status in (404, 410):
        raise FileNotFoundError(f"{url}: not there ({status}); the repository or the file does not exist")
    if 400 <= status < 500 and status not in (408, 416, 425, 429):
        raise DataError(f"{url}: refused ({status} {reason})")
    raise _LineError(f"{status} {reason}")


def _write_if_new(path: Path, content: str, new: list[int]) -> None:
    data = content.encode()
    if path.is_file() and path.read_bytes() == data:
        new.append(0)
        return
    write_atomic(path, data)
    new.append(len(data))
