import json
import pickle
import tarfile

import numpy as np
import pytest

from eyesmith.data.evaluation import open_evaluation_set
from eyesmith.errors import ConfigError, DataError


def test_classification_gives_labels_names_and_templates_in_order(labelled):
    found = open_evaluation_set(labelled)
    assert (found.layout, found.name, len(found)) == ("classification", "wds_own_test", 5)
    assert found.labels.tolist() == [0, 1, 2, 0, 2]
    assert found.labels.dtype == np.int64
    assert found.classes == ("fox", "", "hound")  # an empty line in the middle is a class
    assert found.templates == ("a photo of a {c}.", "art of the {c}.")
    assert found.metadata is None
    assert found.captions(0) == ()
    assert list(found.source.keys) == [f"s{number:07d}" for number in range(5)]


def test_a_set_can_be_pickled_and_its_bytes_are_those_of_the_tar(labelled):
    found = pickle.loads(pickle.dumps(open_evaluation_set(labelled)))
    with tarfile.open(labelled / "test" / "1.tar") as tar:
        assert found.source.image_bytes(4) == tar.extractfile("s0000004.png").read()


def test_the_split_folder_itself_may_be_given(labelled):
    assert open_evaluation_set(labelled / "test").labels.tolist() == [0, 1, 2, 0, 2]


def test_label_and_metadata_come_in_one_pass(tmp_path, write_set, picture, npy):
    samples = [{"png": picture(n), "cls": b"1", "npy": npy([n, 7])} for n in range(3)]
    found = open_evaluation_set(write_set(tmp_path / "set", [samples]))
    assert found.metadata.tolist() == [[0, 7], [1, 7], [2, 7]]
    assert found.metadata.dtype == np.float64
    assert found.labels.tolist() == [1, 1, 1]


def test_multilabel_vectors(tmp_path, write_set, picture, npy):
    samples = [{"jpg": picture(n, "JPEG"), "npy": npy(row)} for n, row in enumerate([[1, 0, 1], [0, 0, 1]])]
    found = open_evaluation_set(write_set(tmp_path / "set", [samples], kind="multilabel\n"))
    assert found.layout == "multilabel"
    assert found.multilabels.tolist() == [[1, 0, 1], [0, 0, 1]]
    assert found.labels is None


def test_multilabel_vectors_of_another_length_are_refused(tmp_path, write_set, picture, npy):
    folder = write_set(tmp_path / "set", [[{"png": picture(0), "npy": npy([1, 0])}]], kind="multilabel\n")
    with pytest.raises(DataError, match=r"2 places, classnames.txt has 3 names"):
        open_evaluation_set(folder)


def test_every_caption_counts_also_repeated_ones(tmp_path, write_set, picture):
    texts = ["a fox\na fox\nred", "one", "a \\n b\nlast\n"]
    samples = [{"webp": picture(n, "WEBP"), "txt": text.encode()} for n, text in enumerate(texts)]
    found = open_evaluation_set(write_set(tmp_path / "set", [samples], kind="retrieval", classes=None, templates=None))
    assert found.layout == "retrieval"
    assert [found.captions(n) for n in range(3)] == [("a fox", "a fox", "red"), ("one",), ("a \\n b", "last")]


@pytest.fixture
def faces(tmp_path, write_set, picture, npy):
    classes = "race:black\nrace:white\ngender:male\ngender:female\n"
    templates = "race:a photo of a {c} person\ngender:a photo of a {c}\n"
    samples = [{"jpg": picture(n, "JPEG"), "npy": npy([4, n % 2, n, int(n != 1)])} for n in range(2)]
    return write_set(tmp_path / "wds_fairface_test", [samples], classes=classes, templates=templates)


def test_objectives_stand_before_names_and_templates(faces):
    found = open_evaluation_set(faces)
    assert found.layout == "attributes"
    assert list(found.objectives) == ["race", "gender"]
    assert found.objectives["gender"].classes == ("male", "female")
    assert found.objectives["race"].templates == ("a photo of a {c} person",)
    assert found.metadata.tolist() == [[4, 0, 0, 1], [4, 1, 1, 0]]
    assert found.classes == ()


