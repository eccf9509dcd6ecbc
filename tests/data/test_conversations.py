"""Conversations as LLaVA writes them, and what is refused or left out."""

import json
from pathlib import Path

import pytest
from PIL import Image

from eyesmith.data.conversations import DESCRIBE, Turn, open_conversations
from eyesmith.data.make.scenes import make_scenes
from eyesmith.errors import DataError


def _said(*values: str, by: tuple[str, str] = ("human", "gpt")) -> list[dict[str, str]]:
    return [{"from": by[place % 2], "value": value} for place, value in enumerate(values)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pics").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (9, 7), "red").save(tmp_path / "pics" / name)
    return tmp_path


def _write(folder: Path, records: object) -> str:
    file = folder / "mix.json"
    file.write_text(json.dumps(records))
    return str(file)


def test_a_mix_of_pictures_dialogues_and_texts_is_read(folder: Path) -> None:
    records = [
        {"id": "1", "image": "pics/a.png", "conversations": _said("<image>\nWhat?", "A disc.", "Why?", "So.")},
        {"id": "2", "image": "pics/b.png", "conversations": _said("What is it?\n<image>", "A cat.")},
        {"id": 3, "conversations": _said("Say hi.", "hi")},
        {"id": "4", "image": "pics/a.png", "conversations": _said("<image>Who?", "Me.")},
        {"id": "5", "conversations": _said("Ready.", "Go on.", "Here.", by=("gpt", "human"))},
    ]
    found = open_conversations(_write(folder, records))
    assert [item.key for item in found] == ["1", "2", "3", "4", "5"]
    assert [item.picture for item in found] == [0, 1, None, 0, None]
    assert found.items[0].branches == ((Turn("What?", "A disc."), Turn("Why?", "So.")),)
    assert found.items[1].branches == ((Turn("What is it?", "A cat."),),)
    assert found.items[4].branches == ((Turn("Go on.", "Here."),),)  # as LLaVA: what is said before the first question
    assert found.num_pictures == 2
    assert found.image_bytes(1) == (folder / "pics" / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"image": "pics/a.png", "conversations": _said("What?", "A.")}, "no <image> in its first human turn"),
        ({"image": "pics/a.png", "conversations": _said("Hm?", "A.", "<image>", "B.")}, "no <image> in its first"),
        ({"conversations": _said("<image> What?", "A.")}, "expected 0 <image>, got 1"),
        ({"image": "pics/a.png", "conversations": _said("<image><image>", "A.")}, "expected 1 <image>, got 2"),
        ({"conversations": _said("What?")}, "human and gpt in turn"),
        ({"conversations": [*_said("What?", "A."), {"from": "gpt", "value": "B."}]}, "human and gpt in turn"),
        ({"conversations": _said("What?", "  ")}, "an answer is empty"),
        ({"conversations": [{"from": "human", "value": 3}]}, "expected \"conversations\""),
        ({"image": ["a", "b"], "conversations": _said("<image>", "A.")}, "expected one file"),
        ({"conversations": []}, "got nothing"),
        ("text", "expected \"conversations\""),
    ],
)  # fmt: skip
def test_a_conversation_that_teaches_nothing_is_left_out_by_name(folder: Path, record: object, why: str) -> None:
    good = {"id": "good", "conversations": _said("Say hi.", "hi")}
    found = open_conversations(_write(folder, [record, good]))
    assert [item.key for item in found] == ["good"]
    assert [(one.kind, one.where) for one in found.problems] == [("bad_conversation", "mix.json[0]")]
    assert why in found.problems[0].detail


def test_a_missing_picture_is_an_error_that_names_it(folder: Path) -> None:
    records = [{"id": "x9", "image": "pics/none.png", "conversations": _said("<image>", "A.")}]
    with pytest.raises(DataError, match=r"x9: its picture .*none\.png is missing"):
        open_conversations(_write(folder, records))


@pytest.mark.parametrize("content", ["{", '{"a": 1}', "[" * 100_000, "[]"])
def test_what_is_no_list_of_conversations_is_refused(folder: Path, content: str) -> None:
    (folder / "mix.json").write_text(content)
    with pytest.raises(DataError, match=r"mix\.json"):
        open_conversations(str(folder / "mix.json"))


def test_lines_are_read_and_a_broken_one_is_named(folder: Path) -> None:
    lines = [json.dumps({"id": "1", "conversations": _said("Say hi.", "hi")}), "", "{"]
    (folder / "mix.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match="line 3: cannot be read as JSON"):
        open_conversations(str(folder / "mix.jsonl"))
    (folder / "mix.jsonl").write_text("\n".join(lines[:2]))
    assert len(open_conversations(str(folder / "mix.jsonl"))) == 1


def test_other_words_and_other_pictures_are_other_data(folder: Path) -> None:
    records = [{"id": "1", "image": "pics/a.png", "conversations": _said("<image>", "A.")}]
    first = open_conversations(_write(folder, records)).fingerprint()
    assert open_conversations(_write(folder, records)).fingerprint() == first
    Image.new("RGB", (9, 7), "blue").save(folder / "pics" / "a.png")
    second = open_conversations(_write(folder, records)).fingerprint()
    records[0]["conversations"] = _said("<image>", "B.")
    assert len({first, second, open_conversations(_write(folder, records)).fingerprint()}) == 3


def test_scenes_have_a_branch_for_each_question_or_are_described(tmp_path: Path) -> None:
    make_scenes(tmp_path / "scenes", samples=3, size_px=32)
    asked = open_conversations(str(tmp_path / "scenes"), split="train")
    assert len(asked) == 3
    for item in asked:
        assert all(len(branch) == 1 for branch in item.branches)
        kinds = {branch[0].kind for branch in item.branches}
        assert {"count", "exist", "largest"} <= kinds
    described = open_conversations(str(tmp_path / "scenes"), split="train", captions_only=True)
    assert [branch[0].question for item in described for branch in item.branches] == [DESCRIBE] * 3


def test_plain_pairs_are_described_by_their_captions(pairs: Path) -> None:
    found = open_conversations(str(pairs))
    assert {item.branches for item in found} == {
        ((Turn(DESCRIBE, color, "caption"),),) for color in ("red", "green", "blue", "black", "orange", "purple")
    }
