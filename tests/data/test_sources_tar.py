import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from eyesmith.data.sources import open_source
from eyesmith.data.tar_samples import split_member_name
from eyesmith.data.tar_source import TarSource
from eyesmith.errors import DataError


def test_sample_is_what_was_written(made, members):
    sample = open_source(made, split="train")[4]
    written = members(4, "train", label=1)
    assert sample.key == "train-4"
    assert sample.image == written["train-4.png"]
    assert sample.texts == ("a red fox", "a drawing of a fox")
    assert sample.meta == json.loads(written["train-4.json"])


def test_many_threads_and_a_pickled_copy_read_the_same(made):
    source = open_source(made, split="train")
    expected = [source[index] for index in range(6)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.__getitem__, list(range(6)) * 20)) == expected * 20
    copy = pickle.loads(pickle.dumps(source))
    assert [copy[index] for index in range(6)] == expected
    assert copy[-1] == expected[5]
    with pytest.raises(IndexError):
        source[6]


@pytest.mark.parametrize(
    ("name", "key", "extension"),
    [
        ("s1.jpg", "s1", "jpg"),
        ("./s1.jpg", "s1", "jpg"),
        ("a.b/s1.seg.PNG", "a.b/s1", "seg.png"),
        ("x/.hidden.txt", "", ""),
        ("README", "", ""),
    ],
)
def test_key_is_the_path_up_to_the_first_dot(name, key, extension):
    assert split_member_name(name) == (key, extension)


def test_captions_labels_and_images_of_other_makers(tmp_path, write_tar, picture):
    write_tar(
        tmp_path / "0.tar",
        {
            "a.png": b"second choice",
            "a.WEBP": picture(0),
            "a.txt": b"  one dog\r\n\n two\\nlines \n",
            "b.jpg": picture(1),
            "b.json": json.dumps({"caption": "from json", "cls": 3}).encode(),
        },
    )
    source = open_source(tmp_path)
    assert source[0].image == picture(0)  # webp before png
    assert source.texts(0) == ("one dog", "two\nlines")
    assert source.texts(1) == ("from json",)
    with pytest.raises(DataError, match=r"sample a in 0\.tar: no label"):
        _ = source.labels


def test_class_name_is_the_text_of_a_labelled_image_without_one(tmp_path, write_tar, picture):
    write_tar(tmp_path / "test" / "0.tar", {"s0.png": picture(0), "s0.cls": b"1\n"})
    (tmp_path / "classnames.txt").write_text("dog\ncat\n")
    source = open_source(tmp_path, split="test")
    assert source.texts(0) == ("cat",)
    assert source.labels == [1]


def test_captions_pass_unchanged(tmp_path, write_tar, picture):
    captions = {"emoji": "a 🦊, a \u2028 and a \x0c.", "nul": "before\0after", "long": "word " * 2000 + "end"}
    parts = {}
    for key, caption in captions.items():
        parts |= {f"{key}.png": picture(1), f"{key}.txt": caption.encode()}
    source = open_source(write_tar(tmp_path / "t.tar", parts))
    assert [source.texts(index) for index in range(3)] == [(caption,) for caption in captions.values()]
    assert len(source.texts(2)[0]) > 10_000 - 1


def test_cut_tar_opens_with_what_is_before_the_cut(made):
    shard = made / "train" / "1.tar"
    shard.write_bytes(shard.read_bytes()[: 3 * 2048 + 600])
    source = open_source(made, split="train")
    kinds = [problem.kind for problem in source.problems]
    assert kinds[0] == "truncated_tar"
    assert "members before it are used" in source.problems[0].detail
    assert set(kinds[1:]) <= {"missing_member"}
    assert list(source.keys) == ["train-0", "train-1", "train-2", "train-3"]
    assert all(source[index].image for index in range(len(source)))


def test_shard_that_is_no_tar_is_a_problem_and_alone_an_error(made):
    (made / "train" / "0.tar").write_bytes(b"not a tar" * 100)
    source = open_source(made, split="train")
    assert list(source.keys) == ["train-3", "train-4", "train-5"]
    assert [problem.kind for problem in source.problems] == ["unreadable_shard"]
    assert source[0].texts
    with pytest.raises(DataError, match=r"no complete sample in 1 shard.*not a tar file"):
        open_source(made / "train" / "0.tar")


def test_incomplete_and_repeated_members_are_problems(tmp_path, write_tar, picture, members):
    parts = members(0) | {"lonely.txt": b"no image", "bare.png": picture(5), "train-0.b/x.txt": b"?"}
    write_tar(tmp_path / "0.tar", parts)
    again = write_tar(tmp_path / "again.tar", {"train-0.txt": b"another caption"})
    whole = (tmp_path / "0.tar").read_bytes()
    end = whole.rstrip(b"\0")
    end += b"\0" * (-len(end) % 512)
    (tmp_path / "0.tar").write_bytes(end + again.read_bytes())
    again.unlink()
    source = open_source(tmp_path)
    assert list(source.keys) == ["train-0"]
    assert source.texts(0)[0] == "a red fox"
    found = {(problem.kind, problem.key) for problem in source.problems}
    assert {("missing_member", "lonely"), ("missing_member", "bare"), ("duplicate_key", "train-0")} <= found
    assert list(open_source(tmp_path, require_text=False).keys) == ["train-0", "bare"]


