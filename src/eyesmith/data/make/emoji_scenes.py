"""Scenes of emoji drawings on all kinds of backgrounds: image-text pairs with boxes, masks, relations and questions.

Made shard by shard, each a function of the parameters and its number: any number of processes makes the same bytes, a
make that was stopped goes on where it stood, and no more than a shard is held in memory.
"""

import hashlib
import json
import math
import multiprocessing
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from eyesmith.data.make.coco import CocoScene, categories, write_coco
from eyesmith.data.make.emoji_scene import SIDE_FRACS, Pool, SceneCounts, Sprite, paint_scene, scene_members
from eyesmith.data.make.icons import ALL_GROUPS, GROUPS
from eyesmith.data.make.render import SvgRenderer
from eyesmith.data.make.worlds import World, WorldName, read_world
from eyesmith.data.shards import begin_dataset, finish_dataset, shard_bytes
from eyesmith.errors import ConfigError
from eyesmith.files import atomic_path, sha256_file, write_atomic, write_json
from eyesmith.images.formats import open_header

MAKER_VERSION = 1  # raise it when the same parameters would give other bytes
SHARD_SAMPLES = 256
TEMPLATES = ("{}", "a {}", "a picture with a {}")
POOLS = {
    "train": (("train",), ()),
    "validation": (("choose_drawing",), ("choose_concept", "unseen_concept_wide")),
    "test": (("unseen_drawing", "unseen_drawing_wide"), ("unseen_concept",)),
}
"""Splits of scenes: the splits of drawings that base objects are taken from (all that there are), and those that novel
objects are (the first that there is)."""
UNFINISHED_FOLDER = "unfinished"
NovelKind = Literal["unseen", "known"]
KNOWN_EVERY = 5  # of the concepts that drawings are trained on, where some of them are the novel ones


@dataclass(frozen=True, kw_only=True)
class _Plan:
    folder: Path
    pixels: Path
    pools: Mapping[str, Pool]
    samples: Mapping[str, int]
    seed: int
    size_px: int
    as_folder: bool

    def first(self, split: str) -> int:
        """The number of a split's first scene: keys and ids run on from split to split."""
        names = list(self.samples)
        return sum(self.samples[name] for name in names[: names.index(split)])

    def part(self, split: str, shard: int) -> Path:
        """What is kept of a shard until all are there."""
        return self.folder / UNFINISHED_FOLDER / split / f"{shard}.json"


