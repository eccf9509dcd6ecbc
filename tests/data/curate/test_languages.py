import sys
import types
from pathlib import Path

import pytest

from eyesmith.data.curate.languages import detector
from eyesmith.errors import ConfigError, DataError, MissingDependencyError


def test_unknown_detectors_and_missing_models(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fasttext, gcld3"):
        detector("langid", "")
    with pytest.raises(ConfigError, match=r"lid.176.bin"):
        detector("fasttext", "")
    pytest.importorskip("fasttext")
    with pytest.raises(DataError, match="not there"):
        detector("fasttext", str(tmp_path / "none.bin"))
    (tmp_path / "bad.bin").write_bytes(b"not a model")
    with pytest.raises(DataError, match="cannot be read"):
        detector("fasttext", str(tmp_path / "bad.bin"))


def test_gcld3_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcld3", None)
    with pytest.raises(MissingDependencyError, match="pip install gcld3"):
        detector("gcld3", "")


def test_newlines_are_spaces_to_fasttext(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[str] = []

    class Model:
        def predict(self, text: str, k: int) -> tuple[tuple[str, ...], list[float]]:
            seen.append(text)
            return (("__label__en",), [1.0]) if text else ((), [])

    stand_in = types.SimpleNamespace(load_model=lambda path: Model())
    monkeypatch.setitem(sys.modules, "fasttext", stand_in)
    (tmp_path / "lid.bin").write_bytes(b"")
    assert detector("fasttext", str(tmp_path / "lid.bin"))(["a\nb", ""]) == ["en", ""]
    assert seen == ["a b", ""]
