import json
from pathlib import Path

import pytest

from eyesmith.data.sources import Source, expand_pattern, open_source, read_templates, split_names
from eyesmith.errors import DataError


def test_made_data_set(made):
    source = open_source(made, split="train")
    assert isinstance(source, Source)
    assert source.name == "made/train"
    assert list(source.keys) == [f"train-{number}" for number in range(6)]
    assert source.classes == ("fox", "", "hound")  # an empty line is a class
    assert source.labels == [0, 1, 2, 0, 1, 2]
    assert source.problems == []
    assert split_names(made) == ["train", "unseen_drawing"]
    assert read_templates(made) == ("a photo of a {c}.",)


def test_split_must_be_named_and_exist(made):
    with pytest.raises(DataError, match="several splits, name one of: train, unseen_drawing"):
        open_source(made)
    with pytest.raises(DataError, match=r"no split 'trian'.*did you mean 'train'"):
        open_source(made, split="trian")
    with pytest.raises(DataError, match="has no splits"):
        open_source(made / "train" / "0.tar", split="train")
    with pytest.raises(DataError, match="has no splits"):
        open_source(made / "train", split="train")


def test_hub_mirror_without_description(made):
    (made / "dataset.json").unlink()
    assert split_names(made) == ["train", "unseen_drawing"]
    assert open_source(made, split="unseen_drawing").classes == ("fox", "", "hound")


def test_split_folder_pattern_and_single_tar_are_the_same_samples(made):
    whole = open_source(made, split="train")
    for path in (made / "train", f"{made}/train/{{0..1}}.tar", f"{made}/train/*.tar", f"{made}/train/{{0,1}}.tar"):
        source = open_source(path)
        assert source.fingerprint() == whole.fingerprint()
    assert list(open_source(made / "train" / "1.tar").keys) == ["train-3", "train-4", "train-5"]


def test_missing_shard_is_a_problem(made):
    (made / "train" / "1.tar").unlink()
    source = open_source(made, split="train")
    assert len(source) == 3
    assert [problem.kind for problem in source.problems] == ["missing_shard"]


def test_shards_come_in_the_order_of_their_numbers(tmp_path, write_tar, members):
    for shard in (10, 2, 1):
        write_tar(tmp_path / f"{shard}.tar", members(shard))
    assert list(open_source(tmp_path).keys) == ["train-1", "train-2", "train-10"]


def test_half_made_data_set_is_refused(made):
    (made / "dataset.json").rename(made / "unfinished.json")
    for place in (made, made / "train"):
        with pytest.raises(DataError, match="stopped half-way"):
            open_source(place)


def test_damaged_description(made):
    (made / "dataset.json").write_text('{"splits": ')
    with pytest.raises(DataError, match=r"dataset\.json: cannot be read as JSON"):
        open_source(made, split="train")
    (made / "dataset.json").write_text("[]")
    with pytest.raises(DataError, match="expected an object, got list"):
        open_source(made, split="train")


def test_described_split_without_folder_or_tars(made):
    facts = json.loads((made / "dataset.json").read_text())
    facts["splits"]["lost"] = {}
    (made / "dataset.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="folder is missing"):
        open_source(made, split="lost")
    (made / "lost").mkdir()
    with pytest.raises(DataError, match="no tar file"):
        open_source(made, split="lost")


def test_paths_that_lead_nowhere(tmp_path):
    (tmp_path / "pairs.csv").write_text("image,caption\n")
    with pytest.raises(DataError, match=r"no such file or folder - did you mean 'pairs\.csv'"):
        open_source(tmp_path / "pair.csv")
    with pytest.raises(DataError, match="local path"):
        open_source("https://example.org/pairs.tar")
    (tmp_path / "notes.docx").write_text("x")
    with pytest.raises(DataError, match=r"expected a \.tar or a table"):
        open_source(tmp_path / "notes.docx")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="the folder is empty"):
        open_source(tmp_path / "empty")


def test_patterns(tmp_path):
    for number in range(3):
        (tmp_path / f"p-{number:03}.tar").touch()
    found = expand_pattern(f"{tmp_path}/p-{{000..002}}.tar")
    assert [path.name for path in found] == ["p-000.tar", "p-001.tar", "p-002.tar"]
    with pytest.raises(DataError, match=r"2 of 5 files do not exist, the first is .*p-003\.tar"):
        expand_pattern(f"{tmp_path}/p-{{000..004}}.tar")
    with pytest.raises(DataError, match="no file matches"):
        expand_pattern(f"{tmp_path}/q-*.tar")
    with pytest.raises(DataError, match=r"range \{3\.\.1\} is empty"):
        expand_pattern("p-{3..1}.tar")
    with pytest.raises(DataError, match="more than 5,000,000 files"):
        expand_pattern("p-{0..99999999999}.tar")


def test_many_files_of_one_folder_are_looked_up_in_one_listing(tmp_path, monkeypatch):
    for number in range(100):
        (tmp_path / f"{number:03d}.tar").touch()
    asked = []
    monkeypatch.setattr(Path, "is_file", lambda self: asked.append(self.name))
    assert len(expand_pattern(f"{tmp_path}/{{000..099}}.tar")) == 100
    with pytest.raises(DataError, match=r"20 of 120 files do not exist, the first is .*/100\.tar"):
        expand_pattern(f"{tmp_path}/{{000..119}}.tar")
    assert not asked
