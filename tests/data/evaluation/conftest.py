"""Evaluation sets on disk, written without our own writer."""

import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteSet = Callable[..., Path]


def _picture(number: int, form: str = "PNG") -> bytes:
    cells = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(cells).resize((40, 32), Image.Resampling.NEAREST).save(stream, form)
    return stream.getvalue()


def _npy(values: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(values))
    return stream.getvalue()


def _write_set(
    folder: Path,
    shards: Sequence[Sequence[Mapping[str, bytes]]],
    *,
    classes: str | None = "fox\n\nhound\n",
    templates: str | None = "a photo of a {c}.\nart of the {c}.\n",
    kind: str | None = None,
    count: str | None = "",
    split: str = "test",
) -> Path:
    place = folder / split
    place.mkdir(parents=True)
    number = 0
    for index, samples in enumerate(shards):
        with tarfile.open(place / f"{index}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for members in samples:
                for extension, content in members.items():
                    info = tarfile.TarInfo(f"s{number:07d}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                number += 1
    if count is not None:
        (place / "nshards.txt").write_text(count or f"{len(shards)}\n")
    for name, text in (
        ("classnames.txt", classes),
        ("zeroshot_classification_templates.txt", templates),
        ("dataset_type.txt", kind),
    ):
        if text is not None:
            (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """An encoded picture of a number: picture(3, "JPEG")."""
    return _picture


@pytest.fixture
def npy() -> Callable[[object], bytes]:
    return _npy


@pytest.fixture
def write_set() -> WriteSet:
    """write_set(folder, [[{"png": ..., "cls": ...}, ...], ...]) writes shards with numbered keys and the text files."""
    return _write_set


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Two shards of 3 and 2 samples; classes fox, "", hound; labels 0 1 2 0 2."""
    samples = [{"png": _picture(number), "cls": str(label).encode()} for number, label in enumerate((0, 1, 2, 0, 2))]
    return _write_set(tmp_path / "wds_own_test", [samples[:3], samples[3:]])
