"""Naming what stands in given boxes, zero-shot: by the dense map of the whole picture, and by each box cut out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.data.sample import Source
from eyesmith.data.shards import read_dataset
from eyesmith.data.sources import open_source, read_templates
from eyesmith.dense.regions import box_means, crop_boxes
from eyesmith.errors import DataError
from eyesmith.eval.features.identity import content_hash, decoders, model_facts
from eyesmith.eval.features.texts import TextFeatures
from eyesmith.eval.results.rows import ResultRow
from eyesmith.eval.statistics.metrics import similarity, target_ranks, wilson_interval
from eyesmith.images import open_image
from eyesmith.images.transforms import PreprocessConfig, evaluation_pixels
from eyesmith.models.clip import Clip, evaluating

TASK = "boxes"
WAYS = ("dense", "crop")
"""How a box is looked at; the last word of the model's name in result rows."""
_PICTURES = 8  # that are encoded at a time


@dataclass(frozen=True, kw_only=True)
class SceneBoxes:
    """What stands where in one picture, in its own pixels. boxes: fp32 [n, 4] of x0, y0, x1, y1; labels: int64 [n]."""

    boxes: Tensor
    labels: Tensor


def scene_boxes(source: Source, index: int) -> SceneBoxes:
    """The boxes of one sample of a made set of scenes. Raises DataError when it has none, or names no class of it."""
    objects: Any = source[index].meta.get("objects")
    place = _places(source.classes or ())
    try:
        boxes = torch.tensor([one["box_px"] for one in objects or ()], dtype=torch.float32)
        labels = torch.tensor([place[one["name"]] for one in objects or ()])
    except (KeyError, TypeError, ValueError):
        boxes = labels = torch.zeros(0)
    if not len(boxes):
        raise DataError(
            f"{source.name}: {source.keys[index]} has no boxes with names; expected scenes of `eyesmith data make "
            "emoji-scenes` or `eyesmith data make scenes`"
        )
    return SceneBoxes(boxes=boxes, labels=labels)


def named_boxes(
    clip: Clip,
    data: str,
    split: str,
    *,
    model_name: str | None = None,
    ways: Sequence[str] = WAYS,
    limit: int | None = None,
    num_workers: int = 2,
    note: Callable[[str], None] = lambda line: None,
) -> list[ResultRow]:
    """Top-1 and top-5 of the boxes of a split, by every one of WAYS: rows of task `boxes`.

    The row named after the split is of the known concepts' objects, among the known names (`base` in dataset.json; all
    of them where nobody says what is known). `SPLIT:novel` is of the others among all names, `SPLIT:all` of all among
    all. dense: the mean of the picture's map inside the box, projected; for encoders whose feature is a mean of their
    map, and left out for others. crop: the square around the box, looked at alone. limit: only so many pictures. note:
    told what is left out. Raises DataError for data without boxes.
    """
    facts = read_dataset_split(data, split)
    source = open_source(data, split=split, require_text=False)
    classes: tuple[str, ...] = source.classes or ()
    known = facts.get("base") or facts.get("classes") or classes
    names = list(facts.get("classes") or classes)
    prompts = read_templates(data) or clip.prompts
    weights = TextFeatures(clip).class_weights(names, prompts)  # [K, D]
    place = {name: row for row, name in enumerate(names)}
    rows: list[ResultRow] = []
    count = len(source) if limit is None else min(limit, len(source))
    usable = [way for way in ways if way != "dense" or clip.image.is_mean_pooled]
    if len(usable) < len(ways):
        note(f"{clip.config.name}: pools by a token of its own, so its map is in no space of texts: not named by dense")
    found, labels = _features(clip, source, count, usable, num_workers)
    said = [str(classes[label]) for label in labels.tolist()]
    targets = torch.tensor([place.get(name, -1) for name in said])
    is_known = torch.tensor([name in set(known) for name in said])
    if bool((targets < 0).any()):
        raise DataError(f"{source.name}: an object of {split} is of none of its classes; make the set anew")
    known_rows = torch.tensor([place[name] for name in known])
    among = torch.full((len(names),), -1)
    among[known_rows] = torch.arange(len(known_rows))
    run = model_facts(clip, clip.preprocess) | {"decoders": decoders(), "precision": "fp32", "prompts": list(prompts)}
    run |= {"data": content_hash(source), "samples": source.fingerprint(), "limit": limit}
    parts: list[tuple[str, Tensor, Tensor, Tensor]] = [(split, is_known, weights[known_rows], among[targets])]
    if not bool(is_known.all()):
        everything = torch.ones_like(is_known)
        parts += [(f"{split}:novel", ~is_known, weights, targets), (f"{split}:all", everything, weights, targets)]
    for way in usable:
        for name, chosen, candidates, wanted in parts:
            if bool(chosen.any()):
                ranks = target_ranks(similarity(found[way][chosen], candidates), wanted[chosen])
                rows += _rows(ranks, f"{model_name or clip.config.name} {way}", name, len(candidates), run)
    return rows