@pytest.mark.parametrize(
    ("label", "message"), [(b"7", "label 7 is out of range, expected 0 to 2"), (b"x", "whole number")]
)
def test_wrong_label_is_named(made, write_tar, members, label, message):
    write_tar(made / "train" / "0.tar", members(0) | {"train-0.cls": label})
    source = open_source(made, split="train")
    with pytest.raises(DataError, match=message):
        _ = source.labels
    assert [finding.kind for finding in source.text_findings(0)] == ["bad_label"]


def test_text_findings(tmp_path, write_tar, picture):
    write_tar(
        tmp_path / "0.tar",
        {
            "blank.png": picture(0),
            "blank.txt": b" \n\t",
            "latin.png": picture(1),
            "latin.txt": "café".encode("latin-1"),
            "broken.png": picture(2),
            "broken.txt": b"fine",
            "broken.json": b"{",
            "list.png": picture(3),
            "list.txt": b"fine",
            "list.json": b"[]",
        },
    )
    source = open_source(tmp_path)
    kinds = {source.keys[index]: [finding.kind for finding in source.text_findings(index)] for index in range(4)}
    assert kinds == {"blank": ["empty_caption"], "latin": ["not_utf8"], "broken": ["bad_json"], "list": ["bad_json"]}
    assert source.texts(0) == ()
    assert source.texts(1) == ("caf\ufffd",)


def test_fingerprint_depends_on_content_and_order_not_on_place(made, tmp_path, write_tar, members):
    before = open_source(made, split="train").fingerprint()
    moved = made.rename(tmp_path / "elsewhere")
    assert open_source(moved, split="train").fingerprint() == before
    parts = members(0) | members(1, label=1) | members(2, label=2)
    write_tar(moved / "train" / "0.tar", parts)
    assert open_source(moved, split="train").fingerprint() == before
    write_tar(moved / "train" / "0.tar", parts | {"train-1.txt": b"a rad fox"})
    changed = open_source(moved, split="train").fingerprint()
    assert changed != before
    write_tar(moved / "train" / "0.tar", members(1, label=1) | members(0) | members(2, label=2))
    assert open_source(moved, split="train").fingerprint() not in (before, changed)


def test_shard_changed_or_gone_after_opening(made, write_tar, members):
    source = open_source(made, split="train")
    write_tar(made / "train" / "0.tar", members(9))
    with pytest.raises(DataError, match="changed after it was opened"):
        source[0]
    (made / "train" / "1.tar").unlink()
    with pytest.raises(DataError, match="cannot read this shard"):
        source[3]


@pytest.mark.parametrize("count", ["two", "²", "٣", "1" * 5000])
def test_a_shard_count_that_is_none_is_a_finding(made, count):
    (made / "train" / "nshards.txt").write_text(count)
    problems = open_source(made, split="train").problems
    assert [(problem.kind, problem.where) for problem in problems] == [("missing_shard", "nshards.txt")]


def test_one_caption_with_line_ends_stays_one(tmp_path, write_tar, picture):
    caption = "A red barn\n#barn #snow\nPhoto: M"
    parts = {}
    for number, meta in enumerate(({"caption": caption}, {"text": caption + " "}, {"caption": "another"}, None)):
        parts |= {f"{number}.png": picture(number), f"{number}.txt": caption.replace("\n", "\r\n").encode()}
        parts |= {} if meta is None else {f"{number}.json": json.dumps(meta).encode()}
    source = TarSource([write_tar(tmp_path / "0.tar", parts)], name="x")
    lines = ("A red barn", "#barn #snow", "Photo: M")
    assert [source.texts(index) for index in range(4)] == [(caption,), (caption + " ",), lines, lines]


def test_half_an_emoji_is_replaced_and_named(tmp_path, write_tar, picture):
    parts = {"0.png": picture(0), "0.json": b'{"caption": "nice \\ud83d", "by": "\\ude00"}'}
    source = TarSource([write_tar(tmp_path / "0.tar", parts)], name="x")
    assert source.texts(0) == ("nice \ufffd",)
    assert source[0].meta["by"] == "\ufffd"
    assert [one.kind for one in source.text_findings(0)] == ["not_utf8"]


@pytest.mark.parametrize(
    ("cls", "label"), [("3", 3), ("3.0", 3), ("0.5", None), ('"3"', None), ("true", None), ("-1", None)]
)
def test_a_label_of_json_is_a_whole_number_or_a_finding(tmp_path, write_tar, picture, cls, label):
    parts = {"0.png": picture(0), "0.json": b'{"caption": "a", "cls": ' + cls.encode() + b"}"}
    parts |= {"1.png": picture(1), "1.json": b'{"caption": "a", "cls": 1}'}
    source = TarSource([write_tar(tmp_path / "0.tar", parts)], name="x")
    if label is not None:
        assert source.labels == [label, 1]
    else:
        with pytest.raises(DataError, match="sample 0 in 0.tar"):
            _ = source.labels


def test_names_with_dots_say_why_they_are_no_samples(tmp_path, write_tar, picture):
    parts = {"v1.0.png": picture(0), "v1.0.txt": b"a"}
    with pytest.raises(DataError, match="a key ends at the first dot of the name"):
        TarSource([write_tar(tmp_path / "0.tar", parts)], name="x")


def test_what_is_about_the_whole_shard_is_no_sample(tmp_path, write_tar, picture):
    parts = {"__meta__/info.json": b"{}", "__index__": b"", "0.png": picture(0), "0.txt": b"a", "b.heic": b"x"}
    source = TarSource([write_tar(tmp_path / "0.tar", parts)], name="x")
    assert list(source.keys) == ["0"]
    assert [(one.kind, one.key) for one in source.problems] == [("missing_member", "b")]
