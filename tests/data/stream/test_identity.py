import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from eyesmith.data.stream import ShardSource, ShardStream, differences
from eyesmith.data.stream.identity import ShardFacts, SourceFacts, described, fingerprint, sample_mark
from eyesmith.errors import DataError
from eyesmith.images import TrainTransformConfig


def stream(path: Path | list[ShardSource], **options) -> ShardStream:
    defaults = {"transform": TrainTransformConfig(image_size=(8, 8)), "num_workers": 0, "window": 16}
    return ShardStream(path, 4, **{**defaults, **options})


@pytest.mark.parametrize("counts", ["index", "stated"])
def test_another_shard_of_the_same_name_and_count_is_other_data(shards, tmp_path, tar, pair, counts) -> None:
    folder = shards(6, 6, 6)
    (folder / "sizes.json").write_text(json.dumps({f"{number:05d}.tar": 6 for number in range(3)}))
    one = stream(folder, counts=counts)
    before, state = one.describe(), one.state_dict()
    path = folder / "00001.tar"
    facts = path.stat()
    samples = [pair(f"{number:09d}", number, txt=b"another" if number == 8 else b"") for number in range(6, 12)]
    tar(path, [part for one in samples for part in one])
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    now = stream(folder, counts=counts)
    assert now.fingerprint() != one.fingerprint()
    (said,) = differences(before, now.describe())
    assert "1 shard with other content, the first is 00001.tar (6 samples in" in said
    with pytest.raises(DataError, match="but other content"):
        now.load_state_dict(state)


@pytest.mark.parametrize("counts", ["index", "stated"])
def test_one_letter_of_one_caption_or_one_byte_of_one_image_is_other_data(shards, counts) -> None:
    folder = shards(6, 6)
    (folder / "sizes.json").write_text(json.dumps({"00000.tar": 6, "00001.tar": 6}))
    path = folder / "00001.tar"
    content, facts = path.read_bytes(), path.stat()
    first = stream(folder, counts=counts).fingerprint()
    for old in (b"caption 8", b"\xff\xd9"):  # the end of a JPEG
        at = content.index(old)
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # as if nothing had happened
        assert stream(folder, counts=counts).fingerprint() != first
    path.write_bytes(content)
    assert stream(folder, counts=counts).fingerprint() == first


def test_a_folder_that_moved_or_was_touched_is_the_same_data(shards, tmp_path) -> None:
    folder = shards(6, 7)
    one = stream(folder)
    before, state = one.describe(), json.loads(json.dumps(one.state_dict()))
    shutil.copytree(folder, tmp_path / "elsewhere")
    os.utime(tmp_path / "elsewhere" / "00000.tar", (1, 1))
    moved = stream(tmp_path / "elsewhere")
    assert moved.fingerprint() == one.fingerprint()
    assert differences(json.loads(json.dumps(before)), json.loads(json.dumps(moved.describe()))) == []
    moved.load_state_dict(state)


def test_added_and_missing_shards_and_another_order_are_said(shards, tmp_path) -> None:
    folder = shards(6, 7, 8)
    one = stream(folder)
    before, first = one.describe(), one.fingerprint()
    shutil.copy(folder / "00002.tar", folder / "00003.tar")
    more = stream(folder)
    assert more.fingerprint() != first
    assert differences(before, more.describe()) == [f"{folder}: 1 shard added, the first is 00003.tar"]
    assert differences(more.describe(), before) == [f"{folder}: 1 shard gone, the first is 00003.tar"]
    (folder / "00003.tar").unlink()
    other = stream(folder, window=9, lanes=2)
    assert other.fingerprint() != first
    assert differences(before, other.describe()) == ["lanes: 1 before, now 2", "window: 16 before, now 9"]
    assert stream(folder, seed=5).fingerprint() == first
    assert differences(before, stream(folder, seed=5).describe()) == ["seed: 0 before, now 5"]
    turned = stream([ShardSource(path=str(folder / "{00001,00000,00002}.tar"))])
    assert turned.fingerprint() != first
    assert differences(before, turned.describe()) == [
        f"{folder / '{00001,00000,00002}.tar'}: the shards come in another order"
    ]
    parts = [ShardSource(path=str(folder / name), weight=2.0) for name in ("00000.tar", "00001.tar")]
    assert "sources: 1 before, now 2" in differences(before, stream(parts).describe())
    heavier = [parts[0], ShardSource(path=parts[1].path, weight=3.0)]
    assert differences(stream(parts).describe(), stream(heavier).describe())[1:] == [
        f"{parts[1].path}: its weight was 2, now 3"
    ]


def test_marks_of_two_kinds_are_not_compared() -> None:
    def one(num_bytes: int, mark: str) -> dict:
        source = SourceFacts(path="s", weight=0.0, shards=[ShardFacts("0.tar", 5, num_bytes, mark)])
        return described([source], {"lanes": 1})

    assert differences(one(10, "etag:a"), one(10, "members:b")) == []
    assert differences(one(10, "etag:a"), one(-1, "")) == []
    assert len(differences(one(10, "etag:a"), one(11, "members:b"))) == 1
    assert len(differences(one(10, "etag:a"), one(10, "etag:b"))) == 1
    assert fingerprint(one(10, "etag:a")) != fingerprint(one(10, "etag:b"))


def test_a_large_shard_is_looked_into_at_both_ends_and_between(tmp_path) -> None:
    path = tmp_path / "x.tar"
    content = bytearray(3 << 20)
    path.write_bytes(content)
    marks = {sample_mark(str(path), len(content))}
    for at in (0, 65_535, len(content) - 65_536, len(content) - 1, len(content) // 2):
        other = content.copy()
        other[at] = 1
        path.write_bytes(other)
        marks.add(sample_mark(str(path), len(content)))
    assert len(marks) >= 5  # the middle may lie between two of the places
    assert len({mark.partition(":")[0] for mark in marks}) == 1


def test_a_state_from_before_content_was_noted_goes_on(shards) -> None:
    folder = shards(6, 7)
    one = stream(folder)
    one.batch(0)
    state = one.state_dict()
    names = [["00000.tar", "00001.tar"], [[6, 7]]]
    assert state["shards"] == hashlib.sha256(json.dumps(names).encode()).hexdigest()  # as it has always been
    del state["content"]
    resumed = stream(folder)
    resumed.load_state_dict(state)
    assert resumed.batch(1).keys == one.batch(1).keys