def read_dataset_split(data: str, split: str) -> dict[str, Any]:
    """What dataset.json says of a split. Raises DataError where there is no such split."""
    splits = read_dataset(Path(data))["splits"]
    if split not in splits:
        raise DataError(f"{data}: there is no split {split!r}; it has {', '.join(splits)}")
    return splits[split]


def _features(
    clip: Clip, source: Source, count: int, ways: Sequence[str], num_workers: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Unit features [R, D] of all boxes by every way, on the CPU, and their labels [R]."""
    device = clip.logit_scale.device
    found: dict[str, list[Tensor]] = {way: [] for way in ways}
    labels: list[Tensor] = []
    with evaluating(clip), torch.inference_mode():
        for pixels, boxes, images, some in _pictures(source, count, clip.image.stride, num_workers):
            pixels, boxes, images = pixels.to(device), boxes.to(device), images.to(device)
            labels.append(some)
            for way in ways:
                of_way = dense_features if way == "dense" else crop_features
                found[way].append(of_way(clip, pixels, boxes, images).float().cpu())
    return {way: torch.cat(parts) for way, parts in found.items()}, torch.cat(labels)


def dense_features(clip: Clip, pixels: Tensor, boxes: Tensor, images: Tensor) -> Tensor:
    """Unit features [R, D] of boxes in the dense map of whole pictures, as `box_means` takes them."""
    view = clip.image.at_size(*pixels.shape[2:])
    means = box_means(view.dense(pixels).float(), boxes, images, stride=view.stride)
    return F.normalize(clip.image.project(means), dim=-1)


def crop_features(clip: Clip, pixels: Tensor, boxes: Tensor, images: Tensor) -> Tensor:
    """Unit features [R, D] of the squares around boxes, as `crop_boxes` takes them, each looked at alone."""
    cut = crop_boxes(pixels, boxes, images, clip.image.image_size)
    return torch.cat([clip.image_features(part) for part in cut.split(256)])


def _pictures(
    source: Source, count: int, stride: int, num_workers: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Pictures of one size at a time: pixels [b, 3, H, W], boxes [R, 4], the picture of each [R], labels [R]."""

    def read(index: int) -> tuple[Tensor, SceneBoxes]:
        content, found = source.image_bytes(index), scene_boxes(source, index)
        return scene_pixels(content, stride), found

    with ThreadPoolExecutor(num_workers) as pool:
        jobs = pool.map(read, range(count))
        while part := list(islice(jobs, _PICTURES)):
            sizes = dict.fromkeys(tuple(pixels.shape) for pixels, _ in part)
            for size in sizes:
                alike = [one for one in part if tuple(one[0].shape) == size]
                images = torch.cat([torch.full((len(one.boxes),), row) for row, (_, one) in enumerate(alike)])
                pixels = torch.stack([pixels for pixels, _ in alike])
                yield pixels, torch.cat([o.boxes for _, o in alike]), images, torch.cat([o.labels for _, o in alike])


def scene_pixels(content: bytes, stride: int) -> Tensor:
    """uint8 [3, H, W] of a picture whose sides are multiples of the stride; others are refused.

    Boxes count in the picture's own pixels, so it is not resized. Raises DataError.
    """
    width, height = open_image(content, where="picture").size
    if width % stride or height % stride:
        raise DataError(f"pictures of {width} x {height}: expected sides that are multiples of {stride}; make them so")
    return evaluation_pixels(content, PreprocessConfig(image_size=(height, width), resize="squash"), mode="fast")


@lru_cache(maxsize=8)
def _places(classes: tuple[str, ...]) -> dict[str, int]:
    return {name: place for place, name in enumerate(classes)}


def _rows(ranks: Tensor, model: str, split: str, num_names: int, run: Mapping[str, Any]) -> Iterator[ResultRow]:
    for metric, k in (("acc1", 1), ("acc5", 5)):
        hits = int((ranks < k).sum())
        low, high = wilson_interval(hits, len(ranks))
        yield ResultRow(
            model=model,
            task=TASK,
            split=split,
            metric=metric,
            value=hits / len(ranks),
            low=low,
            high=high,
            n=len(ranks),
            chance=min(1.0, k / num_names),
            run=run,
        )
