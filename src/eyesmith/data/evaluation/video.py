"""Zero-shot video: one class folder a class, a video (file, or folder of frames) a sample, its middle frame the image.

The middle of n frames is frame n // 2, counted from 0. Source: the protocol that EVA-01 and EVA-CLIP state for their
zero-shot video tables; EVA-02's Table 11 follows it.
"""

import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eyesmith.data.evaluation.evaluation_set import EvaluationSet
from eyesmith.data.evaluation.names import CLASS_FILE, TEMPLATE_FILE, class_names, templates_for
from eyesmith.data.evaluation.tars import refuse_errors
from eyesmith.data.file_source import FileSource, Record
from eyesmith.data.sample import IMAGE_EXTENSIONS, Finding
from eyesmith.data.sources import natural_key
from eyesmith.data.text import read_lines
from eyesmith.errors import DataError, ImageError, MissingDependencyError
from eyesmith.images import MAX_PIXELS

if TYPE_CHECKING:
    from av.container import InputContainer

VIDEO_EXTENSIONS = ("mp4", "avi", "mkv", "webm", "mov", "m4v", "mpg", "mpeg")

# FFmpeg goes by content, and some of what it knows are lists of other files and addresses (concat, HLS, DASH, SDP) or
# programs (AviSynth): only containers that hold their own pictures are opened, and those open nothing further.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv"


class VideoSource(FileSource):
    """Middle frames of videos; of a video file it is decoded when asked for, and given as a PPM picture."""

    def image_bytes(self, index: int) -> bytes:
        record = self._records[index]
        if isinstance(record.image, Path) and is_video(record.image):
            return _ppm(middle_frame(record.image))
        return super().image_bytes(index)


def open_videos(
    folder: Path, classes_in: Path, *, prompts: str = "", class_list: str = "", is_strict: bool = True
) -> EvaluationSet:
    """Open `classes_in`, a folder of class folders of videos; names and templates lie in `folder`.

    Class folders in sorted order are the labels; classnames.txt gives them other names, one line each. A sub-folder of
    a class folder is one video, its pictures in natural order the frames. Raises DataError as `open_evaluation_set`.
    """
    places = sorted(place for place in classes_in.iterdir() if place.is_dir() and place.name[0] != ".")
    if len(places) < 2:
        raise DataError(f"{classes_in}: expected a folder of videos for each of two or more classes, got {len(places)}")
    names = _names(folder, places, class_list)
    records: list[Record] = []
    problems: list[Finding] = []
    for place in places:
        videos = sorted(
            entry for entry in place.iterdir() if entry.name[0] != "." and (entry.is_dir() or is_video(entry))
        )
        if not videos:
            detail = "a class folder without videos; add some or delete the folder"
            problems.append(Finding("empty_class", "error", "", f"{place.name}/", detail))
        for video in videos:
            key = video.relative_to(classes_in).as_posix()
            image: Path | None = video
            if video.is_dir():
                frames = _frames(video)
                image = frames[len(frames) // 2] if frames else None
            if image is None:
                problems.append(Finding("missing_image", "error", key, key, "a folder without frames"))
            else:
                records.append(Record(key, image, image.stat().st_size, (), key, place.name))
    source = VideoSource(
        records,
        name=folder.name,
        classes=[place.name for place in places],
        class_texts=names,
        problems=problems,
        require_text=False,
    )
    templates = folder / TEMPLATE_FILE
    found = EvaluationSet(
        name=folder.name,
        path=folder,
        layout="video",
        source=source,
        classes=tuple(names),
        templates=tuple(filter(None, read_lines(templates)))
        if templates.is_file()
        else templates_for(prompts)
        if prompts
        else (),
        labels=np.array(source.labels, dtype=np.int64),
        problems=tuple(problems),
    )
    if is_strict:
        refuse_errors(found)
    return found


def is_video(path: Path) -> bool:
    """Whether the name ends like that of a video file."""
    return path.suffix.lower().removeprefix(".") in VIDEO_EXTENSIONS


def middle_frame(path: Path) -> NDArray[np.uint8]:
    """Frame n // 2 of a video file of n frames, [H, W, 3] uint8 RGB.

    Where the container says when each frame is shown (mp4, mkv, webm), only what leads from a key frame to the middle
    is decoded; else (avi) all of it. Only what lies in the file is read. Raises ImageError for a file that is no video
    of a known container, damaged, or of more than MAX_PIXELS a frame, MissingDependencyError without PyAV.
    """
    try:
        from av.error import FFmpegError
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: video files are read by PyAV: pip install 'eyesmith[video]', or give folders of frames"
        ) from error
    try:
        pixels = _seek_middle(path)
        return _count_to_middle(path) if pixels is None else pixels
    except (FFmpegError, OSError, ValueError) as error:
        raise ImageError(f"{path}: not a readable video: {error}") from error


@contextmanager
def _container(path: Path) -> Iterator["InputContainer"]:
    import av

    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block for ever
        raise ImageError(f"{path}: expected a video file, this is a folder or a device")
    bounds = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"}
    frames = {"max_pixels": str(MAX_PIXELS)}
    # by an open file and not by its name: FFmpeg takes "concat:a|b.mp4" and the like for an address
    with path.open("rb") as stream, av.open(stream, "r", container_options=bounds, options=frames) as container:
        for video in container.streams.video:
            video.codec_context.options = frames
        yield container


def _seek_middle(path: Path) -> NDArray[np.uint8] | None:
    """The middle frame found by its time; None where times are missing or the container cannot go to one."""
    with _container(path) as container:
        if not container.streams.video:
            raise ImageError(f"{path}: no video stream")
        stream = container.streams.video[0]
        packets = [(one.pts, one.dts, one.is_keyframe) for one in container.demux(stream) if one.size]
        times = sorted(shown for shown, _, _ in packets if shown is not None)
        if len(times) != len(packets) or not times:
            return None
        middle = times[len(times) // 2]
        # a key frame that is shown no later than the middle: frames shown before their key frame need the one before
        starts = [(shown, read) for shown, read, is_key in packets if is_key and shown is not None and shown <= middle]
        start = max(starts)[1] if starts else None
        if start is None:
            return None
        container.seek(start, stream=stream, backward=True)
        for frame in container.decode(stream):
            if frame.pts == middle:
                return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
            if frame.pts is None or frame.pts > middle:
                break
    return None


def _count_to_middle(path: Path) -> NDArray[np.uint8]:
    with _container(path) as container:
        count = sum(1 for _ in container.decode(video=0))
    if count == 0:
        raise ImageError(f"{path}: a video without frames")
    with _container(path) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number == count // 2:
                return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
    raise ImageError(f"{path}: its {count} frames could be decoded once, not twice")


def _ppm(pixels: NDArray[np.uint8]) -> bytes:
    return b"P6 %d %d 255\n" % (pixels.shape[1], pixels.shape[0]) + np.ascontiguousarray(pixels).tobytes()


def _frames(folder: Path) -> list[Path]:
    files = (file for file in folder.iterdir() if file.suffix.lower().removeprefix(".") in IMAGE_EXTENSIONS)
    return sorted((file for file in files if file.name[0] != "."), key=lambda file: natural_key(file.name))


def _names(folder: Path, places: Sequence[Path], class_list: str) -> Sequence[str]:
    file = folder / CLASS_FILE
    if file.is_file():
        names = read_lines(file)
    elif class_list:
        names = class_names(class_list)
    else:
        return [place.name.replace("_", " ") for place in places]
    if len(names) != len(places):
        raise DataError(f"{file}: {len(names)} names for {len(places)} class folders, expected one for each, sorted")
    return names
