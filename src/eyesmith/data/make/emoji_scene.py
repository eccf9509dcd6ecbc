"""One scene of drawings: what is in it, where, and its pixels, masks and record. A function of its seed alone."""

import io
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from eyesmith.data.make.backgrounds import BACKGROUNDS, background
from eyesmith.data.make.emoji_scene_words import scene_captions, scene_questions, scene_relations
from eyesmith.data.make.shapes import mask_to_box, mask_to_rle

MAX_THINGS = 8
SIDE_FRACS = (0.11, 0.45)  # of a drawing's square, relative to the image's side
MAX_TURN_DEGREES = 30.0
MIN_VISIBLE_FRAC = 0.5  # of each drawing's own pixels: nothing is hidden by more
REPEAT_PROB = 0.25  # of a scene in which one concept stands more than once
NOVEL_PROB = 1 / 3  # of an object of the held-out splits to be of a novel concept
_TRIES = 12
_JPEG_QUALITY = 92


@dataclass(frozen=True, kw_only=True)
class Sprite:
    """One drawing. row: in the array of pixels; facts: what a record says of it (`cls`, `name`, `licence` ...)."""

    row: int
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """What the scenes of a split are made of: drawings by concept, of base concepts and of novel ones."""

    base: Sequence[Sequence[Sprite]]
    novel: Sequence[Sequence[Sprite]] = ()

    def pick(self, rng: random.Random) -> Sprite:
        """A drawing of a concept: each concept of its kind is as likely as any other, however many drawings it has."""
        is_novel = self.novel and rng.random() < NOVEL_PROB
        return _pick(_pick(self.novel if is_novel else self.base, rng), rng)


@dataclass
class SceneCounts:
    """What was left out: objects wanted for which no place was found."""

    unplaced: int = 0


@dataclass
class _Placed:
    sprite: Sprite
    mask: np.ndarray  # bool, of the whole drawing, in its window
    left: int
    top: int
    side_px: int
    turn_degrees: float
    covers: list[int] = field(default_factory=list)


def paint_scene(
    key: str, pool: Pool, pixels: np.ndarray, *, seed: str, size_px: int, counts: SceneCounts
) -> tuple[Image.Image, dict[str, Any]]:
    """A random scene and its record.

    pixels: [N, P, P, 4] uint8 RGBA, drawing by drawing. Returns the RGB image (size_px x size_px) and the record;
    its `objects` go from the largest visible one to the smallest.
    """
    rng = random.Random(seed)
    kind = _pick(BACKGROUNDS, rng)
    image = background(kind, size_px=size_px, rng=rng)
    owner = np.full((size_px, size_px), -1, np.int8)
    placed: list[_Placed] = []
    for sprite in _wanted(pool, rng):
        one = _place(sprite, pixels[sprite.row], image, owner, placed, rng)
        if one is None:
            counts.unplaced += 1
        else:
            placed.append(one)
    masks = [owner == place for place in range(len(placed))]
    areas = [int(mask.sum()) for mask in masks]
    order = sorted(range(len(placed)), key=lambda place: -areas[place])
    objects = []
    for place in order:
        one = placed[place]
        x0, y0, x1, y1 = box = mask_to_box(masks[place])
        objects.append(
            dict(one.sprite.facts)
            | {"x": (x0 + x1) / 2 / size_px, "y": (y0 + y1) / 2 / size_px}
            | {"side_px": one.side_px, "turn_degrees": round(one.turn_degrees, 1)}
            | {"visible_frac": round(areas[place] / int(one.mask.sum()), 3)}
            | {"box_px": box, "mask_rle": mask_to_rle(masks[place])}
        )
    covers = {order.index(place): [order.index(below) for below in one.covers] for place, one in enumerate(placed)}
    present = {one.sprite.facts["name"] for one in placed}
    return image, _record(key, objects, covers, _absent(pool, present, rng), kind, rng)


def scene_members(image: Image.Image, record: Mapping[str, Any]) -> dict[str, bytes]:
    """The tar members of a scene, by extension: jpg, txt (one sentence on all of it), cls (of the largest), json."""
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return {
        "jpg": stream.getvalue(),
        "txt": record["texts"][0].encode(),
        "cls": str(record["objects"][0]["cls"]).encode(),
        "json": json.dumps(record, ensure_ascii=False).encode(),
    }


