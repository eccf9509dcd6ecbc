"""Scenes are judged by their pixels, boxes and words, worked out here again from the json record."""

import io
import json
import random
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyesmith.data.make import scenes
from eyesmith.data.make.scene_words import class_name, questions, relation, scene_captions
from eyesmith.data.make.scenes import CLASSES, held_out_pairs, make_scenes, sample_scene
from eyesmith.data.make.shapes import COLORS, PATTERNS, SHAPES, Thing, draw, mask_to_box, mask_to_rle
from eyesmith.errors import ConfigError, DataError


def read(folder: Path) -> dict[str, list[dict]]:
    content: dict[str, list[dict]] = {}
    for path in sorted(folder.glob("*/*.tar")):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}
        for name in members:
            if name.endswith(".json"):
                key = name.removesuffix(".json")
                with Image.open(io.BytesIO(members[f"{key}.png"])) as image:
                    assert image.mode == "RGB"
                    pixels = np.asarray(image)
                record = json.loads(members[name])
                record |= {"key": key, "pixels": pixels, "txt": members[f"{key}.txt"].decode()}
                content.setdefault(path.parent.name, []).append(record | {"cls": int(members[f"{key}.cls"])})
    return content


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "TEST_PER_CLASS", 1)
        patch.setattr(scenes, "UNSEEN_PER_CLASS", 1)
        return make_scenes(folder, samples=150, size_px=64), read(folder), folder


def unpack(rle: dict) -> np.ndarray:
    height, width = rle["size"]
    flat, position, value = np.zeros(height * width, dtype=bool), 0, False
    for count in rle["counts"]:
        flat[position : position + count] = value
        position, value = position + count, not value
    assert position == height * width
    return flat.reshape(width, height).T


def test_splits_and_classes(made):
    dataset, content, folder = made
    assert {split: len(listed) for split, listed in content.items()} == {
        "train": 150,
        "test": 252,
        "unseen_combination": 36,
    }
    assert len(set(dataset["classes"])) == len(dataset["classes"]) == len(SHAPES) * len(COLORS) * len(PATTERNS) == 288
    assert len(dataset["splits"]["test"]["classes"]) == 252
    assert len(dataset["held_out_concepts"]) == 36
    assert dataset["splits"]["unseen_combination"]["classes"] == dataset["classes"]
    names = (folder / "classnames.txt").read_text().splitlines()
    for split, listed in content.items():
        assert all(names[scene["cls"]] == scene["label"] == scene["concept"] for scene in listed)
        assert {scene["label"] for scene in listed} <= set(dataset["splits"][split]["classes"])
    counts = Counter(scene["label"] for scene in content["test"])
    assert set(counts.values()) == {1}
    keys = [scene["key"] for split in content.values() for scene in split]
    assert len(set(keys)) == len(keys)


def test_unseen_combinations_are_unseen_and_their_parts_are_not(made):
    dataset, content, _ = made
    pairs = {
        split: {(thing["shape"], thing["color"]) for scene in listed for thing in scene["objects"]}
        for split, listed in content.items()
    }
    main = {(scene["group"], scene["subgroup"]) for scene in content["unseen_combination"]}
    assert main == set(held_out_pairs(0))
    assert not main & pairs["train"]
    assert not main & pairs["test"]
    assert {shape for shape, _ in main} == {shape for shape, _ in pairs["train"]} == set(SHAPES)
    assert {color for _, color in main} == {color for _, color in pairs["train"]} == set(COLORS)
    assert max(Counter(color for _, color in main).values()) == 2
    assert {scene["label"] for scene in content["unseen_combination"]} == set(dataset["held_out_concepts"])


