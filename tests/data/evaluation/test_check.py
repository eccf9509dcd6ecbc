import pytest

from eyesmith.data.evaluation.check import check_evaluation_set, holds_evaluation_sets, is_evaluation_set
from eyesmith.errors import DataError


def _kinds(report) -> set[tuple[str, str]]:
    return {(one.severity, one.kind) for one in report.findings}


def test_a_good_set_has_the_warnings_of_its_names_only(labelled):
    report = check_evaluation_set(labelled, size=5, num_classes=3)
    assert _kinds(report) == {("warning", "empty_name")}
    assert (report.exit_status, report.num_samples) == (0, 5)


def test_counts_are_compared_with_the_task(labelled):
    report = check_evaluation_set(labelled, size=6, num_classes=4)
    assert {kind for severity, kind in _kinds(report) if severity == "error"} == {"wrong_size", "wrong_classes"}
    assert any("5 images are usable, the task has 6" in one.detail for one in report.findings)
    assert report.exit_status == 1


def test_unused_classes_and_equal_names_are_warnings(labelled):
    (labelled / "classnames.txt").write_text("fox\nfox\nhound\nzebra\n")
    report = check_evaluation_set(labelled)
    assert _kinds(report) == {("warning", "equal_names"), ("warning", "unused_class")}
    assert any("'zebra'" in one.detail for one in report.findings)


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path, write_set, picture):
    samples = [{"png": picture(n), "cls": b"%d" % n} for n in range(3)]
    samples[1]["png"] = samples[1]["png"][:60]
    report = check_evaluation_set(write_set(tmp_path / "set", [samples]))
    found = [one for one in report.findings if one.kind == "undecodable"]
    assert [one.key for one in found] == ["s0000001"]
    assert report.exit_status == 1


def test_missing_and_cut_shards_labels_and_metadata_are_all_listed(tmp_path, write_set, picture, npy):
    samples = [{"png": picture(n), "cls": b"1", "npy": npy([n])} for n in range(6)]
    samples[1]["cls"] = b"7"
    del samples[2]["npy"]
    folder = write_set(tmp_path / "set", [samples[:3], samples[3:4], samples[4:]])
    (folder / "test" / "1.tar").unlink()
    shard = folder / "test" / "2.tar"
    shard.write_bytes(shard.read_bytes()[:1100])
    kinds = {kind for severity, kind in _kinds(check_evaluation_set(folder)) if severity == "error"}
    assert {"missing_shard", "bad_label", "missing_member", "truncated_tar"} <= kinds


def test_own_class_folders(tmp_path, picture):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(picture(len(name) + ord(name[0])))
    assert not check_evaluation_set(tmp_path).findings
    (tmp_path / "owl").mkdir()
    (tmp_path / "dog" / "2.png").write_bytes(b"no picture")
    report = check_evaluation_set(tmp_path)
    assert _kinds(report) == {("error", "empty_class"), ("error", "undecodable")}


def test_a_set_that_cannot_be_opened_raises(labelled):
    (labelled / "test" / "nshards.txt").unlink()
    with pytest.raises(DataError, match=r"nshards.txt: not there"):
        check_evaluation_set(labelled)


def test_evaluation_folders_are_told_from_made_data(labelled, tmp_path):
    assert is_evaluation_set(labelled)
    assert holds_evaluation_sets(labelled)
    assert holds_evaluation_sets(labelled.parent)
    (tmp_path / "more").mkdir()
    assert not holds_evaluation_sets(labelled.parent)
    (labelled / "dataset.json").write_text("{}")
    assert not is_evaluation_set(labelled)
