import errno
import fcntl
import os
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from eyesmith.data.stream import ShardStream
from eyesmith.data.stream import index as index_module
from eyesmith.data.stream.index import CLS, IMAGE, JSON, TXT, prepare_index, prune_indices, shard_index
from eyesmith.data.tar_source import TarSource
from eyesmith.errors import DataError
from eyesmith.images import PreprocessConfig


def content(path: Path, place: np.ndarray) -> bytes:
    offset, size = place.tolist()
    return path.read_bytes()[offset : offset + size]


def test_an_index_says_where_every_member_lies(tmp_path, tar, pair) -> None:
    members = [*pair("a/b/000", 0, cls=b"3"), *pair("a/b/001", 1, json=b""), *pair("x.y/é2", 2, webp=b"not read")]
    path = tar(tmp_path / "s.tar", members)
    found = shard_index(path)
    assert found.keys == ["a/b/000", "a/b/001", "x.y/é2"]
    assert not found.broken
    stored = dict(members)
    assert content(path, found.places[0, IMAGE]) == stored["a/b/000.jpg"]
    assert content(path, found.places[0, JSON]) == stored["a/b/000.json"]
    assert content(path, found.places[0, CLS]) == b"3"
    assert found.places[1, JSON, 1] == found.places[1, CLS, 1] == -1
    assert content(path, found.places[1, TXT]) == b"caption 1"
    assert content(path, found.places[2, IMAGE]) == b"not read"  # webp before jpg, as everywhere


def test_an_index_is_read_again_until_the_shard_changes(tmp_path, tar, pair, monkeypatch) -> None:
    path = tar(tmp_path / "s.tar", pair("0", 0))
    first = shard_index(path)
    monkeypatch.setattr(index_module, "_read", None)  # calling it would fail
    again = shard_index(path)
    assert again.keys == first.keys
    np.testing.assert_array_equal(again.places, first.places)
    monkeypatch.undo()
    kept = next(tmp_path.joinpath("own").glob("*.npz"), None)
    assert kept is None
    tar(path, [*pair("0", 0), *pair("1", 1)])
    assert shard_index(path, folder=tmp_path / "own").keys == ["0", "1"]
    (kept,) = tmp_path.joinpath("own").glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:50])
    assert shard_index(path, folder=tmp_path / "own").keys == ["0", "1"]


def test_what_is_left_out_is_counted_by_kind(tmp_path, tar, pair) -> None:
    members = [
        *pair("0", 0),
        *pair("1", 1, jpg=b""),
        *pair("2", 2, txt=b"", json=b""),
        *pair("3", 3, txt=b"", json=b""),
        ("0.txt", b"again"),
        (".hidden", b"x"),
        ("4.npy", b"no part of a pair"),
    ]
    found = shard_index(tar(tmp_path / "s.tar", members))
    assert found.keys == ["0"]
    assert found.broken == {"missing_image": 1, "missing_text": 2, "duplicate_key": 1}
    assert found.first["missing_text"][0] == "2"
    assert shard_index(tmp_path / "s.tar").broken == found.broken
    assert shard_index(tmp_path / "s.tar").first == found.first


def test_damaged_shards_give_what_stands_before_the_damage(tmp_path, tar, pair) -> None:
    whole = tar(tmp_path / "whole.tar", [part for i in range(4) for part in pair(f"{i}", i)]).read_bytes()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole[: len(whole) // 2])
    found = shard_index(cut)
    assert 0 < len(found) < 4
    assert found.broken["truncated_tar"] == 1
    for name, data in (("empty.tar", b""), ("text.tar", b"version https://git-lfs" * 100)):
        (tmp_path / name).write_bytes(data)
        assert shard_index(tmp_path / name).broken == {"unreadable_shard": 1}
    assert shard_index(tmp_path / "none.tar").broken == {"unreadable_shard": 1}
    assert len(shard_index(tmp_path / "none.tar")) == 0


def test_a_shard_that_could_not_be_read_is_tried_again(tmp_path, tar, pair, monkeypatch) -> None:
    path = tar(tmp_path / "s.tar", pair("0", 0))

    def fail(path: Path) -> None:
        raise DataError(f"{path}: cannot read this shard: Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(index_module, "index_tar", fail)
        assert shard_index(path).broken == {"unreadable_shard": 1}
    assert shard_index(path).keys == ["0"]


def test_the_digest_is_of_keys_places_texts_and_the_ends_of_images(tmp_path, tar, pair) -> None:
    paths = (tmp_path / f"{number}.tar" for number in count())  # one path again might have the same time and size

    def digest(*samples: list[tuple[str, bytes]]) -> str:
        return shard_index(tar(next(paths), [part for one in samples for part in one])).digest

    image = dict(pair("0", 0))["0.jpg"]
    first = digest(pair("0", 0), pair("1", 1))
    others = [
        digest(pair("0", 0), pair("2", 1)),
        digest(pair("1", 1), pair("0", 0)),
        digest(pair("0", 0, txt=b"caption 7"), pair("1", 1)),
        digest(pair("0", 0, jpg=image[:-1] + b"x"), pair("1", 1)),
    ]
    assert len({first, *others}) == 5
    assert digest(pair("0", 0), pair("1", 1)) == first


def test_an_index_is_made_ahead_once_and_without_locks_where_there_are_none(tmp_path, tar, pair, monkeypatch) -> None:
    path = tar(tmp_path / "s.tar", pair("0", 0))

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    prepare_index(path)
    monkeypatch.setattr(index_module, "_read", None)  # calling it would fail
    prepare_index(path)
    assert shard_index(path).keys == ["0"]
    prepare_index(tmp_path / "none.tar")  # who reads it will say so


def test_what_belongs_to_no_pair_is_counted_as_the_indexed_reader_does(tmp_path, tar, pair) -> None:
    keys = ("Track 2.0 (Clean)", "22.05")
    dotted = [(f"{key}.{extension}", b"x") for key in keys for extension in ("jpg", "txt")]
    other = [("a.heic", b"x"), ("a.caption", b"t"), ("__meta__/info.json", b"{}")]
    path = tar(tmp_path / "s.tar", [*pair("ok", 0), *dotted, *other])
    found = shard_index(path)
    assert (found.keys, found.broken) == (["ok"], {"missing_image": 3})
    assert "first dot" in found.first["missing_image"][1]
    assert sum(one.kind == "missing_member" for one in TarSource([path], name="s").problems) == 3


def test_a_shard_of_nothing_but_dotted_names_says_why(tmp_path, tar) -> None:
    path = tar(tmp_path / "s.tar", [("v1.0.jpg", b"x"), ("v1.0.txt", b"t")])
    transform = PreprocessConfig(image_size=(16, 16))
    with pytest.raises(DataError, match="first dot"):
        ShardStream(str(path), 1, transform=transform, num_workers=0, max_skipped_frac=1.0)


def test_indices_used_longest_ago_are_pruned(tmp_path, tar, pair) -> None:
    folder, paths = (
        tmp_path / "kept",
        [tar(tmp_path / f"{number}.tar", pair(str(number), number)) for number in range(3)],
    )
    for path in paths:
        shard_index(path, folder=folder)
    kept = sorted(folder.glob("*.npz"))
    for age, file in enumerate(kept):
        os.utime(file, (0, 1000 + age))
    prune_indices(folder, limit_bytes=2 * kept[0].stat().st_size + 100)
    assert sorted(folder.glob("*.npz")) == kept[1:]
    for path in paths:
        shard_index(path, folder=folder)  # used, or made again: young
    prune_indices(folder, limit_bytes=0)
    assert len(list(folder.glob("*.npz"))) == 3