def make_emoji_scenes(
    folder: Path,
    *,
    world: WorldName = "large",
    groups: Sequence[str] = GROUPS,
    samples: int = 4000,
    test_samples: int = 500,
    size_px: int = 224,
    seed: int = 0,
    novel: NovelKind = "unseen",
    as_folder: bool = False,
    workers: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Make the data set in `folder`; returns the content of its dataset.json (also when it was already made).

    world, groups: where the drawings come from (`read_world`; the small world has its own groups). samples: scenes for
    training; test_samples: of every other split. novel: which concepts no training scene holds: "unseen", those that no
    drawing for training shows either, or "known", every fifth of those that an eye trained on drawings does know,
    which are then told apart among the known names alone. as_folder: single files too, images/SPLIT/KEY.jpg. workers:
    processes; 0 makes them in this one, and the bytes are the same with any number. on_progress: called with the scenes
    done and those wanted. Raises what `read_world` raises, ConfigError for a wrong argument, DataError when the
    folder holds something else.
    """
    for name, value, low, high in (
        ("samples", samples, 1, 10**7),
        ("test_samples", test_samples, 1, 10**6),
        ("size_px", size_px, 64, 1024),
        ("workers", workers, 0, 256),
    ):
        if not low <= value <= high:
            raise ConfigError(f"{name}: expected {low} to {high}, got {value}")
    if novel not in get_args(NovelKind):
        raise ConfigError(f"novel: expected {' or '.join(get_args(NovelKind))}, got {novel!r}")
    parameters = {"world": world, "samples": samples, "test_samples": test_samples, "size_px": size_px, "seed": seed}
    parameters |= {"groups": list(groups)} if world == "large" else {}
    parameters |= {"as_folder": True} if as_folder else {}
    parameters |= {"novel": novel} if novel != "unseen" else {}
    identity = {"name": "emoji-scenes", "maker": "emoji-scenes", "maker_version": MAKER_VERSION}
    identity |= {"parameters": parameters}
    folder = Path(folder)
    made = begin_dataset(folder, identity, keeps=True)
    if made is not None:
        return made
    drawn = read_world(world, groups=groups if world == "large" else ALL_GROUPS)
    pixels, rows, num_empty = _draw(folder, drawn, side_px=math.ceil(SIDE_FRACS[1] * size_px))
    kept_out = _every_fifth(drawn) if novel == "known" else set[str]()
    held_out = kept_out or drawn.unseen_concepts
    pools = _pools(drawn, rows, kept_out)
    counts = {split: samples if split == "train" else test_samples for split in pools}
    plan = _Plan(
        folder=folder,
        pixels=pixels,
        pools=pools,
        samples=counts,
        seed=seed,
        size_px=size_px,
        as_folder=as_folder,
    )
    unplaced = _make_shards(plan, workers, on_progress)
    facts = {split: _finish_split(plan, split, drawn) for split in pools}
    dataset = finish_dataset(
        folder,
        {
            **identity,
            "size_px": size_px,
            "classes": [concept.label for concept in drawn.concepts],
            "templates": list(TEMPLATES),
            "splits": facts,
            "sources": drawn.sources,
            "held_out_concepts": [concept.label for concept in drawn.concepts if concept.hexcode in held_out],
            "split_rule": f"{drawn.split_rule} Scenes of train hold drawings of train; those of the other splits "
            "hold held-out drawings of known concepts (base) and, a third of the objects, of "
            + ("known ones that no scene of train holds (novel)." if novel == "known" else "unseen ones (novel)."),
            "left_out": dict(drawn.left_out) | {"empty drawings": num_empty, "objects without a place": unplaced},
        },
    )
    pixels.unlink()
    shutil.rmtree(folder / UNFINISHED_FOLDER)
    return dataset


def _draw(folder: Path, world: World, *, side_px: int) -> tuple[Path, dict[tuple[str, str], int], int]:
    """All drawings of the splits as one array on disk [N, P, P, 4]; its path, the row of each, how many are empty."""
    members = sorted({member for split in world.splits.values() for member in split})
    path = folder / UNFINISHED_FOLDER / "drawings.npy"
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        drawings = [(world.sets[style].svgs[hexcode], f"{style}: {hexcode}") for hexcode, style in members]
        with atomic_path(path) as part, SvgRenderer() as renderer:
            shape = (len(members), side_px, side_px, 4)
            array = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
            for row, png in enumerate(renderer.pngs(drawings, size_px=side_px, alpha=True)):
                array[row] = np.asarray(open_header(png, drawings[row][1]))
            array.flush()
            del array
    array = np.load(path, mmap_mode="r")
    rows = {member: row for row, member in enumerate(members) if (array[row, ..., 3] >= 128).any()}
    return path, rows, len(members) - len(rows)


def _every_fifth(world: World) -> set[str]:
    """Hexcodes of the concepts, known by drawings for training, that scenes keep out."""
    trained = {hexcode for hexcode, _ in world.splits["train"]}
    known = [concept.hexcode for concept in world.concepts if concept.hexcode in trained]
    return set(known[KNOWN_EVERY - 1 :: KNOWN_EVERY])


def _pools(world: World, rows: Mapping[tuple[str, str], int], kept_out: Set[str]) -> dict[str, Pool]:
    """kept_out: hexcodes of the known concepts that are the novel ones; none: those that are not known are."""
    concepts = {concept.hexcode: (index, concept) for index, concept in enumerate(world.concepts)}

    def groups(splits: Sequence[str], *, novel: bool) -> list[list[Sprite]]:
        by_concept: dict[str, list[Sprite]] = defaultdict(list)
        for hexcode, style in sorted(member for split in splits for member in world.splits.get(split, ())):
            if (hexcode, style) in rows:
                index, concept = concepts[hexcode]
                source = world.sets[style].source
                facts = {
                    "name": concept.label,
                    "cls": index,
                    "novel": novel,
                    "style": style,
                    "group": concept.group,
                    "subgroup": concept.subgroup,
                    "hexcode": hexcode,
                    "licence": source["licence"],
                }
                by_concept[hexcode].append(Sprite(row=rows[hexcode, style], facts=facts))
        return list(by_concept.values())

    def pool(split: str, base: Sequence[str], novel: Sequence[str]) -> Pool:
        known = [some for some in groups(base, novel=False) if some[0].facts["hexcode"] not in kept_out]
        apart = groups([name for name in novel if name in world.splits][:1], novel=True)
        if kept_out and split != "train":
            apart = [some for some in groups(base, novel=True) if some[0].facts["hexcode"] in kept_out]
        return Pool(base=known, novel=apart)

    return {
        split: pool(split, base, novel)
        for split, (base, novel) in POOLS.items()
        if any(name in world.splits for name in base)
    }


def _make_shards(plan: _Plan, workers: int, on_progress: Callable[[int, int], None] | None) -> int:
    """Make what is not there; returns how many objects found no place, in all shards."""
    jobs = [
        (split, shard) for split, count in plan.samples.items() for shard in range(math.ceil(count / SHARD_SAMPLES))
    ]
    total, done, unplaced = sum(plan.samples.values()), 0, 0
    for num_scenes, num_unplaced in _results(partial(_make_shard, plan), jobs, workers):
        done += num_scenes
        unplaced += num_unplaced
        if on_progress is not None:
            on_progress(done, total)
    return unplaced


def _results(
    make: Callable[[tuple[str, int]], tuple[int, int]], jobs: list[tuple[str, int]], workers: int
) -> Iterator[tuple[int, int]]:
    if workers == 0:
        yield from map(make, jobs)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may stand still
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting = iter(jobs)
        running = [pool.submit(make, job) for job in islice(waiting, 2 * workers)]
        try:
            while running:
                yield running.pop(0).result()
                running += [pool.submit(make, job) for job in islice(waiting, 1)]
        finally:
            pool.shutdown(cancel_futures=True)


def _make_shard(plan: _Plan, job: tuple[str, int]) -> tuple[int, int]:
    """Write one shard, or find it made; returns its scenes and the objects without a place."""
    split, shard = job
    path, part = plan.folder / split / f"{shard}.tar", plan.part(split, shard)
    if part.exists():
        kept = json.loads(part.read_text(encoding="utf-8"))
        if path.exists() and sha256_file(path) == kept["sha256"]:
            return len(kept["images"]), kept["unplaced"]
    pixels = np.load(plan.pixels, mmap_mode="r")
    counts = SceneCounts()
    samples, images, annotations = [], [], []
    for index in range(shard * SHARD_SAMPLES, min((shard + 1) * SHARD_SAMPLES, plan.samples[split])):
        number = plan.first(split) + index
        key = f"e{number:08d}"
        seed = f"{plan.seed}/{split}/{index}"
        image, record = paint_scene(key, plan.pools[split], pixels, seed=seed, size_px=plan.size_px, counts=counts)
        members = scene_members(image, record)
        samples.append((key, members))
        scene = CocoScene(number=number, file_name=f"{key}.jpg", size_px=plan.size_px, objects=record["objects"])
        images.append(json.dumps(scene.image()))
        annotations += [json.dumps(one) for one in scene.annotations()]
        if plan.as_folder:
            write_atomic(plan.folder / "images" / split / f"{key}.jpg", members["jpg"])
    content = shard_bytes(samples)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content)
    digest = hashlib.sha256(content).hexdigest()
    kept = {"sha256": digest, "unplaced": counts.unplaced, "images": images, "annotations": annotations}
    write_json(part, kept)  # after the shard: what it says of it holds
    return len(samples), counts.unplaced


def _finish_split(plan: _Plan, split: str, world: World) -> dict[str, Any]:
    """The split's COCO json and number of shards; returns its entry in dataset.json."""
    num_shards = math.ceil(plan.samples[split] / SHARD_SAMPLES)

    def kept(field: str) -> Iterator[Any]:
        for shard in range(num_shards):
            value = json.loads(plan.part(split, shard).read_text(encoding="utf-8"))[field]
            yield from value if isinstance(value, list) else [value]

    pool = plan.pools[split]
    names = [concept.label for concept in world.concepts]
    novel = {group[0].facts["name"] for group in pool.novel}
    present = novel | {group[0].facts["name"] for group in pool.base}
    kinds = [concept.subgroup for concept in world.concepts]
    write_coco(
        plan.folder,
        split,
        name="emoji-scenes",
        categories=[one for one in categories(names, kinds, novel) if one["name"] in present],
        images=kept("images"),
        annotations=kept("annotations"),
        licences=sorted({one.source["licence"] for one in world.sets.values()}),
    )
    write_atomic(plan.folder / split / "nshards.txt", f"{num_shards}\n")
    return {
        "samples": plan.samples[split],
        "shards": num_shards,
        "sha256": list(kept("sha256")),
        "classes": [name for name in names if name in present],
        "base": [name for name in names if name in present - novel],
        "novel": [name for name in names if name in novel],
        "annotations": f"annotations/{split}.json",
    }
