"""Scenes of drawings: exact boxes and masks, nothing held out in training, the same bytes however they are made."""

import hashlib
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from eyesmith.data.make import emoji_scenes
from eyesmith.data.make.emoji_scene import MIN_VISIBLE_FRAC, Pool, SceneCounts, Sprite, paint_scene
from eyesmith.data.make.emoji_scene_words import NUMBERS
from eyesmith.data.make.emoji_scenes import make_emoji_scenes
from eyesmith.data.make.icons import Concept, IconSet
from eyesmith.data.make.worlds import World
from eyesmith.data.sources import open_source
from eyesmith.errors import ConfigError, DataError

pytest.importorskip("resvg_py")


def disc(color: str) -> str:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10">'
        f'<circle cx="5" cy="5" r="4" fill="{color}"/></svg>'
    )


@pytest.fixture
def world(monkeypatch) -> World:
    concepts = [
        Concept(hexcode=f"{n:X}", label=f"thing {n}", tags=(), group="food-drink", subgroup="drink") for n in range(16)
    ]
    sets = {
        style: IconSet(
            style=style,
            svgs={c.hexcode: disc(f"rgb({15 * n},{80 * place},90)") for n, c in enumerate(concepts)},
            source={"name": style, "licence": licence},
        )
        for place, (style, licence) in enumerate((("one", "MIT"), ("two", "CC0-1.0")))
    }
    known, novel = concepts[:13], concepts[13:]
    made = World(
        name="small",
        concepts=concepts,
        sets=sets,
        names_source={"name": "names", "licence": "MIT"},
        splits={
            "train": [(c.hexcode, "one") for c in known],
            "unseen_drawing": [(c.hexcode, "two") for c in known],
            "unseen_concept": [(c.hexcode, style) for c in novel for style in sets],
        },
        split_rule="a rule.",
        left_out={"doubtful names": 3},
    )
    monkeypatch.setattr(emoji_scenes, "read_world", lambda name, groups: made)
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def records(folder: Path, split: str) -> dict[str, dict]:
    found = {}
    for path in sorted((folder / split).glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    found[member.name.partition(".")[0]] = json.loads(tar.extractfile(member).read())
    return found


def make(folder: Path, **changes) -> dict:
    return make_emoji_scenes(folder, **{"world": "small", "samples": 12, "test_samples": 9, "size_px": 64} | changes)


def test_data_set(tmp_path, world):
    dataset = make(tmp_path / "d", as_folder=True)
    assert {split: facts["samples"] for split, facts in dataset["splits"].items()} == {"train": 12, "test": 9}
    assert dataset["left_out"]["doubtful names"] == 3
    assert dataset["held_out_concepts"] == dataset["splits"]["test"]["novel"] == ["thing 13", "thing 14", "thing 15"]
    assert dataset["splits"]["train"]["novel"] == []
    assert not {"unfinished", "unfinished.json"} & {path.name for path in (tmp_path / "d").iterdir()}
    for split, facts in dataset["splits"].items():
        source = open_source(tmp_path / "d", split=split)
        assert len(source) == facts["samples"]
        coco = json.loads((tmp_path / "d" / facts["annotations"]).read_text())
        pictures = {path.name for path in (tmp_path / "d" / "images" / split).iterdir()}
        assert {one["file_name"] for one in coco["images"]} == pictures
        names = {one["id"]: one for one in coco["categories"]}
        by_image = {one["id"]: one["file_name"].removesuffix(".jpg") for one in coco["images"]}
        found = Counter((by_image[one["image_id"]], names[one["category_id"]]["name"]) for one in coco["annotations"])
        said = records(tmp_path / "d", split)
        assert found == Counter((key, one["name"]) for key, record in said.items() for one in record["objects"])
        assert len({one["id"] for one in coco["annotations"]}) == len(coco["annotations"])
        for record in said.values():
            for one in record["objects"]:
                expected = "two" if split == "test" and not one["novel"] else one["style"]
                assert one["style"] == (expected if split == "test" else "one")
                assert one["novel"] == (one["name"] in dataset["held_out_concepts"])
                assert names[one["cls"] + 1]["split"] == ("novel" if one["novel"] else "base")


def test_same_bytes_however_made(tmp_path, world, monkeypatch):
    monkeypatch.setattr(emoji_scenes, "SHARD_SAMPLES", 5)
    make(tmp_path / "one")
    painted = paint_scene

    def stops(*arguments, **named):
        if named["seed"] == "0/train/7":
            raise KeyboardInterrupt
        return painted(*arguments, **named)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(emoji_scenes, "paint_scene", stops)
        make(tmp_path / "two")
    kept = (tmp_path / "two" / "train" / "0.tar").stat().st_mtime_ns
    make(tmp_path / "two")
    assert (tmp_path / "two" / "train" / "0.tar").stat().st_mtime_ns == kept  # it went on, it did not begin again
    assert files(tmp_path / "one") == files(tmp_path / "two")
    before = files(tmp_path / "one")
    make(tmp_path / "one")
    assert files(tmp_path / "one") == before
    with pytest.raises(DataError, match="another data set lies here"):
        make(tmp_path / "one", seed=1)


def test_a_damaged_shard_is_made_again(tmp_path, world, monkeypatch):
    monkeypatch.setattr(emoji_scenes, "SHARD_SAMPLES", 5)
    make(tmp_path / "one")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(emoji_scenes, "finish_dataset", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        make(tmp_path / "two")
    (tmp_path / "two" / "test" / "0.tar").write_bytes(b"half")
    make(tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_processes_make_the_same(tmp_path, world):
    make(tmp_path / "one")
    make(tmp_path / "two", workers=1)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_novel_concepts_may_be_known_to_who_saw_the_drawings(tmp_path, world):
    dataset = make(tmp_path / "d", novel="known", samples=60, test_samples=40)
    assert dataset["held_out_concepts"] == dataset["splits"]["test"]["novel"] == ["thing 4", "thing 9"]
    assert len(dataset["splits"]["test"]["classes"]) == 13  # the unseen are not asked for
    shown = {split: {one["name"] for record in records(tmp_path / "d", split).values() for one in record["objects"]}
             for split in ("train", "test")}  # fmt: skip
    assert shown["train"] == set(dataset["splits"]["train"]["classes"]) == set(dataset["splits"]["test"]["base"])
    assert {"thing 4", "thing 9"} < shown["test"] <= set(dataset["splits"]["test"]["classes"])
    said = [one for record in records(tmp_path / "d", "test").values() for one in record["objects"]]
    assert all(one["style"] == "two" and one["novel"] == (one["name"] in ("thing 4", "thing 9")) for one in said)
    with pytest.raises(DataError, match="another data set lies here"):
        make(tmp_path / "d", samples=60, test_samples=40)


@pytest.mark.parametrize(("field", "value"), [("samples", 0), ("size_px", 32), ("workers", -1), ("novel", "none")])
def test_wrong_arguments(tmp_path, field, value):
    with pytest.raises(ConfigError, match=field):
        make(tmp_path / "d", **{field: value})


def squares(count: int) -> np.ndarray:
    """Full squares, each of a colour that no other has and that no background is likely to show by chance."""
    pixels = np.zeros((count, 32, 32, 4), np.uint8)
    for row in range(count):
        pixels[row] = (255 - row, 3 * row, 17 * row % 256, 255)
    return pixels


def pool(count: int, novel: int = 0) -> Pool:
    def sprite(row: int) -> list[Sprite]:
        facts = {"name": f"thing {row}", "cls": row, "novel": row >= count - novel, "group": "g", "licence": "MIT"}
        return [Sprite(row=row, facts=facts | {"subgroup": "drink" if row % 2 else "food-fruit"})]

    every = [sprite(row) for row in range(count)]
    return Pool(base=every[: count - novel], novel=every[count - novel :])


def scenes(number: int, size_px: int = 96, **arguments):
    counts = SceneCounts()
    of = pool(**arguments)
    for seed in range(number):
        pixels = squares(arguments["count"])
        yield pixels, *paint_scene("k", of, pixels, seed=str(seed), size_px=size_px, counts=counts)


def decoded(rle: dict) -> np.ndarray:
    values = np.repeat(np.arange(len(rle["counts"])) % 2, rle["counts"])
    return values.reshape(rle["size"][::-1]).T.astype(bool)


def test_masks_are_what_is_seen():
    for pixels, image, record in scenes(40, count=20):
        seen = np.asarray(image).astype(int)
        together = np.zeros(seen.shape[:2], int)
        for one in record["objects"]:
            mask = decoded(one["mask_rle"])
            together += mask
            # inside, away from any edge, stands the drawing's own colour
            inner = mask.copy()
            for axis in (0, 1):
                for step in (-1, 1, -2, 2):
                    inner &= np.roll(mask, step, axis)
            if inner.any():
                assert np.abs(seen[inner] - pixels[one["cls"], 0, 0, :3]).max() <= 2
            rows, columns = np.nonzero(mask)
            assert one["box_px"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert one["visible_frac"] >= MIN_VISIBLE_FRAC - 0.001
        assert together.max() == 1
        areas = [sum(one["mask_rle"]["counts"][1::2]) for one in record["objects"]]
        assert areas == sorted(areas, reverse=True)


def test_in_front_of_is_what_covers():
    num_said = 0
    for _, _, record in scenes(60, count=20):
        hidden = {place for place, one in enumerate(record["objects"]) if one["visible_frac"] < 1}
        below = {one["object"] for one in record["relations"] if one["relation"] == "in front of"}
        assert below == hidden
        num_said += len(below)
    assert num_said > 20


def test_numbers_and_novel_objects_are_in_balance():
    found = [record for _, _, record in scenes(400, count=30, novel=6)]
    numbers = Counter(len(record["objects"]) for record in found)
    assert set(numbers) == set(range(1, 9))
    assert all(25 <= count <= 80 for number, count in numbers.items() if number < 7)
    objects = [one for record in found for one in record["objects"]]
    assert 0.28 < np.mean([one["novel"] for one in objects]) < 0.39
    assert {record["background"] for record in found} == {"flat", "gradient", "noise", "texture", "drawn"}


def test_blind_answers_are_no_better_than_chance():
    asked = [one for _, _, record in scenes(400, count=30, novel=6) for one in record["questions"]]
    assert {one["kind"] for one in asked} == {"count", "exist", "largest", "count_of", "kind", "relation", "where"}
    for kind in ("exist", "kind", "relation"):
        answers = Counter(one["answer"] for one in asked if one["kind"] == kind)
        assert answers["yes"] == answers["no"] > 50
    where = Counter(one["answer"] for one in asked if one["kind"] == "where")
    assert max(where.values()) < 0.36 * sum(where.values())
    count_of = Counter(one["answer"] for one in asked if one["kind"] == "count_of")
    assert max(count_of.values()) < 0.62 * sum(count_of.values())
    # a name alone does not tell whether it is there
    exist = [(one["question"], one["answer"]) for one in asked if one["kind"] == "exist"]
    yes = Counter(question for question, answer in exist if answer == "yes")
    no = Counter(question for question, answer in exist if answer == "no")
    assert sum(max(yes[question], no[question]) for question in yes | no) < 0.65 * len(exist)


def test_questions_are_true():
    for _, _, record in scenes(60, count=20):
        names = Counter(one["name"] for one in record["objects"])
        for one in record["questions"]:
            words = one["question"]
            if one["kind"] == "count":
                assert one["answer"] == NUMBERS[sum(names.values())]
            if one["kind"] == "exist":
                name = words.removeprefix("Is there a ").removesuffix("?")
                assert (name in names) == (one["answer"] == "yes")
            if one["kind"] == "count_of":
                name = words.removeprefix("How many times is there a ").removesuffix("?")
                assert one["answer"] == ("one", "two", "three")[names[name] - 1]


def test_the_first_scene_stays_what_it_is():
    # of the pixels, not of the JPEG, whose bytes belong to the library that writes it
    _, image, record = next(scenes(1, count=20))
    digest = hashlib.sha256(image.tobytes() + json.dumps(record).encode()).hexdigest()
    assert digest == "86a2d3bb3c363317baba553b9fdbca0694e4149967407dad2a2069aa65bf4e5f"
