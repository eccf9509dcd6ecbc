"""Small data sets on disk, written without our own writer."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def _picture(number: int, size: tuple[int, int] = (24, 20), form: str = "png", seed: int = 0) -> bytes:
    # coarse noise: distinct pictures that stay distinct as thumbnails
    cells = np.random.default_rng([number, seed]).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(cells).resize(size, Image.Resampling.NEAREST).save(stream, form)
    return stream.getvalue()


def _tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def _members(number: int, split: str = "train", *, label: int = 0) -> dict[str, bytes]:
    key = f"{split}-{number}"
    meta = {"concept": "fox", "texts": ["a red fox", "a drawing of a fox"]}
    return {
        f"{key}.png": _picture(number, seed=len(split)),
        f"{key}.txt": b"a red fox",
        f"{key}.cls": str(label).encode(),
        f"{key}.json": json.dumps(meta).encode(),
    }


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """Encoded picture of a number: picture(number, size=(width, height), form="png", seed=0)."""
    return _picture


@pytest.fixture
def write_tar() -> Callable[[Path, dict[str, bytes]], Path]:
    return _tar


@pytest.fixture
def members() -> Callable[..., dict[str, bytes]]:
    """The four members of a sample: members(number, split, label=0)."""
    return _members


@pytest.fixture
def made(tmp_path) -> Path:
    """A made data set: train (2 shards of 3) and unseen_drawing (1 shard of 2), three classes."""
    folder = tmp_path / "made"
    for split, shards in (("train", [[0, 1, 2], [3, 4, 5]]), ("unseen_drawing", [[0, 1]])):
        for shard, numbers in enumerate(shards):
            parts: dict[str, bytes] = {}
            for number in numbers:
                parts |= _members(number, split, label=number % 3)
            _tar(folder / split / f"{shard}.tar", parts)
        (folder / split / "nshards.txt").write_text(f"{len(shards)}\n")
    (folder / "classnames.txt").write_text("fox\n\nhound\n", encoding="utf-8")
    (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\n")
    splits = {"train": {"samples": 6, "shards": 2}, "unseen_drawing": {"samples": 2, "shards": 1}}
    facts = {"name": "made", "classes": ["fox", "", "hound"], "splits": splits}
    (folder / "dataset.json").write_text(json.dumps(facts))
    return folder
