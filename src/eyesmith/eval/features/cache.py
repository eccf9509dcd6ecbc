"""How much may be kept: the files of a cache that were not used for the longest time go first."""

import contextlib
import os
import time
from pathlib import Path

from eyesmith.errors import ConfigError

_LIMIT_GB = 50.0
_YOUNG_S = 3600.0  # a file of the last hour may be in another process's hands


def limit_bytes() -> int:
    """$EYESMITH_CACHE_GB as bytes, 50 GB when it is not set. Raises ConfigError when it is no number from 0 on."""
    text = os.environ.get("EYESMITH_CACHE_GB", "")
    try:
        limit = float(text) if text else _LIMIT_GB
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise ConfigError(f"EYESMITH_CACHE_GB: expected a number of gigabytes, 0 or more, got {text!r}")
    return int(limit * 1e9)


def touch(path: Path) -> None:
    """Note that a kept file was used now."""
    with contextlib.suppress(OSError):  # a read-only cache
        os.utime(path)


def prune(folder: Path, *, limit: int | None = None, young_s: float = _YOUNG_S) -> list[Path]:
    """Remove the files of `folder` that were used the longest ago until it holds at most `limit` bytes.

    limit: `limit_bytes` when None. Files used within `young_s` seconds stay whatever they hold. Returns what was
    removed; what cannot be removed stays.
    """
    most = limit_bytes() if limit is None else limit
    found = []
    for path in folder.rglob("*") if folder.is_dir() else ():
        try:
            facts = path.stat()
        except OSError:  # another process removed it
            continue
        if path.is_file() and path.suffix != ".lock":  # a lock that others hold must stay
            found.append((facts.st_mtime, facts.st_size, path))
    total, removed = sum(size for _, size, _ in found), []
    for used, size, path in sorted(found):
        if total <= most or time.time() - used < young_s:
            break
        try:
            path.unlink()
        except OSError:
            continue
        total -= size
        removed.append(path)
    return removed
