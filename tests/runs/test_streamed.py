"""A run on tar shards: stopped in mid-epoch and gone on with, its samples and weights are those of no stop."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import eyesmith
from eyesmith.data.loader import Loader
from eyesmith.errors import ConfigError
from eyesmith.runs.train import Interrupted, resume, start
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train import loop as train_loop
from eyesmith.train.data import open_rows
from eyesmith.train.processes import World


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, tuple[str, ...]]]]:
    """Step and sample keys of every batch that the loop trains on."""
    found: list[tuple[int, tuple[str, ...]]] = []
    whole = Loader.batch

    def batch(self: Loader, step: int) -> Any:
        made = whole(self, step)
        found.append((step, made.keys))
        return made

    monkeypatch.setattr(Loader, "batch", batch)
    return found


def test_a_stop_in_mid_epoch_changes_nothing(
    streamed: TrainConfig, tmp_path: Path, seen: list[tuple[int, tuple[str, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    start(streamed, tmp_path / "whole")
    whole = list(seen)
    assert [step for step, _ in whole] == list(range(18))
    for epoch in range(3):
        keys = [key for step, keys in whole[6 * epoch : 6 * epoch + 6] for key in keys]
        assert sorted(keys) == sorted({*keys})
        assert len(keys) == 24
    seen.clear()

    calls = iter(range(100))
    original = train_loop.train

    def stops(*args: Any, **rest: Any) -> bool:
        return original(*args, **rest | {"should_stop": lambda: next(calls) == 8})

    with monkeypatch.context() as patch:
        patch.setattr("eyesmith.runs.train.train", stops)
        with pytest.raises(Interrupted):
            start(streamed, tmp_path / "stopped")
    other = replace(streamed, data=replace(streamed.data, num_workers=1))  # workers are no part of the order
    path = tmp_path / "stopped" / "config.json"
    content = json.loads(path.read_text())
    content["train"]["data"]["num_workers"] = other.data.num_workers
    path.write_text(json.dumps(content))
    resume(tmp_path / "stopped")
    assert seen == whole
    ours, theirs = (eyesmith.load(tmp_path / name).state_dict() for name in ("whole", "stopped"))
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_the_rows_of_two_processes_are_those_of_one(streamed: TrainConfig) -> None:
    whole = Loader(open_rows(streamed))
    parts = [Loader(open_rows(streamed, World(rank=rank, size=2))) for rank in (0, 1)]
    for step in (0, 4, 7):
        one, halves = whole.batch(step), [part.batch(step) for part in parts]
        assert one.keys == halves[0].keys + halves[1].keys
        assert torch.equal(one.pixels, torch.cat([half.pixels for half in halves]))
        assert torch.equal(one.rows, torch.cat([half.rows for half in halves]))
    for batches in (whole, *parts):
        batches.close()


def test_several_sources_and_what_is_refused(streamed: TrainConfig, shards: Path) -> None:
    first, second = str(shards / "0.tar"), str(shards / "1.tar")
    data = replace(streamed.data, path=first, more_paths=(second,), weights=(1.0, 3.0), num_workers=1)
    batches = Loader(open_rows(replace(streamed, data=data)))
    assert batches.batch(0).pixels.shape == (4, 3, 32, 32)
    batches.close()
    with pytest.raises(ConfigError, match="expected 2"):
        open_rows(replace(streamed, data=replace(data, weights=(1.0,))))
    with pytest.raises(ConfigError, match="set `transform`"):
        replace(streamed, transform=None, data=data)
