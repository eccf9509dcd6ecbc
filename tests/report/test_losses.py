"""The page of a loss that is a sum."""

import json
from pathlib import Path

import pytest

from eyesmith.errors import DataError
from eyesmith.report import write_losses


def test_every_part_and_measurement_has_its_chart(tmp_path: Path) -> None:
    lines = [{"event": "start", "steps": 30}]
    for step in (10, 20, 30):
        lines.append({"step": step, "loss": 3 / step, "boxes_loss": 2 / step, "masks_loss": 1 / step, "time_s": step})
        lines.append({"step": step, "time_s": step, "eval": {"test/novel_ap50": step / 100}})
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    row = {"model": "small crop", "task": "detect", "split": "novel", "metric": "ap50", "value": 0.25}
    (tmp_path / "results.jsonl").write_text(json.dumps(row | {"low": 0.2, "high": 0.3, "n": 8, "chance": None}) + "\n")
    page = write_losses(tmp_path)
    assert page == tmp_path / "losses.html"
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 4
    for word in ("boxes_loss", "masks_loss", "test/novel_ap50", "small crop", "30 steps", "0.10 at the end"):
        assert word in text
    assert "<script" not in text


def test_a_folder_without_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no logged step"):
        write_losses(tmp_path)
