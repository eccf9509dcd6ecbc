"""Scenes of coloured shapes, drawn here: image-text pairs with boxes, masks, relations and questions, no download.

A scene has one main shape, the largest, which is its class, and up to three smaller ones. Some pairs of shape and
colour never occur in training, so that `unseen_combination` asks for a recombination of what is known.
"""

import json
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from eyesmith.data.make.coco import CocoScene, categories, write_coco
from eyesmith.data.make.render import png_bytes
from eyesmith.data.make.scene_words import class_name, name_of, questions, relations, scene_captions
from eyesmith.data.make.shapes import BACKGROUNDS, COLORS, PATTERNS, SHAPES, Thing, draw, mask_to_box, mask_to_rle
from eyesmith.data.shards import ShardWriter, begin_dataset, finish_dataset, split_facts
from eyesmith.errors import ConfigError

MAKER_VERSION = 1  # raise it when the same parameters would give other bytes

CLASSES = tuple(class_name(shape, color, pattern) for shape in SHAPES for color in COLORS for pattern in PATTERNS)
TEMPLATES = ("{}", "a {}", "a drawing of a {}")
TEST_PER_CLASS, UNSEEN_PER_CLASS = 2, 8

_RADIUS = {"small": (0.085, 0.11), "medium": (0.14, 0.17), "large": (0.23, 0.3)}  # fractions of the image's side
_MAX_TURN = math.radians(12)  # a square must not become a diamond
_MARGIN = 0.02
_TRIES = 40

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """things[0] is the main one and larger than the others; no two share shape and colour. background: RGB."""

    things: tuple[Thing, ...]
    background: tuple[int, int, int]
    absent: str  # the name of something that is not there


def make_scenes(folder: Path, *, samples: int = 2016, seed: int = 0, size_px: int = 72) -> dict[str, Any]:
    """Make the data set in `folder`; returns the content of its dataset.json (also when it was already made).

    samples: scenes for training; `test` has 2 of each known class, `unseen_combination` 8 of each held-out one.
    size_px: side of the square images. Raises ConfigError for a wrong argument, DataError when the folder holds
    something else.
    """
    if samples < 1:
        raise ConfigError(f"samples: expected at least 1, got {samples}")
    if not 32 <= size_px <= 1024:
        raise ConfigError(f"size_px: expected 32 to 1024 (below 32 the small shapes are specks), got {size_px}")
    parameters = {"samples": samples, "seed": seed, "size_px": size_px}
    identity = {"name": "scenes", "maker": "scenes", "maker_version": MAKER_VERSION, "parameters": parameters}
    folder = Path(folder)
    made = begin_dataset(folder, identity)
    if made is not None:
        return made
    held_out = held_out_pairs(seed)
    known_kinds = _kinds(pair for pair in _pairs() if pair not in held_out)
    unseen_kinds = _kinds(held_out)
    facts: dict[str, Any] = {}
    num_before = 0  # keys run on from split to split
    for split, kinds, count in (
        ("train", known_kinds, samples),
        ("test", known_kinds, TEST_PER_CLASS * len(known_kinds)),
        ("unseen_combination", unseen_kinds, UNSEEN_PER_CLASS * len(unseen_kinds)),
    ):
        pictures: list[CocoScene] = []
        with ShardWriter(folder / split) as writer:
            for index, kind in enumerate(_shuffled_rounds(kinds, count, f"{seed}/{split}/order")):
                scene = sample_scene(kind, known_kinds, random.Random(f"{seed}/{split}/{index}"))
                key, members = f"s{num_before + index:07d}", scene_members(scene, size_px=size_px)
                writer.write(key, members)
                objects = [one | {"cls": CLASSES.index(one["name"])} for one in json.loads(members["json"])["objects"]]
                number = num_before + index
                pictures.append(CocoScene(number=number, file_name=f"{key}.png", size_px=size_px, objects=objects))
        num_before += count
        _write_boxes(folder, split, pictures, novel=_names(unseen_kinds))
        # a recombination is only worth something when all combinations, the known ones too, are candidates
        candidates = CLASSES if split == "unseen_combination" else [name for name in CLASSES if name in _names(kinds)]
        facts[split] = split_facts(writer, candidates) | {"annotations": f"annotations/{split}.json"}
        if split == "unseen_combination":
            novel = [name for name in CLASSES if name in _names(unseen_kinds)]
            facts[split] |= {"base": [name for name in CLASSES if name not in novel], "novel": novel}
    return finish_dataset(
        folder,
        {
            **identity,
            "size_px": size_px,
            "classes": list(CLASSES),
            "templates": list(TEMPLATES),
            "splits": facts,
            "sources": [
                {"name": "eyesmith scenes", "version": str(MAKER_VERSION), "licence": "CC0-1.0", "sha256": None}
            ],
            "held_out_concepts": [name for name in CLASSES if name in _names(unseen_kinds)],
            "split_rule": "unseen_combination: the main shape has a pair of shape and colour that no shape in train or "
            "test has; all classes are its candidates. test: known pairs, new scenes.",
        },
    )


