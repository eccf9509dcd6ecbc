import os
from pathlib import Path

import pytest

from eyesmith.errors import ConfigError
from eyesmith.eval.features.cache import limit_bytes, prune, touch


def test_what_was_used_the_longest_ago_goes_first(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "older", "oldest")):
        file = tmp_path / "sub" / f"{name}.npy"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x" * 100)
        os.utime(file, (1_000_000 - age, 1_000_000 - age))
    assert prune(tmp_path, limit=300) == []
    assert [file.stem for file in prune(tmp_path, limit=250)] == ["oldest"]
    touch(tmp_path / "sub" / "older.npy")
    assert [file.stem for file in prune(tmp_path, limit=150)] == ["new"]
    assert prune(tmp_path, limit=0) == []  # used a moment ago, maybe by another process
    assert prune(tmp_path / "nothing", limit=0) == []


def test_the_limit_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYESMITH_CACHE_GB", "0.5")
    assert limit_bytes() == 500_000_000
    for text in ("much", "-1", "inf"):
        monkeypatch.setenv("EYESMITH_CACHE_GB", text)
        with pytest.raises(ConfigError, match="EYESMITH_CACHE_GB"):
            limit_bytes()