def test_same_bytes_again(tmp_path, made, monkeypatch):
    def digest(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    dataset, _, folder = made
    monkeypatch.setattr(scenes, "TEST_PER_CLASS", 1)
    monkeypatch.setattr(scenes, "UNSEEN_PER_CLASS", 1)
    make_scenes(tmp_path, samples=150, size_px=64)
    assert digest(tmp_path) == digest(folder)
    assert make_scenes(tmp_path, samples=150, size_px=64) == dataset
    with pytest.raises(DataError, match="another data set lies here"):
        make_scenes(tmp_path, samples=151, size_px=64)


def test_no_two_scenes_are_equal(made):
    _, content, _ = made
    images = [scene["pixels"].tobytes() for split in content.values() for scene in split]
    assert len(set(images)) == len(images)


def test_masks_boxes_and_colours(made):
    _, content, _ = made
    for scene in content["test"]:
        pixels = scene["pixels"].astype(int)
        background = pixels[0, 0]
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (edge == background).all()  # nothing is cut off
        assert background.min() > 225
        union = np.zeros(pixels.shape[:2], dtype=int)
        for thing in scene["objects"]:
            mask = unpack(thing["mask_rle"])
            x0, y0, x1, y1 = thing["box_px"]
            inside = np.zeros_like(mask)
            inside[y0:y1, x0:x1] = mask[y0:y1, x0:x1]
            assert (inside == mask).all()
            touched = (mask[y0], mask[y1 - 1], mask[:, x0], mask[:, x1 - 1])
            assert all(line.any() for line in touched)
            assert abs((x0 + x1) / 2 - thing["x"] * 64) < 0.6 * thing["radius"] * 64
            # the nearest named colour of the darker part of its pixels (the pattern on it is white)
            own = pixels[mask]
            distances = {name: np.abs(own - np.array(rgb)).sum(1).min() for name, rgb in COLORS.items()}
            assert min(distances, key=distances.__getitem__) == thing["color"]
            union += mask
        assert union.max() <= 1
        assert np.abs(pixels[union == 0] - background).sum(1).mean() < 12  # only soft edges lie outside the masks
        radii = [thing["radius"] for thing in scene["objects"]]
        assert all(radius < radii[0] for radius in radii[1:])


def test_relations_follow_from_the_centres(made):
    _, content, _ = made
    seen = Counter()
    for scene in content["train"]:
        things = scene["objects"]
        for entry in scene["relations"]:
            one, other = things[entry["subject"]], things[entry["object"]]
            dx, dy = one["x"] - other["x"], one["y"] - other["y"]
            expected = {"left of": -dx, "right of": dx, "above": -dy, "below": dy}
            assert max(expected, key=expected.__getitem__) == entry["relation"]
            seen[entry["relation"]] += 1
    assert min(seen[words] for words in ("left of", "right of", "above", "below")) > 20


def test_questions_have_true_answers(made):
    _, content, _ = made
    kinds = Counter()
    for scene in content["train"]:
        things = {thing["name"]: thing for thing in scene["objects"]}
        shapes = {thing["shape"]: thing for thing in scene["objects"]}
        assert len(things) == len(scene["objects"])
        for entry in scene["questions"]:
            words = entry["question"].rstrip("?").split()
            answer = entry["answer"]
            kinds[entry["kind"], answer in ("yes", "no")] += 1
            if entry["kind"] == "count":
                assert answer == ("one", "two", "three", "four")[len(things) - 1]
            elif entry["kind"] == "exist":
                assert answer == ("yes" if " ".join(words[3:]) in things else "no")
            elif entry["kind"] == "largest":
                assert answer == max(things.values(), key=lambda thing: thing["radius"])["shape"]
            elif entry["kind"] == "color":
                assert answer == shapes[words[-1]]["color"]
            elif entry["kind"] == "pattern":
                assert answer == shapes[words[2]]["pattern"]
            else:
                asked = {"subject": None, "relation": None, "object": None}
                for candidate in scene["relations"]:
                    names = [scene["objects"][candidate[end]]["name"] for end in ("subject", "object")]
                    if entry["question"] == f"Is the {names[0]} {candidate['relation']} the {names[1]}?":
                        asked = candidate
                assert (answer == "yes") == (asked["relation"] is not None)
    assert {kind for kind, _ in kinds} == {"count", "exist", "largest", "color", "pattern", "relation"}


def test_captions_name_everything(made):
    _, content, _ = made
    for scene in content["train"]:
        assert scene["txt"] == scene["texts"][0]
        assert all(f"{thing['size']} {thing['name']}" in scene["txt"] for thing in scene["objects"])
        assert scene["label"] in scene["texts"]
        assert len(set(scene["texts"])) == len(scene["texts"]) >= 4
        for text in scene["texts"]:
            assert " a orange" not in f" {text}"
            assert " an yellow" not in f" {text}"


def thing(shape: str = "circle", **changes) -> Thing:
    facts = {"color": "orange", "pattern": "solid", "size": "large", "x": 0.5, "y": 0.5, "radius": 0.25, "turn": 0.0}
    return Thing(shape=shape, **(facts | changes))


def test_words_of_a_scene():
    main, other = thing(), thing("star", color="blue", pattern="striped", size="small", x=0.5, y=0.1, radius=0.1)
    assert class_name("ring", "red", "dotted") == "dotted red ring"
    assert scene_captions([main, other]) == [
        "a large orange circle and a small striped blue star",
        "orange circle",
        "an orange circle",
        "a drawing of an orange circle",
        "a striped blue star above an orange circle",
        "two shapes, the largest is an orange circle",
    ]
    assert relation(other.place, main.place) == "above"
    assert relation(main.place, other.place) == "below"
    assert relation(main.place, thing(x=0.55).place) is None
    assert {"kind": "exist", "question": "Is there a red ring?", "answer": "no"} in questions([main], "red ring")


def test_areas_are_those_of_geometry():
    side = 200
    radius = 0.4 * side
    expected = {
        "circle": np.pi,
        "square": 2.0,
        "triangle": 3 * 3**0.5 / 4,
        "diamond": 1.2,
        "hexagon": 3 * 3**0.5 / 2,
        "pentagon": 2.5 * np.sin(2 * np.pi / 5),
        "ring": np.pi * (1 - 0.52**2),
    }
    for shape, area in expected.items():
        image, (mask,) = draw([thing(shape, radius=0.4)], background=(255, 255, 255), size_px=side)
        assert mask.sum() == pytest.approx(area * radius**2, rel=0.02)
        assert image.getpixel((100, 100)) == ((255, 255, 255) if shape == "ring" else COLORS["orange"])


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_stay_inside_their_radius(shape):
    for turn in (-0.2, 0.0, 0.2):
        _, (mask,) = draw([thing(shape, radius=0.3, turn=turn)], background=(255, 255, 255), size_px=100)
        y, x = np.nonzero(mask)
        assert np.hypot(x + 0.5 - 50, y + 0.5 - 50).max() < 31
        assert mask.sum() > 0.2 * np.pi * 30**2


def test_run_lengths():
    mask = np.array([[0, 1], [1, 1], [0, 0]], dtype=bool)
    assert mask_to_rle(mask) == {"size": [3, 2], "counts": [1, 1, 1, 2, 1]}  # columns: 0 1 0, 1 1 0
    assert mask_to_box(mask) == [0, 0, 2, 2]
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = rng.random(tuple(rng.integers(1, 7, 2))) < 0.5
        rle = mask_to_rle(mask)
        assert (unpack(rle) == mask).all()
        assert all(count > 0 for count in rle["counts"][1:])


def test_crowded_scene_still_ends():
    kinds = [(shape, color, "solid") for shape in ("circle", "star") for color in ("red", "blue", "green")]
    for seed in range(50):
        scene = sample_scene(kinds[0], kinds, random.Random(str(seed)))
        assert 1 <= len(scene.things) <= 4
        assert len({(t.shape, t.color) for t in scene.things}) == len(scene.things)


@pytest.mark.parametrize(("arguments", "message"), [({"samples": 0}, "samples"), ({"size_px": 16}, "size_px")])
def test_wrong_arguments(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_scenes(tmp_path / "d", **arguments)
    assert not (tmp_path / "d").exists()


def test_every_class_name_once():
    assert len(set(CLASSES)) == len(CLASSES)