def _write_boxes(folder: Path, split: str, pictures: Sequence[CocoScene], *, novel: set[str]) -> None:
    """The split's COCO json; a class of a held-out pair of shape and colour is novel."""
    write_coco(
        folder,
        split,
        name="scenes",
        categories=categories(CLASSES, [name.split()[-1] for name in CLASSES], novel),
        images=(json.dumps(one.image()) for one in pictures),
        annotations=(json.dumps(entry) for one in pictures for entry in one.annotations()),
        licences=["CC0-1.0"],
    )


def held_out_pairs(seed: int) -> list[tuple[str, str]]:
    """The pairs (shape, color) kept out of training: one for each shape, the colours in balance."""
    rng = random.Random(f"{seed}/held-out")
    colors = _shuffled_rounds(tuple(COLORS), len(SHAPES), f"{seed}/held-out/colors")
    return sorted(zip(sorted(SHAPES, key=lambda _: rng.random()), colors, strict=True))


def sample_scene(main: tuple[str, str, str], others: Sequence[tuple[str, str, str]], rng: random.Random) -> Scene:
    """A random scene with the `main` kind (shape, color, pattern) as the largest and up to three of `others`.

    others: at least five pairs of shape and colour, so that one of them is absent.
    """
    # only random() is used: it alone is promised to give the same numbers in every version of Python
    main_size, smaller = ("large", ("small", "medium")) if rng.random() < 0.7 else ("medium", ("small",))
    wanted = [main, *(_pick(others, rng) for _ in range(int(rng.random() * 4)))]
    things: list[Thing] = []
    for kind in wanted:
        if any(kind[:2] == (thing.shape, thing.color) for thing in things):
            continue
        thing = _fit(kind, _pick((main_size,) if not things else smaller, rng), things, rng)
        if thing is not None:
            things.append(thing)
    present = {(thing.shape, thing.color) for thing in things}
    absent = _pick([kind for kind in others if kind[:2] not in present], rng)
    return Scene(things=tuple(things), background=_pick(BACKGROUNDS, rng), absent=class_name(*absent))


def scene_members(scene: Scene, *, size_px: int) -> dict[str, bytes]:
    """The tar members of a scene, by extension: png, txt (one sentence on all of it), cls, json."""
    image, masks = draw(scene.things, background=scene.background, size_px=size_px)
    main = scene.things[0]
    label = name_of(main)
    texts = scene_captions(scene.things)
    objects = [
        asdict(thing) | {"name": name_of(thing), "box_px": mask_to_box(mask), "mask_rle": mask_to_rle(mask)}
        for thing, mask in zip(scene.things, masks, strict=True)
    ]
    record = {
        "concept": label,
        "label": label,
        "style": "scene",
        "group": main.shape,
        "subgroup": main.color,
        "tags": [main.pattern, main.size],
        "texts": texts,
        "source": "eyesmith scenes",
        "source_version": str(MAKER_VERSION),
        "licence": "CC0-1.0",
        "objects": objects,
        "relations": relations(scene.things),
        "questions": questions(scene.things, scene.absent),
    }
    return {
        "png": png_bytes(image),
        "txt": texts[0].encode(),
        "cls": str(CLASSES.index(label)).encode(),
        "json": json.dumps(record).encode(),
    }


def _fit(kind: tuple[str, str, str], size: str, things: Sequence[Thing], rng: random.Random) -> Thing | None:
    low, high = _RADIUS[size]
    for _ in range(_TRIES):
        radius = low + (high - low) * rng.random()
        room = 1 - 2 * (radius + _MARGIN)
        x, y = (radius + _MARGIN + room * rng.random() for _ in range(2))
        if all(math.hypot(x - thing.x, y - thing.y) > radius + thing.radius + _MARGIN for thing in things):
            turn = _MAX_TURN * (2 * rng.random() - 1)
            shape, color, pattern = kind
            return Thing(shape=shape, color=color, pattern=pattern, size=size, x=x, y=y, radius=radius, turn=turn)
    return None


def _pairs() -> list[tuple[str, str]]:
    return [(shape, color) for shape in SHAPES for color in COLORS]


def _kinds(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str, str]]:
    return [(shape, color, pattern) for shape, color in pairs for pattern in PATTERNS]


def _names(kinds: Sequence[tuple[str, str, str]]) -> set[str]:
    return {class_name(*kind) for kind in kinds}


def _pick(items: Sequence[T], rng: random.Random) -> T:
    return items[int(rng.random() * len(items))]


def _shuffled_rounds(items: Sequence[T], count: int, seed: str) -> list[T]:
    """`count` items, each as often as any other (but for the last round), every round in a new order."""
    rng = random.Random(seed)
    drawn: list[T] = []
    while len(drawn) < count:
        drawn += sorted(items, key=lambda _: rng.random())
    return drawn[:count]
