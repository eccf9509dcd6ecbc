import io
import json
import tarfile
from pathlib import Path

import pytest

from eyesmith.data.shards import (
    DATASET_FILE,
    UNFINISHED_FILE,
    ShardWriter,
    begin_dataset,
    finish_dataset,
    read_dataset,
    split_facts,
)
from eyesmith.errors import ConfigError, DataError

IDENTITY = {"name": "toy", "maker": "toy", "maker_version": 1, "parameters": {"seed": 0}}


def make(folder: Path, num_samples: int = 5) -> dict:
    with ShardWriter(folder / "train", shard_samples=2) as writer:
        for index in range(num_samples):
            writer.write(f"s{index}", {"png": b"pixels" * index, "txt": "caf\u00e9".encode(), "cls": b"0"})
    return {
        **IDENTITY,
        "classes": ["cat", "dog"],
        "templates": ["{}", "a {}"],
        "splits": {"train": split_facts(writer, ["cat", "dog"])},
        "sources": [],
    }


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_layout_and_content(tmp_path):
    assert begin_dataset(tmp_path / "d", IDENTITY) is None
    assert set(everything(tmp_path / "d")) == {UNFINISHED_FILE}
    dataset = finish_dataset(tmp_path / "d", make(tmp_path / "d"))
    files = everything(tmp_path / "d")
    assert set(files) == {
        "train/0.tar",
        "train/1.tar",
        "train/2.tar",
        "train/nshards.txt",
        "classnames.txt",
        "zeroshot_classification_templates.txt",
        "dataset.json",
    }
    assert files["train/nshards.txt"] == b"3\n"
    assert files["classnames.txt"] == b"cat\ndog\n"
    assert files["zeroshot_classification_templates.txt"] == b"{c}\na {c}\n"
    assert json.loads(files["dataset.json"]) == dataset == read_dataset(tmp_path / "d")
    assert dataset["splits"]["train"]["samples"] == 5
    assert dataset["splits"]["train"]["shards"] == 3
    with tarfile.open(fileobj=io.BytesIO(files["train/1.tar"])) as tar:
        assert tar.getnames() == ["s2.png", "s2.txt", "s2.cls", "s3.png", "s3.txt", "s3.cls"]
        assert tar.extractfile("s3.png").read() == b"pixels" * 3
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar} == {(0, 0, 0, "", "", 0o644)}


def test_same_content_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        begin_dataset(tmp_path / name, IDENTITY)
        finish_dataset(tmp_path / name, make(tmp_path / name))
    assert everything(tmp_path / "one") == everything(tmp_path / "two")


def test_exception_leaves_whole_shards_and_no_count(tmp_path):
    def stopped():
        with ShardWriter(tmp_path, shard_samples=2) as writer:
            for index in range(3):
                writer.write(f"s{index}", {"txt": b"x"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [path.name for path in tmp_path.iterdir()] == ["0.tar"]
    with tarfile.open(tmp_path / "0.tar") as tar:
        assert tar.getnames() == ["s0.txt", "s1.txt"]


def test_a_stopped_make_is_made_again_and_leaves_nothing_stale(tmp_path):
    clean, stopped = tmp_path / "clean", tmp_path / "stopped"
    begin_dataset(clean, IDENTITY)
    finish_dataset(clean, make(clean))
    begin_dataset(stopped, IDENTITY)
    make(stopped, num_samples=9)  # longer, killed before dataset.json
    (stopped / "train" / ".4.tar.123-abc.part").write_bytes(b"half")
    with pytest.raises(DataError, match="stopped half-way"):
        read_dataset(stopped)
    assert begin_dataset(stopped, IDENTITY) is None
    finish_dataset(stopped, make(stopped))
    assert everything(stopped) == everything(clean)


def test_a_stopped_make_gives_way_to_another_data_set(tmp_path):
    begin_dataset(tmp_path, IDENTITY | {"name": "first"})
    make(tmp_path)
    (tmp_path / "train").rename(tmp_path / "unseen")
    begin_dataset(tmp_path, IDENTITY)
    finish_dataset(tmp_path, make(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["train"]


def test_made_before_is_recognised(tmp_path):
    begin_dataset(tmp_path, IDENTITY)
    dataset = finish_dataset(tmp_path, make(tmp_path))
    before = everything(tmp_path)
    assert begin_dataset(tmp_path, IDENTITY) == dataset
    assert everything(tmp_path) == before


@pytest.mark.parametrize("change", [{"parameters": {"seed": 1}}, {"name": "other"}, {"maker_version": 2}])
def test_another_data_set_is_refused(tmp_path, change):
    begin_dataset(tmp_path, IDENTITY)
    finish_dataset(tmp_path, make(tmp_path))
    before = everything(tmp_path)
    with pytest.raises(DataError, match="another data set lies here"):
        begin_dataset(tmp_path, IDENTITY | change)
    assert everything(tmp_path) == before


def test_damaged_or_missing_shard_is_named(tmp_path):
    begin_dataset(tmp_path, IDENTITY)
    finish_dataset(tmp_path, make(tmp_path))
    path = tmp_path / "train" / "1.tar"
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"1\.tar: this shard is damaged"):
        begin_dataset(tmp_path, IDENTITY)
    path.unlink()
    with pytest.raises(DataError, match=r"1\.tar: this shard is missing"):
        begin_dataset(tmp_path, IDENTITY)


def test_foreign_folder_and_file_are_refused_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("do not lose me")
    with pytest.raises(DataError, match=r"expected an empty folder, found thesis\.tex"):
        begin_dataset(tmp_path, IDENTITY)
    assert set(everything(tmp_path)) == {"thesis.tex"}
    with pytest.raises(DataError, match="expected a folder"):
        begin_dataset(tmp_path / "thesis.tex", IDENTITY)


@pytest.mark.parametrize("content", ["", "[1]", '{"splits": 3}', "{"])
def test_unreadable_description(tmp_path, content):
    (tmp_path / DATASET_FILE).write_text(content)
    with pytest.raises(DataError, match=r"dataset\.json"):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match=r"dataset\.json"):
        begin_dataset(tmp_path, IDENTITY)


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "..", "a\\b", "a\0b"])
def test_key_that_cannot_be_a_member_name(tmp_path, key):
    with pytest.raises(DataError, match="sample key"), ShardWriter(tmp_path) as writer:
        writer.write(key, {"txt": b""})


def test_key_twice_and_bad_size(tmp_path):
    writer = ShardWriter(tmp_path, shard_samples=1)
    writer.write("a", {"txt": b""})
    with pytest.raises(DataError, match="twice"):
        writer.write("a", {"txt": b""})
    with pytest.raises(ConfigError, match="shard_samples"):
        ShardWriter(tmp_path, shard_samples=0)


def test_full_disk_leaves_no_half_shard(tmp_path, monkeypatch):
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("eyesmith.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"), ShardWriter(tmp_path, shard_samples=1) as writer:
        writer.write("a", {"txt": b"x"})
    assert list(tmp_path.iterdir()) == []