def _record(
    key: str,
    objects: Sequence[Mapping[str, Any]],
    covers: Mapping[int, Sequence[int]],
    absent: Sequence[Mapping[str, Any]],
    kind: str,
    rng: random.Random,
) -> dict[str, Any]:
    main = objects[0]
    relations = scene_relations([(one["x"], one["y"]) for one in objects], covers)
    texts = scene_captions([one["name"] for one in objects], relations, kind)
    return {
        "key": key,
        "concept": main["name"],
        "label": main["name"],
        "style": "scene",
        "group": main["group"],
        "subgroup": main["subgroup"],
        "tags": [kind],
        "texts": texts,
        "source": "eyesmith emoji scenes",
        "licence": " AND ".join(sorted({one["licence"] for one in objects})),
        "background": kind,
        "objects": list(objects),
        "relations": relations,
        "questions": scene_questions(objects, relations, absent=absent, rng=rng),
    }


def _wanted(pool: Pool, rng: random.Random) -> list[Sprite]:
    """1 to MAX_THINGS drawings, every number as likely; of different concepts, but for one that may be repeated."""
    number = 1 + int(rng.random() * MAX_THINGS)
    wanted: list[Sprite] = []
    names: set[str] = set()
    if number > 1 and rng.random() < REPEAT_PROB:
        first = pool.pick(rng)
        groups = pool.novel if first.facts["novel"] else pool.base
        others = next(group for group in groups if group[0].facts["name"] == first.facts["name"])
        times = 2 + int(rng.random() * min(2, number - 1))
        wanted = [_pick(others, rng) for _ in range(times)]
        names = {first.facts["name"]}
    while len(wanted) < number:
        sprite = pool.pick(rng)
        if sprite.facts["name"] not in names or len(names) >= len(pool.base) + len(pool.novel):
            wanted.append(sprite)
            names.add(sprite.facts["name"])
    return wanted


def _absent(pool: Pool, present: set[str], rng: random.Random) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for _ in range(1000):
        facts = pool.pick(rng).facts
        if facts["name"] not in present:
            found.append(facts)
            if len(found) == 2:
                return found
    raise ValueError("a pool of fewer concepts than a scene holds")


def _place(
    sprite: Sprite,
    pixels: np.ndarray,
    image: Image.Image,
    owner: np.ndarray,
    placed: list[_Placed],
    rng: random.Random,
) -> _Placed | None:
    """Draw `sprite` into `image` and `owner`; None when it would hide, in every place tried, too much of another."""
    size_px = image.width
    low, high = (math.log(frac) for frac in SIDE_FRACS)
    side_px = round(size_px * math.exp(low + (high - low) * rng.random()))
    turn = MAX_TURN_DEGREES * (2 * rng.random() - 1)
    # "RGBa": colours times alpha, so that no colour of a transparent pixel enters what is averaged
    drawing = Image.fromarray(pixels).convert("RGBa").resize((side_px, side_px), Image.Resampling.BILINEAR)
    drawing = drawing.rotate(turn, Image.Resampling.BILINEAR, expand=True).convert("RGBA")
    bounds = drawing.getchannel("A").getbbox()
    if bounds is None:
        return None
    drawing = drawing.crop(bounds)
    if drawing.width > size_px or drawing.height > size_px:
        return None
    mask = np.asarray(drawing.getchannel("A")) >= 128
    if not mask.any():
        return None
    visible = np.bincount(owner[owner >= 0], minlength=len(placed)) if placed else np.zeros(0, np.int64)
    for _ in range(_TRIES):
        left = int(rng.random() * (size_px - drawing.width + 1))
        top = int(rng.random() * (size_px - drawing.height + 1))
        window = owner[top : top + drawing.height, left : left + drawing.width]
        below = window[mask]
        hidden = np.bincount(below[below >= 0], minlength=len(placed))
        if all(
            visible[place] - hidden[place] >= MIN_VISIBLE_FRAC * placed[place].mask.sum()
            for place in np.flatnonzero(hidden)
        ):
            image.paste(drawing, (left, top), drawing)
            window[mask] = len(placed)
            covers = np.flatnonzero(hidden).tolist()
            return _Placed(sprite, mask, left, top, side_px, turn, covers)
    return None


def _pick(items: Sequence[Any], rng: random.Random) -> Any:
    return items[int(rng.random() * len(items))]
