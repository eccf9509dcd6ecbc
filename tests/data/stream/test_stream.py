import json
import random
from collections import Counter

import fsspec
import numpy as np
import pytest
import torch

from eyesmith.data.stream import Pairs, ShardSource, ShardStream, list_shards
from eyesmith.errors import ConfigError, DataError
from eyesmith.images import PreprocessConfig, TrainTransformConfig, sample_rng, training_pixels

TRANSFORM = TrainTransformConfig(image_size=(16, 16), scale=(0.5, 1.0))


def stream(sources, batch_size: int, **options) -> ShardStream:
    return ShardStream(sources, batch_size, **{"transform": TRANSFORM, "num_workers": 0, "window": 16, **options})


def keys(one: ShardStream, first: int, last: int) -> list[str]:
    return [key for step in range(first, last) for key in one.batch(step).keys]


def assert_equal(a: Pairs, b: Pairs) -> None:
    assert (a.keys, a.texts) == (b.keys, b.texts)
    assert torch.equal(a.pixels, b.pixels)
    assert (a.labels is None) == (b.labels is None)
    if a.labels is not None and b.labels is not None:
        assert torch.equal(a.labels, b.labels)


def test_a_batch_holds_the_pictures_and_captions_of_its_keys(shards, pair) -> None:
    folder = shards(9, 8, 7)
    one = stream(folder, 6, seed=3)
    assert one.plan.steps_per_epoch == 4
    for step in (0, 5):
        got = one.batch(step)
        assert got.pixels.shape == (6, 3, 16, 16)
        assert got.pixels.dtype == torch.uint8
        assert got.labels is None
        for row, key in enumerate(got.keys):
            number = int(key)
            assert got.texts[row] == f"caption {number}"
            rng = sample_rng(3, step // 4, key)
            rng.random()  # the caption's
            view = training_pixels(dict(pair(key, number))[f"{key}.jpg"], TRANSFORM, rng, mode="fast")
            assert torch.equal(got.pixels[row], view)
    assert sorted(map(int, keys(one, 0, 4))) == list(range(24))


def test_an_evaluation_transform_gives_its_pixels(shards) -> None:
    config = PreprocessConfig(image_size=(12, 12), resize="squash")
    one = stream(shards(6), 3, transform=config, mode="exact")
    assert one.batch(0).pixels.shape == (3, 3, 12, 12)


@pytest.mark.parametrize("lanes", [1, 2])
def test_processes_read_the_parts_of_one_global_batch(shards, lanes) -> None:
    folder = shards(10, 3, 12, 9)
    whole = stream(folder, 8, lanes=lanes)
    parts = [stream(folder, 8, lanes=lanes, rank=rank, world_size=4) for rank in range(4)]
    for step in (0, 1, 5):
        expected, got = whole.batch(step), [part.batch(step) for part in parts]
        assert expected.keys == tuple(key for one in got for key in one.keys)
        assert torch.equal(expected.pixels, torch.cat([one.pixels for one in got]))
    with pytest.raises(ConfigError, match="process 0 of 3"):
        stream(folder, 8, world_size=3)


def test_one_of_several_captions_is_drawn_by_seed_epoch_and_key(tmp_path, tar, pair) -> None:
    members = [part for i in range(8) for part in pair(f"{i}", i, txt=b"one\ntwo\nthree")]
    tar(tmp_path / "s" / "0.tar", members)
    one = stream(tmp_path / "s", 8)
    drawn = [dict(zip(batch.keys, batch.texts, strict=True)) for batch in (one.batch(step) for step in range(30))]
    assert drawn[0] != drawn[1]
    counts = Counter(text for batch in drawn for text in batch.values())
    assert set(counts) == {"one", "two", "three"}
    assert min(counts.values()) > 240 / 3 * 0.6
    assert drawn[3] == dict(zip(one.batch(3).keys, one.batch(3).texts, strict=True))
    smaller = stream(tmp_path / "s", 4, window=3)  # another order, the same epoch: the same captions
    assert {k: t for step in (0, 1) for k, t in zip(*_rows(smaller, step), strict=True)} == drawn[0]


def _rows(one: ShardStream, step: int) -> tuple[tuple[str, ...], list[str]]:
    batch = one.batch(step)
    return batch.keys, batch.texts


def test_captions_come_from_txt_and_json(tmp_path, tar, pair) -> None:
    members = [
        *pair("a", 0, txt=b""),
        *pair("b", 1, json=json.dumps({"texts": ["more", "caption 1"], "caption": "unused"}).encode()),
        *pair("c", 2, json=b"{ no json"),
    ]
    tar(tmp_path / "0.tar", members)
    assert stream(tmp_path, 3).captions() == ["from json 0", "caption 1", "more", "caption 2"]


def test_captions_leave_out_what_no_batch_shows(tmp_path, tar, pair) -> None:
    """A sample whose json is damaged is skipped while streaming, so that it has no caption to know."""
    broken = pair("1", 1, txt=b"", json=b"{")
    tar(tmp_path / "0.tar", [*pair("0", 0), *broken, *pair("2", 2), *pair("3", 3)])
    one = stream(tmp_path, 2, max_skipped_frac=0.5)
    assert one.captions() == ["caption 0", "caption 2", "caption 3"]
    shown = {text for step in range(4) for text in one.batch(step).texts}
    assert shown <= set(one.captions())


def test_labels_are_given_when_every_row_has_one(tmp_path, tar, pair) -> None:
    tar(tmp_path / "0.tar", [part for i in range(4) for part in pair(f"{i}", i, cls=str(i).encode())])
    got = stream(tmp_path, 4).batch(0)
    assert got.labels is not None
    assert got.labels.tolist() == [int(key) for key in got.keys]


def test_labels_of_a_row_do_not_depend_on_the_rows_beside_it(tmp_path, tar, pair) -> None:
    """Some shards have labels, and two processes see what one sees."""
    tar(tmp_path / "0.tar", [part for i in range(4) for part in pair(f"{i}", i, cls=str(i).encode())])
    tar(tmp_path / "1.tar", [part for i in range(4, 12) for part in pair(f"{i}", i)])
    for step in range(3):
        whole = stream(tmp_path, 4).batch(step)
        labels = [-1] * 4 if whole.labels is None else whole.labels.tolist()
        assert labels == [int(key) if int(key) < 4 else -1 for key in whole.keys]
        parts = [stream(tmp_path, 4, rank=rank, world_size=2).batch(step) for rank in range(2)]
        assert labels == [
            label for part in parts for label in ([-1] * 2 if part.labels is None else part.labels.tolist())
        ]


def test_any_number_of_workers_gives_the_same_batches_from_any_step(shards) -> None:
    folder = shards(20, 17, 11)
    here = stream(folder, 12)
    expected = [here.batch(step) for step in range(9)]
    with stream(folder, 12, num_workers=1) as one, stream(folder, 12, num_workers=3, prefetch_batches=3) as three:
        for step in (0, 1, 2, 3, 7, 8, 2, 3):
            assert_equal(one.batch(step), expected[step])
            assert_equal(three.batch(step), expected[step])
        later = three.batch(4)
        kept = later.pixels.clone()
        three.batch(5), three.batch(6), three.batch(7), three.batch(8)
        assert torch.equal(later.pixels, kept)  # a batch is the caller's, not a slot that is written again
        three.close()
        assert_equal(three.batch(1), expected[1])  # starts again


def test_resuming_in_mid_epoch_goes_on_with_the_next_sample(shards) -> None:
    folder = shards(20, 17, 11)
    never_stopped = stream(folder, 6, seed=9)
    expected = [never_stopped.batch(step) for step in range(13)]
    stopped = stream(folder, 6, seed=9)
    for step in range(5):
        stopped.batch(step)
    state = json.loads(json.dumps(stopped.state_dict()))
    assert state["step"] == 5
    resumed = stream(folder, 6, seed=9)
    resumed.load_state_dict(state)
    for step in range(5, 13):
        assert_equal(resumed.batch(step), expected[step])


def test_another_world_size_and_batch_lose_and_repeat_nothing_in_the_epoch(shards) -> None:
    folder = shards(20, 17, 11)
    before = [stream(folder, 8, lanes=2, rank=rank, world_size=2) for rank in range(2)]
    read = [key for one in before for key in keys(one, 0, 3)]
    state = before[0].state_dict()
    after = [stream(folder, 12, lanes=2, rank=rank, world_size=3) for rank in range(3)]
    for one in after:
        one.load_state_dict(state)
    read += [key for one in after for key in keys(one, 3, 5)]
    assert len(set(read)) == len(read) == 48
    same_batch = stream(folder, 8, lanes=2)
    same_batch.load_state_dict(state)
    assert keys(same_batch, 3, 6) == keys(stream(folder, 8, lanes=2), 3, 6)


def test_a_state_of_other_data_or_another_order_is_refused(shards) -> None:
    folder = shards(20, 17)
    one = stream(folder, 6)
    one.batch(0)
    state = one.state_dict()
    with pytest.raises(ConfigError, match="seed: the run was started with 0, now it is 1"):
        stream(folder, 6, seed=1).load_state_dict(state)
    with pytest.raises(DataError, match="the shards are not those"):
        stream(shards(20, 16, name="others"), 6).load_state_dict(state)
    stream(shards(20, 17, name="moved"), 6).load_state_dict(state)  # the place on disk does not matter
    with pytest.raises(DataError, match="expected version 1"):
        one.load_state_dict({"version": 2})


def test_weighted_sources_are_mixed_in_every_batch(shards) -> None:
    sources = [
        ShardSource(path=str(shards(30, name="a")), weight=3.0),
        ShardSource(path=str(shards(100, name="b", start=1000)), weight=1.0),
    ]
    one = stream(sources, 20)
    read = [int(key) < 1000 for key in keys(one, 0, 60)]
    assert np.mean(read) == pytest.approx(0.75, abs=0.03)
    one.close()
    resumed = stream(sources, 20)
    resumed.load_state_dict(one.state_dict())
    assert keys(resumed, 60, 63) == keys(stream(sources, 20), 60, 63)
    together = stream([ShardSource(path=source.path) for source in sources], 13)
    assert len(set(keys(together, 0, 10))) == 130
    with pytest.raises(ConfigError, match="above 0 for every source or for none"):
        stream([sources[0], ShardSource(path=sources[1].path)], 20)
    with pytest.raises(DataError, match="given 2 times"):
        stream([sources[0], sources[0]], 20)


def test_remote_shards_are_read_through_a_bounded_cache(shards, tmp_path) -> None:
    folder = shards(*[10] * 12)
    files = fsspec.filesystem("memory")
    for path in folder.iterdir():
        files.pipe(f"/stream/{path.name}", path.read_bytes())
    shard_bytes = (folder / "00000.tar").stat().st_size
    limit = shard_bytes * 5.5
    caches = [{"cache_dir": tmp_path / name, "cache_gib": limit / 2**30} for name in ("one", "two")]
    here, there = stream(folder, 8), stream("memory://stream/{00000..00011}.tar", 8, **caches[0])
    with stream("memory://stream", 8, num_workers=2, **caches[1]) as ahead:
        for step in (*range(18), 3):
            expected = here.batch(step)
            assert_equal(there.batch(step), expected)
            assert_equal(ahead.batch(step), expected)
    there.close()
    for name in ("one", "two"):
        assert 0 < sum(path.stat().st_size for path in (tmp_path / name).glob("*.tar")) <= limit + 4 * shard_bytes
    assert not there._cache._held
    assert not ahead._cache._held
    small = stream("memory://stream", 8, cache_dir=tmp_path / "small", cache_gib=shard_bytes * 1.5 / 2**30)
    with pytest.raises(DataError, match="raise cache_gib or lower window"):
        small.batch(0)


def test_stated_counts_spare_the_first_reading(shards) -> None:
    folder = shards(12, 12, 12)
    (folder / "sizes.json").write_text(json.dumps({f"{i:05d}.tar": 12 for i in range(3)}))
    assert keys(stream(folder, 6, counts="stated"), 0, 6) == keys(stream(folder, 6), 0, 6)
    (folder / "sizes.json").write_text(json.dumps({"00000.tar": 12, "00001.tar": 13, "00002.tar": 12}))
    too_many = stream(folder, 37, counts="stated", max_skipped_frac=0.1)
    assert len(too_many.batch(0).keys) == 37
    assert dict(too_many.broken) == {("missing_sample", "00001.tar"): 1}


def test_a_broken_sample_is_counted_and_the_next_one_stands_in(tmp_path, tar, pair) -> None:
    members = [
        pair(
            f"{i:02d}",
            i,
            **({"jpg": b"\xff\xd8\xffno"} if i in (3, 4) else {}),
            **({"txt": b" \n", "json": b""} if i == 7 else {}),
        )
        for i in range(40)
    ]
    tar(tmp_path / "s" / "0.tar", [part for one in members for part in one])
    options = {"max_skipped_frac": 0.1, "seed": 1}
    one = stream(tmp_path / "s", 20, **options)
    planned = one.plan.batch(0).sample.tolist()
    got = one.batch(0)
    bad = {3, 4, 7}
    for row in range(len(planned)):
        shown = next(other for other in (planned * 2)[row:] if other not in bad)
        assert got.keys[row] == f"{shown:02d}"
        assert got.texts[row] == f"caption {shown}"
    one.batch(1)
    assert dict(one.broken) == {("undecodable", "0.tar"): 2, ("empty_caption", "0.tar"): 1}
    assert sorted((item.kind, item.key) for item in one.skipped) == [
        ("empty_caption", "07"),
        ("undecodable", "03"),
        ("undecodable", "04"),
    ]
    parts = [stream(tmp_path / "s", 20, rank=rank, world_size=4, **options) for rank in range(4)]
    for step in (0, 1):
        assert [key for part in parts for key in part.batch(step).keys] == list(one.batch(step).keys)
    with pytest.raises(
        DataError, match=r"of 20 samples read cannot be used, 1\.0% are allowed: .*undecodable in 0\.tar"
    ):
        strict = stream(tmp_path / "s", 20, max_skipped_frac=0.01)
        strict.batch(0), strict.batch(1)


def test_too_many_samples_or_shards_that_are_not_whole_stop_before_the_first_step(tmp_path, tar, pair, shards) -> None:
    members = [part for i in range(10) for part in pair(f"{i}", i, **({"jpg": b""} if i == 3 else {}))]
    tar(tmp_path / "s" / "0.tar", members)
    with pytest.raises(DataError, match=r"1 of 10 samples and 0 of 1 shards cannot be used.*1 missing_image in 0\.tar"):
        stream(tmp_path / "s", 2)
    tolerant = stream(tmp_path / "s", 3, max_skipped_frac=0.2)
    assert tolerant.plan.num_samples == 9
    assert tolerant.skipped[0].key == "3"
    folder = shards(5, 5)
    (folder / "00001.tar").write_bytes(b"")
    with pytest.raises(DataError, match="1 of 2 shards cannot be used.*unreadable_shard"):
        stream(folder, 2)
    assert stream(folder, 2, max_skipped_frac=0.5).plan.num_samples == 5


def test_a_run_of_broken_samples_is_an_error(tmp_path, tar, pair) -> None:
    tar(tmp_path / "0.tar", [part for i in range(12) for part in pair(f"{i}", i, jpg=b"\xff\xd8\xff")])
    with pytest.raises(DataError, match="9 samples in a row cannot be used"):
        stream(tmp_path, 12, max_skipped_frac=1.0).batch(0)
    with (
        stream(tmp_path, 12, max_skipped_frac=1.0, num_workers=1) as one,
        pytest.raises(DataError, match="9 samples in a row cannot be used"),
    ):
        one.batch(0)


def test_the_callers_random_state_is_neither_read_nor_changed(shards) -> None:
    one = stream(shards(8), 4)
    random.seed(1)
    torch.manual_seed(1)
    first = one.batch(0)
    assert random.random() == random.Random(1).random()
    random.seed(2)
    assert_equal(one.batch(0), first)


def test_numbers_that_make_no_sense_are_refused(shards) -> None:
    folder = shards(4)
    for options in ({"num_workers": -1}, {"prefetch_batches": 0}, {"max_skipped_frac": 2.0}, {"counts": "guess"}):
        with pytest.raises(ConfigError):
            stream(folder, 2, **options)
    with pytest.raises(ConfigError, match="expected one or more"):
        stream([], 2)
    assert [path.rpartition("/")[2] for path in list_shards(folder)] == ["00000.tar"]
