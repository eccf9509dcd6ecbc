"""Miniature copies of the evaluation sets: a few drawn pictures each, in the exact layout on disk.

They let the whole protocol run without a download: to try a command, to test a pipeline, to see what a set looks like.
Numbers measured on them say nothing about a model. Class lists are the first few of the real ones (with their
traps: equal names in ImageNet, an empty name in CLEVR), templates are few, sizes and metadata groups small.
"""

import io
import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from eyesmith.config import closest
from eyesmith.data.make.miniature_sets import MINIATURES, Miniature
from eyesmith.data.make.shapes import COLORS, SHAPES
from eyesmith.data.shards import ShardWriter
from eyesmith.errors import ConfigError, MissingDependencyError
from eyesmith.files import atomic_path, write_atomic

_FRAME_PX = (64, 48)
_FRAMES = 5  # of a video: the middle one is number 2
_INSTANCES = ((5, 2), (6, 3), (10, 3), (12, 5), (10, 4), (12, 3), (5, 2), (12, 6))  # candidates and gold of WinoGAViL
_CUES = ("ocean", "Iron", "winter", "egg", "Speed", "umbrella", "night", "Apple")


def make_miniatures(
    root: str | os.PathLike[str], keys: Iterable[str] | None = None, *, seed: int = 0, as_files: bool = False
) -> dict[str, Path]:
    """Make miniature copies below `root`; returns the folder of each key. Equal arguments give equal bytes.

    keys: task keys, all of MINIATURES when None. as_files: videos as files (needs PyAV), else as folders of frames.
    Raises ConfigError for an unknown key.
    """
    chosen = list(MINIATURES) if keys is None else list(keys)
    for key in chosen:
        if key not in MINIATURES:
            raise ConfigError(f"no miniature of {key!r}{closest(key, MINIATURES)}")
    folders = {}
    for key in chosen:
        mini = MINIATURES[key]
        folder = Path(root) / mini.folder
        rng = np.random.default_rng([seed, list(MINIATURES).index(key)])
        if mini.has_classes:
            write_lines(folder / "classnames.txt", mini.lines(mini.classes))
            write_lines(folder / "zeroshot_classification_templates.txt", mini.lines(mini.templates))
        if mini.layout == "video":
            _write_videos(folder, mini, rng, as_files=as_files)
        elif mini.layout == "winogavil":
            _write_winogavil(folder, mini, rng)
        else:
            _write_tars(folder, mini, rng)
        if mini.type_word:
            write_atomic(folder / "dataset_type.txt", f"{mini.type_word}\n")
        folders[key] = folder
    return folders


def _write_tars(folder: Path, mini: Miniature, rng: np.random.Generator) -> None:
    labels = _labels(mini, rng)
    with ShardWriter(folder / "test", shard_samples=mini.shard_samples) as writer:
        for index, label in enumerate(labels):
            members = {mini.image_format: _encoded(_picture(label, index, mini.size_px, rng), mini.image_format)}
            if mini.layout == "classification":
                members["cls"] = str(label).encode()
            if mini.layout == "multilabel":
                members["npy"] = _npy(_marks(len(mini.classes), label, rng))
            elif mini.layout == "retrieval":
                members["txt"] = "\n".join(_captions(label, index)).encode()
            elif mini.columns:
                members["npy"] = _npy(_metadata(mini, index, label, rng))
            writer.write(f"s{index:07d}", members)


def _labels(mini: Miniature, rng: np.random.Generator) -> list[int]:
    # every class in turn, then shuffled: as in the real sets, labels do not follow the order of the samples
    count = len(mini.classes) if isinstance(mini.classes, tuple) and mini.classes else mini.size
    return rng.permutation(np.arange(mini.size) % count).tolist()


def _marks(count: int, label: int, rng: np.random.Generator) -> np.ndarray:
    marks = rng.random(count) < 0.25
    marks[label] = True
    return marks.astype(np.int64)


