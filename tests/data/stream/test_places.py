import json

import fsspec
import pytest

from eyesmith.data.stream.places import ShardSource, list_shards, stated_counts
from eyesmith.errors import ConfigError, DataError, MissingDependencyError


def names(paths: list[str]) -> list[str]:
    return [path.rpartition("/")[2] for path in paths]


def test_folders_patterns_and_files_become_shards_in_order(shards) -> None:
    folder = shards(*[1] * 11)
    (folder / "00000_stats.json").write_text("{}")
    all_names = [f"{i:05d}.tar" for i in range(11)]
    assert names(list_shards(folder)) == all_names
    assert names(list_shards(str(folder / "{00002..00004}.tar"))) == all_names[2:5]
    assert names(list_shards(str(folder / "*.tar"))) == all_names
    assert list_shards(folder / "00003.tar") == [str(folder / "00003.tar")]
    assert list_shards(f"file://{folder}/00003.tar") == [str(folder / "00003.tar")]


def test_addresses_are_listed_by_their_file_system() -> None:
    files = fsspec.filesystem("memory")
    for number in (0, 2, 10):
        files.pipe(f"/places/x-{number}.tar", b"x")
    files.pipe("/places/notes.txt", b"x")
    listed = ["memory:///places/x-0.tar", "memory:///places/x-2.tar", "memory:///places/x-10.tar"]
    for address in ("memory://places", "memory://places/", "memory://places/x-*.tar"):
        assert [name.replace("memory:///", "memory://") for name in list_shards(address)] == [
            name.replace("memory:///", "memory://") for name in listed
        ]
    assert list_shards("s3://bucket/{000..002}.tar") == [f"s3://bucket/{i:03d}.tar" for i in range(3)]
    with pytest.raises(DataError, match="no shard matches"):
        list_shards("memory://places/y*.tar")


def test_what_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(DataError, match=r"expected a folder of shards \(\*.tar\), found none"):
        list_shards(tmp_path)
    with pytest.raises(DataError, match=r"none\.tar"):
        list_shards(tmp_path / "none.tar")
    with pytest.raises(DataError, match="commands are not run"):
        list_shards("pipe:aws s3 cp s3://x/y.tar -")
    with pytest.raises(DataError, match="nosuch"):
        list_shards("nosuch://bucket/*.tar")
    with pytest.raises(ConfigError, match="weight of"):
        ShardSource(path="x", weight=-1.0)


def test_an_address_whose_package_is_missing_says_which(monkeypatch) -> None:
    def fail(address: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    with pytest.raises(MissingDependencyError, match="Install s3fs"):
        list_shards("s3://bucket/*.tar")


def test_counts_come_from_the_files_beside_the_shards(shards) -> None:
    folder = shards(3, 4)
    paths = list_shards(folder)
    with pytest.raises(DataError, match=r"00000\.tar: no number of samples beside it.*data\.epoch_samples=0"):
        stated_counts(paths)
    for path, count in zip(paths, (3, 4), strict=True):
        with open(path.replace(".tar", "_stats.json"), "w") as stream:
            json.dump({"count": 9, "successes": count}, stream)
    assert stated_counts(paths) == [3, 4]
    (folder / "sizes.json").write_text(json.dumps({"00000.tar": 30, "00001.tar": 40}))
    assert stated_counts(paths) == [30, 40]
    (folder / "sizes.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        stated_counts(paths)
