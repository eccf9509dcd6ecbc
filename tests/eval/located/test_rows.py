"""Result lines: their names, splits and identity, values of the exact scores, intervals around them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eyesmith.data.annotations import Annotations
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.located import (
    Found,
    PanopticQuality,
    PixelScores,
    average_precision,
    detect_rows,
    found,
    segment_rows,
)
from eyesmith.eval.results.rows import append_rows, read_rows

Make = Callable[..., tuple[Annotations, list[Found]]]


def test_detect_lines(make_found: Make, tmp_path: Path) -> None:
    truth, detections = make_found(0, masks=True, pictures=8)
    run = {"weights": "abc"}
    rows = detect_rows(truth, detections, model="nano", setting="dense", masks=True, replicates=50, run=run)
    assert [(one.metric, one.split) for one in rows] == [
        (metric, split) for metric in ("ap50", "mask_ap50") for split in ("base", "novel", "all", "agnostic")
    ]
    assert {(one.model, one.task) for one in rows} == {("nano dense", "detect")}
    for region, part in (("box", rows[:4]), ("mask", rows[4:])):
        exact = average_precision(truth, detections, region=region)  # pyright: ignore
        one = average_precision(truth, detections, region=region, agnostic=True)  # pyright: ignore
        expected = [exact.mean("ap50", ~truth.novel), exact.mean("ap50", truth.novel), exact.mean("ap50")]
        assert [row.value for row in part[:3]] == expected
        assert part[3].value == pytest.approx(one.mean("ap50"), abs=1e-14)
        for row in part:
            assert row.low is not None
            assert row.high is not None
            assert row.low <= row.value <= row.high
            assert row.low < row.high
            assert row.run is not None
            assert row.run["weights"] == "abc"
            assert row.run["scored"]["region"] == region
    counted = [int((~one.crowd).sum()) for one in truth]
    assert rows[2].n == rows[3].n == sum(counted)
    assert rows[0].n + rows[1].n == rows[2].n
    append_rows(tmp_path / "results.jsonl", rows)
    assert read_rows(tmp_path / "results.jsonl") == rows


def test_agnostic_has_its_own_detections(make_found: Make) -> None:
    truth, detections = make_found(1)
    exact = [found(one.boxes, np.ones(len(one)), one.labels) for one in truth]
    rows = detect_rows(truth, detections, model="m", setting="crop", agnostic=exact, replicates=20)
    assert {row.split: row.value for row in rows}["agnostic"] == pytest.approx(1)


def test_a_set_without_novel_classes_has_no_such_splits(make_found: Make) -> None:
    truth, detections = make_found(2)
    plain = replace(truth, categories=tuple(replace(one, is_novel=None) for one in truth.categories))
    rows = detect_rows(plain, detections, model="m", setting="detector", replicates=20)
    assert [one.split for one in rows] == ["all", "agnostic"]
    with pytest.raises(ConfigError, match="setting: expected one of detector, dense, crop, got 'x'"):
        detect_rows(plain, detections, model="m", setting="x")


def test_segment_lines(make_found: Make) -> None:
    truth, _ = make_found(3, masks=True, pictures=6)
    quality, pixels = PanopticQuality(4), PixelScores(4)
    for index, objects in enumerate(truth):
        segments = truth.segments(index)
        quality.add_picture(truth, index, segments, objects.labels)
        pixels.add_picture(truth, index, truth.semantic(index))
    rows = segment_rows(truth, model="m", quality=quality, pixels=pixels, replicates=20, run={"weights": "abc"})
    assert [(one.metric, one.split) for one in rows] == [
        (metric, split) for metric in ("pq", "miou") for split in ("base", "novel", "all")
    ]
    # the truth itself is found: nothing is missed, nothing wrong
    assert [one.value for one in rows] == pytest.approx([1.0] * 6)
    assert {one.task for one in rows} == {"segment"}
    with pytest.raises(DataError, match="pq: 0 pictures were counted, made has 6"):
        segment_rows(truth, model="m", quality=PanopticQuality(4))
