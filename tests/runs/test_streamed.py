"""A run on tar shards: stopped in mid-epoch and gone on with, its samples and weights are those of no stop."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
import torch.distributed as dist

import eyesmith
from eyesmith.data.loader import Loader
from eyesmith.data.stream import StreamPlan
from eyesmith.errors import ConfigError
from eyesmith.runs.folder import read_run_config
from eyesmith.runs.train import resume, start, start_or_resume
from eyesmith.runs.work import Interrupted
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train import loop as train_loop
from eyesmith.train.data import open_rows
from eyesmith.train.distributed import World


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
        patch.setattr("eyesmith.runs.work.train", stops)
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


def test_remote_shards_get_a_lane_a_machine_and_the_run_keeps_them(
    streamed: TrainConfig, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert streamed.with_lanes(64) == streamed  # local: one lane, as ever
    files = fsspec.filesystem("memory")
    for path in shards.glob("*.tar"):
        files.pipe(f"/lanes/{path.name}", path.read_bytes())
    open_ended = replace(streamed, data=replace(streamed.data, path="memory://lanes", window=9, cache_gib=1.0))
    assert [open_ended.with_lanes(machines).data.lanes for machines in (1, 2, 3, 64)] == [1, 2, 1, 4]
    own = replace(open_ended, data=replace(open_ended.data, lanes=2))
    assert own.with_lanes(64) == own
    monkeypatch.setattr(World, "num_machines", lambda self: 2)
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))
    start(open_ended, tmp_path / "run")
    begun = read_run_config(tmp_path / "run")
    assert begun.data.lanes == 2
    monkeypatch.setattr(World, "num_machines", lambda self: 4)
    assert open_ended.is_same_run(begun)
    assert own.is_same_run(begun)
    assert not replace(open_ended, seed=9).is_same_run(begun)
    assert not replace(own, data=replace(own.data, lanes=1)).is_same_run(begun)
    start_or_resume(open_ended, tmp_path / "run")  # finished: taken as it is, not refused
    batches = open_rows(begun)
    whole = StreamPlan([[one.num_samples for one in batches.stream.sources[0].shards]], 4, seed=0, lanes=2, window=9)
    assert batches.stream.plan.batch(2).sample.tolist() == whole.batch(2).sample.tolist()
    assert batches.describe()["order"] == {"seed": 0, "lanes": 2, "window": 9, "weights": []}
    before = open_rows(open_ended)  # a run of before there were lanes: its config says nothing, it had one
    assert before.stream.plan.lanes == 1
    assert before.fingerprint() != batches.fingerprint()
    for one in (batches, before):
        one.close()


def test_what_a_stream_is_asked_is_checked_and_refused_elsewhere(streamed: TrainConfig) -> None:
    for field, value in (("lanes", -1), ("window", 0), ("cache_gib", 0.0)):
        with pytest.raises(ConfigError, match=rf"^data\.{field}: expected .*, got {value}$"):
            replace(streamed.data, **{field: value})
    with pytest.raises(ConfigError, match=r"data\.lanes: expected a divisor of batch_size 4, got 3"):
        replace(streamed, data=replace(streamed.data, lanes=3))
    for field, value in (("lanes", 2), ("window", 5), ("cache_gib", 1.0)):
        with pytest.raises(ConfigError, match="are for streams"):
            replace(streamed, transform=None, data=replace(streamed.data, **{field: value}))


def test_machines_are_counted_by_their_first_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(values: list[Any], value: Any, group: Any) -> None:
        values[:] = [0, 1, 2, 0, 1, 2]

    monkeypatch.setattr(dist, "all_gather_object", gather)
    assert World(rank=1, size=6, local_rank=1).num_machines() == 2
    assert World().num_machines() == 1
