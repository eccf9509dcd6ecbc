"""Fetching through a stand-in for the npm client: a script on the PATH that copies archives, fails, lies or sleeps."""

import base64
import gzip
import hashlib
import io
import sys
import tarfile

import pytest

from eyesmith.data.make import npm
from eyesmith.data.make.npm import NpmPackage, fetch, is_cached, read_members
from eyesmith.errors import DataError, MissingDependencyError
from eyesmith.files import cache_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for npm is a POSIX script")


def archive(members: dict[str, bytes], *, links: dict[str, str] | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return stream.getvalue()


def package_of(content: bytes, name: str = "@toy/icons") -> NpmPackage:
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    return NpmPackage(name=name, version="1.0.0", integrity=f"sha512-{digest}")


TGZ = archive({"package/package.json": b"{}", "package/icons.json": b"icons"})


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def npm_client(tmp_path, monkeypatch):
    """Put a script called npm on the PATH, alone; its body sees `specs`, `served` (a folder) and the calls file."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "served").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def install(body: str):
        script = tmp_path / "bin" / "npm"
        head = (
            f"#!{sys.executable}\nimport pathlib, shutil, sys, time\n"
            f"specs = [word for word in sys.argv[2:] if not word.startswith('-')]\n"
            f"served = pathlib.Path({str(tmp_path / 'served')!r})\n"
            f"calls = open({str(tmp_path / 'calls')!r}, 'a'); calls.write(' '.join(sys.argv[1:]) + chr(10))\n"
        )
        script.write_text(head + body)
        script.chmod(0o755)
        return tmp_path

    return install


COPY = "for path in served.iterdir():\n    shutil.copy(path, '.')\n"


def test_fetched_once_then_from_the_cache(npm_client):
    folder = npm_client(COPY)
    (folder / "served" / "toy-icons-1.0.0.tgz").write_bytes(TGZ)
    package = package_of(TGZ)
    assert not is_cached(package)
    paths = fetch([package])
    assert paths == {"@toy/icons": cache_folder() / "npm" / "toy-icons-1.0.0.tgz"}
    assert paths["@toy/icons"].read_bytes() == TGZ
    assert is_cached(package)
    (folder / "bin" / "npm").unlink()  # no client, no network: the cache is enough
    assert fetch([package]) == paths
    assert (folder / "calls").read_text() == "pack --loglevel=error --ignore-scripts @toy/icons@1.0.0\n"


def test_damaged_cache_is_fetched_again(npm_client):
    folder = npm_client(COPY)
    (folder / "served" / "x.tgz").write_bytes(TGZ)
    package = package_of(TGZ)
    path = fetch([package])[package.name]
    path.write_bytes(TGZ[:100])
    assert not is_cached(package)
    assert fetch([package])[package.name].read_bytes() == TGZ


def test_without_npm_says_what_to_do(npm_client, tmp_path):
    with pytest.raises(MissingDependencyError, match=r"(?s)Node\.js.*eyesmith data make scenes DIR"):
        fetch([package_of(TGZ)])


def test_failing_npm_is_quoted(npm_client):
    npm_client("sys.stderr.write('npm error code ENOTFOUND' + chr(10)); sys.exit(1)")
    with pytest.raises(MissingDependencyError, match=r"(?s)exit status 1.*ENOTFOUND.*data make scenes DIR"):
        fetch([package_of(TGZ)])


def test_silent_failure_and_undecodable_output(npm_client):
    npm_client("sys.exit(7)")
    with pytest.raises(MissingDependencyError, match=r"exit status 7.*within reach"):
        fetch([package_of(TGZ)])
    npm_client("sys.stderr.buffer.write(bytes([255, 10])); sys.exit(1)")
    with pytest.raises(MissingDependencyError, match="exit status 1"):
        fetch([package_of(TGZ)])


def test_other_bytes_than_pinned_are_not_kept(npm_client):
    folder = npm_client(COPY)
    (folder / "served" / "toy-icons-1.0.0.tgz").write_bytes(archive({"package/package.json": b"evil"}))
    with pytest.raises(DataError, match="SHA-512 differs"):
        fetch([package_of(TGZ)])
    assert not list(cache_folder().rglob("*"))


def test_what_came_whole_is_kept_when_another_is_lost(npm_client):
    folder = npm_client(COPY + "sys.exit(1)")
    (folder / "served" / "a.tgz").write_bytes(TGZ)
    other = package_of(b"other", name="other")
    with pytest.raises(MissingDependencyError, match=r"failed for other@1\.0\.0"):
        fetch([package_of(TGZ), other])
    assert is_cached(package_of(TGZ))


def test_npm_that_hangs(npm_client):
    npm_client("time.sleep(60)")
    with pytest.raises(MissingDependencyError, match=r"within 0\.3 s.*data make scenes DIR"):
        fetch([package_of(TGZ)], timeout_s=0.3)


def test_npm_that_cannot_start(npm_client):
    folder = npm_client("")
    (folder / "bin" / "npm").write_text("#!/no/such/interpreter\n")
    with pytest.raises(MissingDependencyError, match="could not be started"):
        fetch([package_of(TGZ)])


def test_reads_only_named_plain_members(tmp_path):
    path = tmp_path / "a.tgz"
    path.write_bytes(
        archive(
            {"package/a.json": b"1", "package/../../evil": b"2", "/abs": b"3"},
            links={"package/link.json": "/etc/passwd"},
        )
    )
    assert read_members(path, ["a.json"]) == {"a.json": b"1"}
    with pytest.raises(DataError, match=r"expected link\.json inside"):
        read_members(path, ["a.json", "link.json"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tgz"]


@pytest.mark.parametrize(
    "content", [b"", b"not a tar", TGZ[:-20], TGZ[:60]], ids=["empty", "text", "cut late", "cut early"]
)
def test_damaged_archive(tmp_path, content):
    path = tmp_path / "a.tgz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tgz"):
        read_members(path, ["icons.json", "absent.json"])


def test_huge_member_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(npm, "MAX_MEMBER_BYTES", 3)
    path = tmp_path / "a.tgz"
    path.write_bytes(TGZ)
    with pytest.raises(DataError, match="has 5 bytes, at most 3"):
        read_members(path, ["icons.json"])


def test_a_negative_size_ends_the_reading(tmp_path):
    block = bytearray(gzip.decompress(archive({"package/x": b""}))[:512])
    block[124:136] = b"\xff" * 10 + b"\xfe\x00"  # minus 512: older versions of tarfile read it again, for ever
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(gzip.decompress(archive({"package/a": b"1"}))[:1024] + bytes(block) + bytes(1024)))
    with pytest.raises(DataError, match=r"a\.tgz"):
        read_members(path, ["b.json"])
