import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from eyesmith.files import (
    atomic_path,
    cache_folder,
    is_sealed,
    link_or_copy,
    locked,
    open_binary,
    read_at,
    sealed_path,
    sha256_file,
    write_atomic,
    write_json,
)


def test_a_failed_write_leaves_what_stood_there(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_atomic(target, "before")
    with pytest.raises(OSError, match="disk"), atomic_path(target) as part:
        part.write_text("half")
        raise OSError(28, "no space left on the disk")
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]  # no temporary file is left


def test_folders_are_made_and_the_content_is_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "er" / "x.json", {"name": "é"})
    assert (tmp_path / "deep" / "er" / "x.json").read_text(encoding="utf-8") == '{\n  "name": "é"\n}\n'


def test_sha256_of_a_known_content(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_every_way_of_saying_that_the_disk_is_full_names_the_file(tmp_path: Path) -> None:
    def by_the_system() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def by_safetensors() -> None:
        raise RuntimeError(f"Error while serializing: I/O error: {os.strerror(errno.ENOSPC)} (os error 28)")

    def by_torch() -> None:
        try:
            by_the_system()
        finally:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")

    target = tmp_path / "model.safetensors"
    target.write_text("before")
    for fail in (by_the_system, by_safetensors, by_torch):
        with pytest.raises(OSError, match="No space left") as caught, atomic_path(target) as part:
            part.write_text("half")
            fail()
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(target))
        assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_the_cache_folder_is_the_users_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("EYESMITH_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "eyesmith"


def test_a_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as part:
        part.unlink()  # what safetensors does: it replaces the file by a private one
        part.touch(mode=0o600)
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize("has_pread", [True, False])
def test_threads_read_one_descriptor_at_their_own_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_pread: bool
) -> None:
    content = bytes(range(256)) * 64
    (tmp_path / "a").write_bytes(content)
    if not has_pread:  # as on Windows
        monkeypatch.delattr(os, "pread")
    descriptor = open_binary(tmp_path / "a")
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda place: read_at(descriptor, 100, place), range(0, len(content), 50)))
        assert found == [content[place : place + 100] for place in range(0, len(content), 50)]  # fewer at the end
    finally:
        os.close(descriptor)


def _refuse(*_: object) -> None:
    raise OSError(errno.EPERM, "a required privilege is not held")


@pytest.mark.parametrize("refused", [(), ("symlink",), ("symlink", "link")])
def test_a_file_has_a_second_place_with_or_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: tuple[str, ...]
) -> None:
    (tmp_path / "a").write_bytes(b"weights")
    for name in refused:
        monkeypatch.setattr(os, name, _refuse)
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"weights"


def test_a_file_system_without_locks_gets_one_of_presence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with locked(tmp_path / "a.lock") as is_ours:
        assert is_ours
        with locked(tmp_path / "a.lock", wait=False) as is_ours_too:
            assert not is_ours_too
    with locked(tmp_path / "a.lock", wait=False) as is_ours:
        assert is_ours


def test_a_sealed_file_says_when_any_of_its_bytes_changed(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    with sealed_path(path) as part, part.open("wb") as stream:
        np.save(stream, np.arange(12.0).reshape(3, 4))
    assert is_sealed(path)
    for mode in (None, "r", "c"):  # NumPy passes over the seal
        assert np.load(path, mmap_mode=mode).tolist() == np.arange(12.0).reshape(3, 4).tolist()
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert not is_sealed(path)
    for content in (whole[:-1], whole + b"x", whole[:-32], whole[:20], b""):
        path.write_bytes(content)
        assert not is_sealed(path)
    assert not is_sealed(tmp_path / "nowhere")
    assert not is_sealed(tmp_path)
