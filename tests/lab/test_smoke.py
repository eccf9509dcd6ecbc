from pathlib import Path

import pytest

from eyesmith.cli.main import main
from eyesmith.data.make.scenes import make_scenes


@pytest.mark.slow
def test_the_smoke_plan_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under 10 minutes on 2 cores: 26 cells in processes of their own, every contender measured, the page."""
    monkeypatch.chdir(tmp_path)
    make_scenes(Path("scenes"))
    words = ["lab", "run", "smoke", "data=scenes", "recipes=lab-joint", "out=lab"]
    assert main(words) == 0
    assert "26 cells done; page: " in capsys.readouterr().out
    page = Path("lab/smoke/index.html").read_text(encoding="utf-8")
    assert all(f"{name}.svg" in page for name in ("data", "size", "resolution", "cost-latency", "correlation"))
    finished = {path: path.stat().st_mtime_ns for path in Path("lab/cells").glob("*/result.json")}
    assert main(words) == 0  # nothing is run again
    assert {path: path.stat().st_mtime_ns for path in Path("lab/cells").glob("*/result.json")} == finished
