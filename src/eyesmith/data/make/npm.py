"""Packages of the npm registry as data: fetched by the npm client at a pinned version, checked, cached, read in place.

Nothing of a package is ever unpacked to disk or run: members are read out of the archive by their exact name.
"""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eyesmith.errors import DataError, MissingDependencyError
from eyesmith.files import cache_folder, write_atomic

INSTEAD = "Without it, `eyesmith data make scenes DIR` draws a data set that needs no download."
MAX_MEMBER_BYTES = 256 * 2**20  # the largest file read here is 25 MB; a member beyond this is no icon set


@dataclass(frozen=True, kw_only=True)
class NpmPackage:
    """One published version. `integrity` is the registry's own form: "sha512-" and the digest in base64."""

    name: str
    version: str
    integrity: str

    @property
    def file_name(self) -> str:
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


def is_cached(package: NpmPackage) -> bool:
    """Whether `package` lies in the cache, undamaged."""
    path = _cached_path(package)
    return path.is_file() and _integrity(path.read_bytes()) == package.integrity


def fetch(packages: Iterable[NpmPackage], *, timeout_s: float = 300.0) -> dict[str, Path]:
    """Archive paths of `packages` by package name; what the cache lacks is fetched by one `npm pack`.

    A cached archive whose bytes do not have the pinned SHA-512 is fetched again. Raises MissingDependencyError when
    something is to be fetched and npm is missing or brings nothing (no network, say), DataError when it brings bytes
    that are not the pinned version's.
    """
    wanted = list(packages)
    missing = [package for package in wanted if not is_cached(package)]
    if missing:
        _pack(missing, timeout_s=timeout_s)
    return {package.name: _cached_path(package) for package in wanted}


def read_members(archive: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Contents of the members `names` (paths inside the package, without npm's leading `package/`).

    Raises DataError when the archive is damaged or lacks one of them, or when a member is unreasonably large.
    """
    wanted = {f"package/{name}": name for name in names}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.size < 0:  # older versions of tarfile go back, and read for ever
                    raise DataError(f"{archive}: {member.name} has a negative size; delete it and run again")
                if member.name not in wanted or not member.isfile():
                    continue
                if member.size > MAX_MEMBER_BYTES:
                    limit = f"at most {MAX_MEMBER_BYTES} are read"
                    raise DataError(f"{archive}: {member.name} has {member.size} bytes, {limit}")
                stream = tar.extractfile(member)
                assert stream is not None  # isfile() was true
                found[wanted[member.name]] = stream.read()
                if len(found) == len(wanted):
                    break
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{archive}: not a whole npm archive ({error}); delete it and run again") from error
    absent = sorted(set(wanted.values()) - found.keys())
    if absent:
        raise DataError(f"{archive}: expected {', '.join(absent)} inside, found none of that name")
    return found


def _pack(packages: list[NpmPackage], *, timeout_s: float) -> None:
    names = ", ".join(map(str, packages))
    npm = shutil.which("npm")
    if npm is None:
        raise MissingDependencyError(
            f"npm is needed to fetch {names}, and no `npm` is on the PATH. Install Node.js (it brings npm). {INSTEAD}"
        )
    with tempfile.TemporaryDirectory(prefix="eyesmith-npm-") as folder:
        command = [npm, "pack", "--loglevel=error", "--ignore-scripts", *map(str, packages)]
        try:
            done = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, errors="replace", timeout=timeout_s
            )
        except subprocess.TimeoutExpired as error:
            late = f"did not bring {names} within {timeout_s:g} s"
            raise MissingDependencyError(f"`npm pack` {late}. Is the network up? {INSTEAD}") from error
        except OSError as error:
            raise MissingDependencyError(f"`npm pack` could not be started: {error}. {INSTEAD}") from error
        contents = [path.read_bytes() for path in Path(folder).glob("*.tgz")]
    brought = {_integrity(content): content for content in contents}
    for package in packages:
        if package.integrity in brought:
            write_atomic(_cached_path(package), brought[package.integrity])
    lost = [package for package in packages if package.integrity not in brought]
    if lost and done.returncode != 0:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        why = " / ".join(said[:3]) or "it said nothing (is the registry within reach?)"
        raise MissingDependencyError(
            f"`npm pack` failed for {', '.join(map(str, lost))} (exit status {done.returncode}): {why}. {INSTEAD}"
        )
    if lost:
        raise DataError(
            f"`npm pack` brought something else than the pinned {', '.join(map(str, lost))}: the SHA-512 differs. "
            f"Nothing of it was kept; check the registry your npm is set to. {INSTEAD}"
        )


def _cached_path(package: NpmPackage) -> Path:
    return cache_folder() / "npm" / package.file_name


def _integrity(content: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
