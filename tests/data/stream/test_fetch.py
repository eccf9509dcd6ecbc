import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest

from eyesmith.data.stream import fetch
from eyesmith.data.stream.fetch import ShardCache
from eyesmith.errors import DataError


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(fetch, "_CHUNK_BYTES", 10)


@pytest.fixture
def remote() -> Any:
    files = fsspec.filesystem("memory")
    for number in range(4):
        files.pipe(f"/fetch/{number}.tar", bytes([number]) * 100)
    return files


def test_a_local_shard_is_its_own_copy(tmp_path) -> None:
    cache = ShardCache(tmp_path / "cache", limit_bytes=0)
    assert cache.hold("/somewhere/0.tar") == "/somewhere/0.tar"
    assert cache.size("/somewhere/0.tar") == 0
    cache.release("/somewhere/0.tar")
    assert not (tmp_path / "cache").exists()


def test_a_remote_shard_is_fetched_once(tmp_path, remote) -> None:
    cache = ShardCache(tmp_path, limit_bytes=1000)
    path = Path(cache.hold("memory://fetch/1.tar"))
    assert path.read_bytes() == b"\1" * 100
    assert cache.size("memory://fetch/1.tar") == 100
    remote.rm("/fetch/1.tar")
    assert cache.hold("memory://fetch/1.tar") == str(path)


def test_the_cache_stays_below_its_limit_and_keeps_what_is_held(tmp_path, remote) -> None:
    cache = ShardCache(tmp_path, limit_bytes=250)

    def kept() -> set[str]:
        return {path.name[-5:] for path in tmp_path.glob("*.tar")}

    cache.hold("memory://fetch/0.tar")
    cache.fetch("memory://fetch/1.tar")
    cache.fetch("memory://fetch/2.tar")
    assert kept() == {"0.tar", "2.tar"}
    other = ShardCache(tmp_path, limit_bytes=250)  # as another process would have
    other.fetch("memory://fetch/3.tar")
    assert kept() == {"0.tar", "3.tar"}
    cache.release("memory://fetch/0.tar")
    other.fetch("memory://fetch/1.tar")
    assert kept() == {"1.tar", "3.tar"}


def test_where_files_cannot_be_locked_a_copy_in_use_lately_stays(tmp_path, remote, monkeypatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", no_locks)
    cache = ShardCache(tmp_path, limit_bytes=150)
    copies = [Path(cache.hold(f"memory://fetch/{number}.tar")) for number in range(2)]
    cache.release("memory://fetch/0.tar")
    assert [copy.is_file() for copy in copies] == [True, True]
    os.utime(copies[0], (time.time() - 10_000, copies[0].stat().st_mtime))
    cache.fetch("memory://fetch/2.tar")
    assert [copy.is_file() for copy in copies] == [False, True]


class _Cut:
    """A stream that breaks after some bytes."""

    def __init__(self, stream: Any, num_bytes: int) -> None:
        self._stream, self._left = stream, num_bytes

    def __enter__(self) -> "_Cut":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def seek(self, place: int) -> None:
        self.start = place
        self._stream.seek(place)

    def read(self, size: int) -> bytes:
        if self._left <= 0:
            raise OSError("connection lost")
        self._left -= size
        return self._stream.read(size)


def test_a_fetch_goes_on_where_it_stopped(tmp_path, remote, monkeypatch) -> None:
    opened: list[_Cut] = []
    real = type(remote).open

    def cut_open(self: Any, path: str, *args: Any, **options: Any) -> _Cut:
        opened.append(_Cut(real(self, path, *args, **options), 30))
        return opened[-1]

    monkeypatch.setattr(type(remote), "open", cut_open)
    cache = ShardCache(tmp_path, limit_bytes=1000)
    path = Path(cache.fetch("memory://fetch/2.tar"))
    assert path.read_bytes() == b"\2" * 100
    assert [stream.start for stream in opened] == [0, 30, 60, 90]
    assert not list(tmp_path.glob("*.part*"))


def test_a_part_of_a_file_that_changed_meanwhile_is_thrown_away(tmp_path, remote) -> None:
    cache = ShardCache(tmp_path, limit_bytes=1000)
    copy = cache._place("memory://fetch/2.tar")
    copy.with_name(f"{copy.name}.part").write_bytes(b"old" * 10)
    copy.with_name(f"{copy.name}.part.json").write_text(json.dumps({"size": 100, "mark": {"created": "before"}}))
    assert Path(cache.fetch("memory://fetch/2.tar")).read_bytes() == b"\2" * 100


def test_what_cannot_be_fetched_is_an_error_that_names_it(tmp_path, remote, monkeypatch) -> None:
    cache = ShardCache(tmp_path, limit_bytes=1000)
    with pytest.raises(DataError, match=r"memory://fetch/none\.tar: no such shard"):
        cache.hold("memory://fetch/none.tar")
    monkeypatch.setattr(type(remote), "open", lambda *_, **__: (_ for _ in ()).throw(OSError("no route")))
    with pytest.raises(DataError, match="cannot be fetched after 4 tries: no route"):
        cache.hold("memory://fetch/3.tar")


def test_two_readers_of_one_folder_fetch_a_shard_once(tmp_path, remote, monkeypatch) -> None:
    opened = []
    real = type(remote).open

    def counting(self: Any, path: str, *args: Any, **options: Any) -> Any:
        opened.append(path)
        return real(self, path, *args, **options)

    monkeypatch.setattr(type(remote), "open", counting)
    caches = [ShardCache(tmp_path, limit_bytes=1000) for _ in range(2)]
    threads = [threading.Thread(target=cache.fetch, args=("memory://fetch/0.tar",)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1


def test_a_copy_is_believed_only_when_the_server_says_the_same(tmp_path, remote) -> None:
    first = Path(ShardCache(tmp_path, limit_bytes=1000).fetch("memory://fetch/1.tar"))
    remote.pipe_file("/fetch/1.tar", b"\7" * 100)  # another file of as many bytes
    second = Path(ShardCache(tmp_path, limit_bytes=1000).fetch("memory://fetch/1.tar"))
    assert second.read_bytes() == b"\7" * 100
    assert first.read_bytes() == b"\1" * 100  # who still reads the old one is not disturbed
    again = ShardCache(tmp_path, limit_bytes=1000).fetch("memory://fetch/1.tar")
    assert Path(again) == second


def test_without_the_server_the_newest_copy_is_taken(tmp_path, remote, monkeypatch) -> None:
    path = ShardCache(tmp_path, limit_bytes=1000).fetch("memory://fetch/1.tar")
    monkeypatch.setattr("eyesmith.data.stream.fetch._FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(type(remote), "info", lambda *_, **__: (_ for _ in ()).throw(OSError("no route")))
    cache = ShardCache(tmp_path, limit_bytes=1000)
    assert cache.fetch("memory://fetch/1.tar") == path
    with pytest.raises(DataError, match="cannot be fetched after 4 tries: no route"):
        cache.fetch("memory://fetch/2.tar")


def test_fsspec_is_not_imported_before_it_is_needed() -> None:
    program = "import sys, eyesmith.data.stream; assert 'fsspec' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