def _metadata(mini: Miniature, index: int, label: int, rng: np.random.Generator) -> np.ndarray:
    if mini.layout == "attributes":
        age, gender, race = (int(rng.integers(count)) for count in mini.groups[:3])
        return np.array([age, gender, race, int(race != 1)], dtype=np.int64)
    values = [int(rng.integers(count)) for count in mini.groups]
    # the first column, which the sets are grouped by, goes through all its values, the last one rare (FMoW's "Other")
    values[0] = mini.groups[0] - 1 if index == 3 else index % (mini.groups[0] - 1)
    return np.array([*values, label] if mini.columns[-1] == "y" else values, dtype=np.int64)


def _captions(label: int, index: int) -> list[str]:
    shape, color = _thing(label)
    captions = [
        f"a {color} {shape} in front of a blurred background",
        f"a {shape}",
        f"a picture of something {color}",
        f"picture number {index}: a {color} {shape}",
        "a drawn shape",
    ]
    return captions + [f"the {color} {shape}", f"one more {shape}"][: index % 3]


def _write_winogavil(folder: Path, mini: Miniature, rng: np.random.Generator) -> None:
    names = [f"{'_'.join(reversed(_thing(index)))}.jpg" for index in range(mini.size)]
    with ShardWriter(folder / "test", shard_samples=mini.shard_samples) as writer:
        for index, name in enumerate(names):
            picture = _picture(index, index, mini.size_px, rng)
            members = {mini.image_format: _encoded(picture, mini.image_format), "txt": name.encode()}
            writer.write(f"s{index:07d}", members)
    rows = []
    for cue, (count, gold) in zip(_CUES, _INSTANCES, strict=True):
        candidates = [names[place] for place in rng.permutation(mini.size)[:count]]
        rows.append({"cue": cue, "candidates": candidates, "associations": sorted(candidates[:gold])})
    write_lines(folder / "test" / "instances.jsonl", [json.dumps(row) for row in rows])


def _write_videos(folder: Path, mini: Miniature, rng: np.random.Generator, *, as_files: bool) -> None:
    for index, label in enumerate(_labels(mini, rng)):
        place = folder / "test" / list(mini.classes)[label].replace(" ", "_")
        frames = [_picture(label, 1, _FRAME_PX, rng) for _ in range(_FRAMES)]
        if as_files:
            _write_video(place / f"v{index:03d}.mp4", frames)
            continue
        (place / f"v{index:03d}").mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(frames):
            (place / f"v{index:03d}" / f"{number:05d}.jpg").write_bytes(_encoded(frame, "jpg"))


def _write_video(path: Path, frames: list[Image.Image]) -> None:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            "video files are written by PyAV: pip install 'eyesmith[video]', or make folders of frames"
        ) from error
    with atomic_path(path) as part, av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = frames[0].size
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())


def _thing(label: int) -> tuple[str, str]:
    shapes, colors = list(SHAPES), list(COLORS)
    return shapes[label % len(shapes)], colors[(label + label // len(shapes)) % len(colors)]


def _picture(label: int, number: int, size_px: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A shape that stands for the label on a blurred background; some are turned on their side, some are grey."""
    width, height = size_px if number % 4 else size_px[::-1]
    coarse = rng.integers(90, 235, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    shape, color = _thing(label)
    radius = rng.uniform(0.22, 0.36) * min(width, height)
    x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
    outline, hole = SHAPES[shape]
    mask = Image.new("L", image.size)
    pencil = ImageDraw.Draw(mask)
    pencil.polygon([(x + radius * px, y + radius * py) for px, py in outline], fill=255)
    if hole:
        pencil.polygon([(x + radius * px, y + radius * py) for px, py in hole], fill=0)
    image.paste(COLORS[color], (0, 0), mask.filter(ImageFilter.GaussianBlur(0.6)))
    return image.convert("L") if number % 7 == 5 else image


def _encoded(image: Image.Image, form: str) -> bytes:
    stream = io.BytesIO()
    if form == "jpg":
        image.save(stream, "JPEG", quality=88)
    elif form == "webp":
        image.convert("RGB").save(stream, "WEBP", lossless=True, method=0)
    else:
        image.save(stream, "PNG")
    return stream.getvalue()


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def write_lines(path: Path, lines: Collection[str]) -> None:
    """Text lines, each with a line end; an empty one stays an empty line."""
    write_atomic(path, "".join(f"{line}\n" for line in lines))
