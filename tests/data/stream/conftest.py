import io
import json
import tarfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Member = tuple[str, bytes]


@cache
def picture(number: int) -> bytes:
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    stream = io.BytesIO()
    small.resize((40, 32), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def sample(key: str, number: int, **members: bytes) -> list[Member]:
    """An image, a caption and img2dataset's facts; members replace or add, b"" leaves one out."""
    facts = json.dumps({"key": key, "caption": f"from json {number}", "width": 40}).encode()
    parts = {"jpg": picture(number % 7), "json": facts, "txt": f"caption {number}".encode(), **members}
    return [(f"{key}.{name}", content) for name, content in parts.items() if content]


def write_tar(path: Path, members: Sequence[Member]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def shards(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of shards: `sizes` samples in each, keys numbered through."""

    def make(*sizes: int, name: str = "pairs", start: int = 0) -> Path:
        folder = tmp_path / name
        number = start
        for shard, size in enumerate(sizes):
            members = [part for at in range(number, number + size) for part in sample(f"{at:09d}", at)]
            write_tar(folder / f"{shard:05d}.tar", members)
            number += size
        return folder

    return make


@pytest.fixture
def tar() -> Callable[..., Path]:
    return write_tar


@pytest.fixture
def pair() -> Callable[..., list[Member]]:
    return sample
