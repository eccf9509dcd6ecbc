import pickle
from collections.abc import Iterator

import pytest
from PIL import Image

from eyesmith.data import Sample, Source, open_source, register_opener, sources
from eyesmith.data.check import check
from eyesmith.data.labelled import open_labelled
from eyesmith.data.memory import decode_all
from eyesmith.data.own_source import OwnSource
from eyesmith.errors import ConfigError, DataError


class Colours:
    """Pictures that nobody stored: one a line of a file."""

    classes = ("blue", "red")

    def __init__(self, lines: list[str], picture) -> None:
        self.keys = [line.split()[0] for line in lines]
        self.labels = [self.classes.index(line.split()[1]) for line in lines]
        self._lines, self._picture = lines, picture

    def read(self, index: int) -> Sample:
        key, colour = self._lines[index].split()[:2]
        if "gone" in self._lines[index]:
            raise DataError(f"{key}: is gone")
        texts = ("",) if "blank" in self._lines[index] else (f"a {colour} card", " ")
        return Sample(key, self._picture(index), texts, {"colour": colour})

    def fingerprint(self) -> str:
        return "|".join(self._lines)


@pytest.fixture(autouse=True)
def _no_opener_stays() -> Iterator[None]:
    before = dict(sources.OPENERS)
    yield
    sources.OPENERS.clear()
    sources.OPENERS.update(before)


@pytest.fixture
def cards(tmp_path, picture):
    register_opener(".cards", lambda path, asked: Colours(path.read_text().splitlines(), picture))
    (tmp_path / "my.cards").write_text("a red\nb blue\nc red\nd blue\n")
    return tmp_path / "my.cards"


def test_three_things_are_a_source(cards, picture):
    source = open_source(cards)
    assert isinstance(source, Source)
    assert (list(source.keys), source.labels, source.classes) == (list("abcd"), [1, 0, 1, 0], ("blue", "red"))
    assert source.texts(1) == ("a blue card",)
    assert source[2].meta == {"colour": "red"}
    assert source.image_bytes(3) == picture(3)
    assert source.fingerprint() == "a red|b blue|c red|d blue"


def test_it_is_checked_decoded_and_split_as_any_other(cards):
    assert check(cards).exit_status == 0
    assert decode_all(open_source(cards), 8).labels == [1, 0, 1, 0]
    sets = open_labelled(cards, val_frac=0.5)
    assert (len(sets.train), len(sets.tests["val"])) == (2, 2)


def test_what_cannot_be_used_is_listed(cards):
    cards.write_text("a red\nb blue blank\nc red gone\n")
    source = open_source(cards)
    assert list(source.keys) == ["a"]
    assert [(one.kind, one.key) for one in source.problems] == [("empty_caption", "b"), ("missing_image", "c")]
    assert list(open_source(cards, require_text=False).keys) == ["a", "b"]
    cards.write_text("c red gone\n")
    with pytest.raises(DataError, match="no usable sample; c: is gone"):
        open_source(cards)
    cards.write_text("a red\na blue\n")
    with pytest.raises(DataError, match="1 keys come twice"):
        open_source(cards)


def test_labels_that_do_not_fit_are_refused(picture):
    samples = Colours(["a red"], picture)
    samples.labels = [2]
    with pytest.raises(DataError, match="a label below 2"):
        OwnSource(samples, name="x")


def test_an_ending_is_opened_by_one(cards):
    for ending, message in ((".cards", "already"), (".csv", "already"), ("lmdb", "begins with a dot"), (".X", "lower")):
        with pytest.raises(ConfigError, match=message):
            register_opener(ending, lambda path, asked: open_source(path))


def test_an_opener_may_give_a_source_of_ours_and_sees_what_is_asked(tmp_path, picture):
    (tmp_path / "list").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "list" / "0.png")
    (tmp_path / "list" / "t.csv").write_text("image,caption\n0.png,a card\n")
    asked = []
    register_opener(".packed", lambda path, wanted: asked.append(wanted) or open_source(tmp_path / "list" / "t.csv"))
    (tmp_path / "x.packed").mkdir()  # a folder may have an ending
    assert open_source(tmp_path / "x.packed", split="train").texts(0) == ("a card",)
    assert asked[0].split == "train"
    (tmp_path / "y.csv").mkdir()  # but a folder is no table
    with pytest.raises(DataError, match="the folder is empty"):
        open_source(tmp_path / "y.csv")


def test_a_pickled_source_is_the_same(tmp_path):
    source = OwnSource(_Fixed(), name="x")
    assert pickle.loads(pickle.dumps(source))[0] == source[0]


class _Fixed:
    keys = ("a",)

    def read(self, index: int) -> Sample:
        return Sample(self.keys[index], b"x", ("t",), {})

    def fingerprint(self) -> str:
        return "f"
