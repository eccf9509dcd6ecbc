"""A small set of overlapping objects with everything a format may lose: parts, holes, a crowd, an empty picture."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyesmith.data.annotations import Annotations, Category, Objects, Picture
from eyesmith.data.annotations.masks import mask_box, mask_to_runs
from eyesmith.data.annotations.pictures import FolderPictures


@dataclasses.dataclass(frozen=True)
class Masks:
    """Objects by their masks: of each picture (label, is crowd, bool [H, W])."""

    pictures: tuple[tuple[tuple[int, bool, np.ndarray], ...], ...]
    sizes: tuple[tuple[int, int], ...]

    def __call__(self, index: int) -> Objects:
        rows = self.pictures[index]
        boxes = [mask_box(mask) for _, _, mask in rows]
        return Objects(
            xywh=np.array(boxes, np.float64).reshape(-1, 4),
            labels=np.array([label for label, _, _ in rows], np.int64),
            crowd=np.array([crowd for _, crowd, _ in rows], np.bool_),
            area=np.array([mask.sum() for _, _, mask in rows], np.float64),
            ids=np.arange(1, len(rows) + 1) + 100 * index,
            shapes=tuple(mask_to_runs(mask) for _, _, mask in rows),
            height=self.sizes[index][0],
            width=self.sizes[index][1],
        )


def made_set(folder: Path, seed: int = 0, *, crowds: bool = True, disjoint: bool = False) -> Annotations:
    """Four pictures of up to five blobs of three classes, and their files; the third is empty."""
    rng = np.random.default_rng(seed)
    sizes = tuple((int(h), int(w)) for h, w in rng.integers(6, 24, (4, 2)))
    pictures = []
    for index, (height, width) in enumerate(sizes):
        rows = []
        free = np.ones((height, width), np.bool_)
        for place in range(0 if index == 2 else int(rng.integers(1, 6))):
            low = rng.integers(0, (height, width))
            mask = np.zeros((height, width), np.bool_)
            mask[low[0] : low[0] + rng.integers(1, 9), low[1] : low[1] + rng.integers(1, 9)] = True
            mask &= rng.random(mask.shape) < rng.choice([0.8, 1.0])
            mask &= free if disjoint else True
            if mask.any():
                rows.append((int(rng.integers(3)), bool(crowds and place == 1), mask))
                free &= ~mask
        pictures.append(tuple(rows))
    folder.mkdir(parents=True, exist_ok=True)
    for index, (height, width) in enumerate(sizes):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(folder / f"p{index}.png")
    return Annotations(
        name="made",
        kind="instances",
        form="made",
        path=folder,
        categories=tuple(
            Category(id=10 * label + 1, name=name) for label, name in enumerate(["cat", "big dog", "été"])
        ),
        pictures=tuple(
            Picture(id=index + 1, file=f"p{index}.png", width=width, height=height)
            for index, (height, width) in enumerate(sizes)
        ),
        read=Masks(tuple(pictures), sizes),
        images=FolderPictures((folder,)),
    )


@pytest.fixture
def made(tmp_path: Path) -> Annotations:
    return made_set(tmp_path / "pictures")


@pytest.fixture(scope="session")
def make_set():
    """`made_set`, for tests that draw their own."""
    return made_set
