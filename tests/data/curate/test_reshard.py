import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eyesmith.data.curate import write_subset
from eyesmith.data.curate.reshard import ReshardConfig, reshard
from eyesmith.data.curate.uids import parse_uids
from eyesmith.data.stream.places import list_shards, stated_counts
from eyesmith.errors import ConfigError, DataError


def read_samples(folder: Path) -> dict[str, dict[str, bytes]]:
    samples: dict[str, dict[str, bytes]] = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                stream = tar.extractfile(member)
                assert stream is not None
                samples.setdefault(f"{shard.name}/{key}", {})[extension] = stream.read()
    return samples


@pytest.fixture(scope="module")
def subset(pool: Any) -> tuple[Path, Counter[str]]:
    rng = np.random.default_rng(0)
    chosen = [row["uid"] for row in pool.rows for _ in range(int(rng.choice([0, 0, 1, 2, 3])))]
    write_subset(pool.folder / "subset.npy", parse_uids(chosen))
    return pool.folder / "subset.npy", Counter(chosen)


def test_copies_keys_and_counts_equal_a_loop(pool: Any, subset: tuple[Path, Counter[str]], tmp_path: Path) -> None:
    file, wanted = subset
    report = reshard(pool.shards, file, tmp_path / "out", config=ReshardConfig(shard_samples=100))
    expected = {}
    for place, members in read_samples(pool.shards).items():
        uid = json.loads(members["json"])["uid"]
        assert "/" in place
        for copy in range(wanted[uid]):
            expected[f"{uid}-{copy}"] = members
    found = {place.split("/")[1]: members for place, members in read_samples(tmp_path / "out").items()}
    assert list(found) == list(expected)  # in the order of the input
    assert found == expected
    shards = list_shards(tmp_path / "out")
    assert [Path(shard).name for shard in shards] == [f"{number:08d}.tar" for number in range(len(shards))]
    assert stated_counts(shards) == [100] * (len(expected) // 100) + [len(expected) % 100]
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert (meta["output_shard_count"], meta["output_shard_format"]) == (len(shards), "{:08d}.tar")
    assert np.load(tmp_path / "out" / "sample_ids.npy").tolist() == np.load(file).tolist()
    assert report.samples_out == len(expected)
    assert report.subset_missing == sum(wanted.values()) - len(expected) > 0
    assert not (tmp_path / "out" / "reshard.json").exists()


def test_shards_stay_below_their_size(pool: Any, subset: tuple[Path, Counter[str]], tmp_path: Path) -> None:
    reshard(pool.shards, subset[0], tmp_path / "out", config=ReshardConfig(shard_bytes=60_000))
    sizes = [file.stat().st_size for file in sorted((tmp_path / "out").glob("*.tar"))]
    assert len(sizes) > 5
    # tarfile fills its file up to a multiple of 10,240 bytes
    assert all(30_000 < size <= 60_000 + 10_240 for size in sizes[:-1])


def test_a_shuffle_changes_the_order_only(pool: Any, subset: tuple[Path, Counter[str]], tmp_path: Path) -> None:
    for name, window in (("a", 0), ("b", 64), ("c", 64)):
        config = ReshardConfig(shard_samples=100, shuffle_window=window, seed=1)
        reshard(pool.shards, subset[0], tmp_path / name, config=config)
    plain, mixed, again = (read_samples(tmp_path / name) for name in "abc")
    assert list(mixed) == list(again) != list(plain)
    assert {p.split("/")[1]: m for p, m in mixed.items()} == {p.split("/")[1]: m for p, m in plain.items()}


def test_bad_samples_and_shards_are_counted(pool: Any, subset: tuple[Path, Counter[str]], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shards = sorted(pool.shards.glob("*.tar"))
    content = shards[0].read_bytes()
    (folder / "0.tar").write_bytes(content[: len(content) // 2])
    (folder / "1.tar").write_bytes(b"no tar at all" * 100)
    with tarfile.open(folder / "2.tar", "w") as tar:
        for name in ("a.jpg", "a.json", "b.json", "c.jpg"):
            (tmp_path / "one").write_bytes(b"{}")
            tar.add(tmp_path / "one", name)
    (folder / "3.tar").write_bytes(shards[1].read_bytes())
    report = reshard(folder, subset[0], tmp_path / "out")
    assert report.broken["damaged_shard"] == 1
    assert report.broken["unreadable_shard"] == 1
    assert report.broken["missing_uid"] == 2
    assert report.broken["missing_image"] >= 1
    assert report.samples_out > 0


def test_a_stopped_run_goes_on_and_other_folders_are_refused(
    pool: Any, subset: tuple[Path, Counter[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, config = tmp_path / "out", ReshardConfig(shard_samples=100)
    import eyesmith.data.curate.reshard as module

    write = module._write
    monkeypatch.setattr(module, "_write", lambda shard: write(shard) if shard.number < 2 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reshard(pool.shards, subset[0], out, config=config)
    assert not (out / "meta.json").exists()
    times = [(out / f"{number:08d}.tar").stat().st_mtime_ns for number in range(2)]
    monkeypatch.setattr(module, "_write", write)
    with pytest.raises(ConfigError, match="the same resharding"):
        reshard(pool.shards, subset[0], out)
    reshard(pool.shards, subset[0], out, config=config)
    assert [(out / f"{number:08d}.tar").stat().st_mtime_ns for number in range(2)] == times
    reshard(pool.shards, subset[0], tmp_path / "whole", config=config)
    assert read_samples(out) == read_samples(tmp_path / "whole")
    with pytest.raises(ConfigError, match="expected an empty folder"):
        reshard(pool.shards, subset[0], out, config=config)


def test_a_sample_that_was_fetched_twice_is_written_once(pool: Any, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shards = sorted(pool.shards.glob("*.tar"))
    for name, shard in (("0", shards[0]), ("1", shards[0]), ("2", shards[1])):
        (folder / f"{name}.tar").write_bytes(shard.read_bytes())
    with tarfile.open(folder / "3.tar", "w") as tar:
        for name in ("a.jpg", "a.json", "a.jpg"):
            (tmp_path / "one").write_bytes(json.dumps({"uid": "f" * 32}).encode())
            tar.add(tmp_path / "one", name)
    uids = [json.loads(members["json"])["uid"] for members in read_samples(folder).values()]
    write_subset(tmp_path / "subset.npy", parse_uids([*dict.fromkeys(uids), uids[0]]))
    report = reshard(folder, tmp_path / "subset.npy", tmp_path / "out")
    names = [place.split("/")[1] for place in read_samples(tmp_path / "out")]
    assert names == [f"{uids[0]}-0", f"{uids[0]}-1", *(f"{uid}-0" for uid in dict.fromkeys(uids[1:]) if uid != uids[0])]
    assert report.broken == {"repeated_uid": len(uids) - len(set(uids)), "repeated_member": 1}
    assert (report.samples_out, report.subset_missing) == (len(set(uids)) + 1, 0)


def test_a_shard_that_changes_meanwhile_is_named(
    pool: Any, subset: tuple[Path, Counter[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import eyesmith.data.curate.reshard as module

    shards = sorted(pool.shards.glob("*.tar"))
    (tmp_path / "0.tar").write_bytes(shards[0].read_bytes())
    write = module._write
    monkeypatch.setattr(module, "_write", lambda shard: ((tmp_path / "0.tar").write_bytes(other), write(shard)))
    for other in (shards[1].read_bytes(), shards[0].read_bytes()[:20_480]):
        with pytest.raises(DataError, match=r"0\.tar: sample \d+ is not .* any more"):
            reshard(tmp_path / "0.tar", subset[0], tmp_path / f"out-{len(other)}")
        (tmp_path / "0.tar").write_bytes(shards[0].read_bytes())


def test_a_dry_run_writes_nothing_and_a_foreign_subset_is_refused(
    pool: Any, subset: tuple[Path, Counter[str]], tmp_path: Path
) -> None:
    report = reshard(pool.shards, subset[0], tmp_path / "out", config=ReshardConfig(dry_run=True))
    assert report.samples_out > 0
    assert not (tmp_path / "out").exists()
    write_subset(tmp_path / "other.npy", parse_uids(["f" * 32]))
    with pytest.raises(DataError, match="subset of another pool"):
        reshard(pool.shards, tmp_path / "other.npy", tmp_path / "out")


@pytest.mark.slow
def test_two_workers_write_the_same_bytes(pool: Any, subset: tuple[Path, Counter[str]], tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        reshard(pool.shards, subset[0], tmp_path / name, config=ReshardConfig(shard_samples=100), workers=workers)
    names = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert names == sorted(file.name for file in (tmp_path / "two").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