def test_an_objective_without_templates_is_named(faces):
    (faces / "zeroshot_classification_templates.txt").write_text("race:a {c} person\n")
    with pytest.raises(DataError, match="'gender', which the other file has"):
        open_evaluation_set(faces, layout="attributes")


def _winogavil(tmp_path, write_set, picture, lines):
    samples = [{"jpg": picture(n, "JPEG"), "txt": f"{name}.jpg".encode()} for n, name in enumerate("abcd")]
    folder = write_set(tmp_path / "set", [samples], kind="winogavil", classes=None, templates=None)
    (folder / "test" / "instances.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def test_winogavil_instances_point_at_distinct_images(tmp_path, write_set, picture):
    rows = [
        {"cue": "Egg", "candidates": ["c.jpg", "a.jpg", "d.jpg"], "associations": ["d.jpg", "c.jpg"]},
        {"cue": "sea", "candidates": ["b.jpg", "a.jpg"], "associations": ["a.jpg"]},
    ]
    found = open_evaluation_set(_winogavil(tmp_path, write_set, picture, map(json.dumps, rows)))
    assert [(one.cue, one.candidates, one.gold) for one in found.instances] == [
        ("Egg", (2, 0, 3), (True, False, True)),
        ("sea", (1, 0), (False, True)),
    ]
    assert len(found) == 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"cue": "x", "candidates": ["z.jpg"], "associations": []}', "line 2.*'z.jpg'"),
        ('{"cue": "x", "candidates": ["a.jpg"], "associations": ["b.jpg"]}', "line 2.*among the candidates"),
        ("{", "line 2.*not an instance"),
        ('{"candidates": []}', "line 2.*'cue'"),
    ],
)
def test_a_wrong_instance_is_named(tmp_path, write_set, picture, line, message):
    good = '{"cue": "x", "candidates": ["a.jpg", "b.jpg"], "associations": ["b.jpg"]}'
    with pytest.raises(DataError, match=message):
        open_evaluation_set(_winogavil(tmp_path, write_set, picture, [good, line]))


# what would falsify a number is refused


def test_the_shard_count_is_mandatory(labelled):
    (labelled / "test" / "nshards.txt").unlink()
    with pytest.raises(DataError, match=r"nshards.txt: not there"):
        open_evaluation_set(labelled)


@pytest.mark.parametrize("count", ["two", "0", "-1", "\n", "²", "1" * 5000, "9" * 13, "1000001"])
def test_the_shard_count_is_a_number(labelled, count):
    (labelled / "test" / "nshards.txt").write_text(count)
    with pytest.raises(DataError, match="expected one whole number of shards"):
        open_evaluation_set(labelled)


def test_a_missing_shard_is_refused_or_listed(labelled):
    (labelled / "test" / "1.tar").unlink()
    with pytest.raises(DataError, match=r"says 2 shards, 1 are missing: 1.tar"):
        open_evaluation_set(labelled)
    found = open_evaluation_set(labelled, is_strict=False)
    assert [problem.kind for problem in found.problems] == ["missing_shard"]
    assert len(found) == 3


def test_a_shard_too_many_is_refused(labelled):
    (labelled / "test" / "nshards.txt").write_text("1\n")
    with pytest.raises(DataError, match=r"the folder also holds 1.tar"):
        open_evaluation_set(labelled)


def test_a_cut_shard_is_refused(labelled):
    shard = labelled / "test" / "0.tar"
    shard.write_bytes(shard.read_bytes()[:2200])
    with pytest.raises(DataError, match=r"0.tar cut"):
        open_evaluation_set(labelled)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"cls": b"3"}, "s0000005 label 3 is out of range, classnames.txt has 3 names"),
        ({"cls": b"-1"}, "s0000005 cls: expected a whole number"),
        ({"txt": b"fox"}, "s0000005 no cls, so no label"),
    ],
)
def test_a_wrong_label_is_named(tmp_path, write_set, picture, members, message):
    good = [{"png": picture(n), "cls": b"2"} for n in range(5)]
    folder = write_set(tmp_path / "set", [[*good, {"png": picture(9), **members}]])
    with pytest.raises(DataError, match=message):
        open_evaluation_set(folder)
    assert open_evaluation_set(folder, is_strict=False).labels.tolist() == [2] * 5 + [-1]


