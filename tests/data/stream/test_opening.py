import json
import pickle
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from eyesmith.data.stream import ShardSource, ShardStream, index, opening, places
from eyesmith.data.stream.fetch import ShardCache
from eyesmith.data.stream.opening import OpenedShards, open_shards
from eyesmith.errors import DataError
from eyesmith.images import TrainTransformConfig


class Together:
    """An exchange between threads that stand for processes; what is exchanged is pickled, as between processes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size)
        self._values: list[bytes] = [b""] * size

    def at(self, rank: int) -> "OneOf":
        return OneOf(self, rank)

    def gather(self, rank: int, value: Any) -> list[Any]:
        self._values[rank] = pickle.dumps(value)
        self._barrier.wait(60)
        found = [pickle.loads(one) for one in self._values]
        self._barrier.wait(60)
        return found


class OneOf:
    def __init__(self, together: Together, rank: int) -> None:
        self._together, self._rank = together, rank

    def gather(self, value: Any) -> list[Any]:
        return self._together.gather(self._rank, value)

    def once(self, action: Callable[[], Any]) -> Any:
        outcome: tuple[Any, Exception | None] = (None, None)
        if self._rank == 0:
            try:
                outcome = (action(), None)
            except Exception as error:
                outcome = (None, error)
        value, error = self._together.gather(self._rank, outcome)[0]
        if error is not None:
            raise error
        return value


def open_together(size: int, tmp_path: Path, path: str, **options: Any) -> list[OpenedShards | Exception]:
    """What each of `size` processes gets."""
    together = Together(size)
    found: list[Any] = [None] * size

    def run(rank: int) -> None:
        cache = ShardCache(tmp_path / "cache-of-shards", limit_bytes=1 << 30)
        try:
            found[rank] = opened(path, cache, exchange=together.at(rank), rank=rank, world_size=size, **options)
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def opened(path: str, cache: ShardCache, **options: Any) -> OpenedShards:
    defaults: dict[str, Any] = {
        "counts": "index",
        "max_skipped_frac": 0.5,
        "exchange": None,
        "rank": 0,
        "world_size": 1,
        "on_progress": None,
    }
    return open_shards([ShardSource(path=path)], cache, **{**defaults, **options})


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> "Counter[str]":
    """How often the headers of each shard, and each small file beside shards, were read."""
    found: Counter[str] = Counter()
    read, read_json, listed = index._read, places._read_json, opening.list_shards

    def counted_read(path: Path) -> Any:
        found[path.name] += 1
        return read(path)

    def counted_json(paths: list[str]) -> Any:
        found.update(path.rpartition("/")[2] for path in paths)
        return read_json(paths)

    def counted_list(path: str) -> Any:
        found["list"] += 1
        return listed(path)

    monkeypatch.setattr(index, "_read", counted_read)
    monkeypatch.setattr(places, "_read_json", counted_json)
    monkeypatch.setattr(opening, "list_shards", counted_list)
    return found


def test_headers_are_read_once_by_all_processes_together(shards, tmp_path, tar, pair, reads) -> None:
    folder = shards(3, 4, 5, 6, 7)
    tar(folder / "00005.tar", [*pair("x", 0), *pair("y", 1, jpg=b"")])
    alone = opened(str(folder), ShardCache(tmp_path / "none", limit_bytes=0))
    for kept in (tmp_path / "cache").rglob("*.npz"):
        kept.unlink()
    reads.clear()
    together = open_together(4, tmp_path, str(folder))
    assert together == [alone] * 4
    assert alone.groups == [[3, 4, 5, 6, 7, 1]]
    assert dict(alone.broken) == {("missing_image", "00005.tar"): 1}
    assert [finding.key for finding in alone.skipped] == ["y"]
    assert reads == {"list": 1, **{f"{number:05d}.tar": 1 for number in range(6)}}


def test_stated_counts_are_read_once_by_512_processes(shards, tmp_path, reads, monkeypatch) -> None:
    folder = shards(*[2] * 8)
    (folder / "sizes.json").write_text(json.dumps({f"{number:05d}.tar": 2 for number in range(8)}))
    looked: list[str] = []
    sample_mark = opening.sample_mark

    def counted(path: str, num_bytes: int) -> str:
        looked.append(path)
        return sample_mark(path, num_bytes)

    monkeypatch.setattr(opening, "sample_mark", counted)
    together = open_together(512, tmp_path, str(folder), counts="stated")
    assert all(one == together[0] for one in together)
    assert isinstance(together[0], OpenedShards)
    assert together[0].groups == [[2] * 8]
    assert reads == {"list": 1, "sizes.json": 1}
    assert len(set(looked)) == len(looked) == 8


def test_an_error_in_one_process_is_one_in_all(shards, tmp_path, monkeypatch) -> None:
    folder = shards(2, 2, 2)
    shard_index = opening.shard_index

    def fail(path: str) -> Any:
        if path.endswith("00001.tar"):
            raise DataError("00001.tar: gone")
        return shard_index(path)

    monkeypatch.setattr(opening, "shard_index", fail)
    found = open_together(3, tmp_path, str(folder))
    assert [str(one) for one in found] == ["00001.tar: gone"] * 3
    found = open_together(3, tmp_path, str(folder / "none-*.tar"))
    assert all(isinstance(one, DataError) for one in found)


class Bucket:
    """A file system that holds `names` and counts what it is asked."""

    protocol = "bucket"

    def __init__(self, names: list[str], counts: dict[str, int]) -> None:
        self.names, self.counts = names, counts
        self.asked: Counter[str] = Counter()

    def ls(self, path: str, detail: bool) -> list[dict[str, Any]]:
        self.asked["ls"] += 1
        return [{"name": f"{path}/{name}", "size": 10_000_000, "ETag": f'"{name}"'} for name in self.names]

    def cat(self, paths: list[str], on_error: str) -> dict[str, Any]:
        self.asked["cat"] += 1
        content = json.dumps(self.counts).encode()
        return {path: content if path.endswith("sizes.json") else FileNotFoundError(path) for path in paths}

    def _strip_protocol(self, path: str) -> str:
        return path.removeprefix("bucket://")


def test_more_than_a_hundred_thousand_shards_open_without_a_question_about_any(tmp_path, monkeypatch) -> None:
    count = 120_000
    names = [f"{number:06d}.tar" for number in range(count)]
    bucket = Bucket(names, dict.fromkeys(names, 10_000))
    monkeypatch.setattr(places, "file_system", lambda address: (bucket, bucket._strip_protocol(address)))
    monkeypatch.setattr(Path, "stat", None)  # nothing of a shard is looked up on this machine either
    tracemalloc.start()
    one = ShardStream(
        f"bucket://pairs/{{000000..{count - 1}}}.tar",
        90_112,
        transform=TrainTransformConfig(image_size=(8, 8)),
        counts="stated",
        num_workers=0,
        lanes=64,
        cache_dir=tmp_path,
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert one.plan.num_samples == count * 10_000
    assert dict(bucket.asked) == {"ls": 1, "cat": 1}
    assert peak < 150e6  # about 1 kB a shard, half of it the server's listing
    assert one._cache.size("bucket://pairs/000007.tar") == 10_000_000
    assert one.sources[0].shards[7].mark == 'etag:"000007.tar"'
    bucket.names = names[:-2]
    with pytest.raises(DataError, match=r"2 shards do not exist, the first is bucket://pairs/119998\.tar"):
        opened(f"bucket://pairs/{{000000..{count - 1}}}.tar", one._cache, counts="stated")


def test_remote_shards_without_a_checksum_are_looked_into(shards, tmp_path) -> None:
    folder = shards(5, 6)
    (folder / "sizes.json").write_text(json.dumps({"00000.tar": 5, "00001.tar": 6}))
    files = fsspec.filesystem("memory")
    for path in folder.iterdir():
        files.pipe(f"/opening/{path.name}", path.read_bytes())
    cache = ShardCache(tmp_path / "shards", limit_bytes=1 << 30)
    for counts in ("stated", "index"):
        here, there = (opened(path, cache, counts=counts) for path in (str(folder), "memory://opening"))
        assert here.sources[0].shards == there.sources[0].shards
        assert {one.mark.partition(":")[0] for one in here.sources[0].shards} == {
            "sample" if counts == "stated" else "members"
        }
    assert there.sizes == {shard: (folder / shard.rpartition("/")[2]).stat().st_size for shard in there.shards}