@pytest.mark.parametrize(
    ("member", "message"), [(None, "no npy, other samples have one"), (b"x", "npy: cannot be read"), ([1], "1 values")]
)
def test_wrong_metadata_is_named(tmp_path, write_set, picture, npy, member, message):
    good = {"png": picture(0), "cls": b"0", "npy": npy([1, 2])}
    bad = {"png": picture(1), "cls": b"0"}
    if member is not None:
        bad["npy"] = member if isinstance(member, bytes) else npy(member)
    folder = write_set(tmp_path / "set", [[good, bad]])
    with pytest.raises(DataError, match=message):
        open_evaluation_set(folder)
    rows = open_evaluation_set(folder, is_strict=False).metadata
    assert rows[0].tolist() == [1, 2]
    assert np.isnan(rows[1]).all()


def test_rows_of_other_types_and_shapes_are_numbers_too(tmp_path, write_set, picture, npy):
    arrays = [np.int32([1, 2]), np.float32([0.5, 2]), np.array([[3], [4]]), np.int32([5, 6]), np.array([True, False])]
    samples = [{"png": picture(n), "cls": b"0", "npy": npy(array)} for n, array in enumerate(arrays)]
    rows = open_evaluation_set(write_set(tmp_path / "set", [samples])).metadata
    assert rows.tolist() == [[1, 2], [0.5, 2], [3, 4], [5, 6], [1, 0]]


def test_a_row_cut_short_is_named(tmp_path, write_set, picture, npy):
    good, cut = npy([1, 2]), npy([3, 4])[:-8]
    samples = [{"png": picture(n), "cls": b"0", "npy": raw} for n, raw in enumerate((good, cut))]
    with pytest.raises(DataError, match="s0000001 npy: "):
        open_evaluation_set(write_set(tmp_path / "set", [samples]))


def test_a_pickled_array_is_never_loaded(tmp_path, write_set, picture, npy):
    unsafe = npy(np.array([{"a": 1}], dtype=object))
    folder = write_set(tmp_path / "set", [[{"png": picture(0), "cls": b"0", "npy": unsafe}]])
    with pytest.raises(DataError, match="npy: cannot be read"):
        open_evaluation_set(folder)


@pytest.mark.parametrize("shape", ["(9223372036854775807,)", "(1000000000000000,)", "(3,)", "(-1,)", "(2, 9999999999)"])
def test_a_row_that_promises_more_than_it_holds_is_named(tmp_path, write_set, picture, npy, shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    lying = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(16)
    folder = write_set(tmp_path / "set", [[{"png": picture(0), "cls": b"0", "npy": lying}]])
    with pytest.raises(DataError, match="npy: cannot be read"):
        open_evaluation_set(folder)


def test_names_and_templates_of_the_folder_are_required_unless_named(tmp_path, write_set, picture):
    folder = write_set(tmp_path / "set", [[{"png": picture(0), "cls": b"0"}]], templates=None)
    with pytest.raises(DataError, match=r"templates.txt: not there"):
        open_evaluation_set(folder)
    (folder / "classnames.txt").unlink()
    with pytest.raises(DataError, match=r"classnames.txt: not there"):
        open_evaluation_set(folder)


def test_a_template_without_a_place_is_refused(labelled):
    (labelled / "zeroshot_classification_templates.txt").write_text("a photo of {}\n")
    with pytest.raises(DataError, match="has no place {c}"):
        open_evaluation_set(labelled)


def test_an_unknown_type_and_layout_are_refused(labelled):
    (labelled / "dataset_type.txt").write_text("audio\n")
    with pytest.raises(DataError, match=r"dataset_type.txt: expected one of classification"):
        open_evaluation_set(labelled)
    with pytest.raises(ConfigError, match="layout: expected one of"):
        open_evaluation_set(labelled, layout="audio")


def test_a_path_that_is_not_there_names_its_neighbour(labelled):
    with pytest.raises(DataError, match="did you mean 'wds_own_test'"):
        open_evaluation_set(labelled.parent / "wds_own_tset")
    with pytest.raises(DataError, match=r"no split 'val'; it has: test"):
        open_evaluation_set(labelled, split="val")
