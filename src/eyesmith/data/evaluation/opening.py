"""Opening an evaluation set by its path, whatever its layout is."""

import difflib
import itertools
import os
from pathlib import Path

from eyesmith.data.class_folders import SPLIT_FOLDERS
from eyesmith.data.evaluation.evaluation_set import LAYOUTS, EvaluationSet, Layout
from eyesmith.data.evaluation.names import CLASS_FILE
from eyesmith.data.evaluation.own import open_class_folders, open_own_table
from eyesmith.data.evaluation.tars import COUNT_FILE, TYPE_FILE, open_tars
from eyesmith.data.evaluation.video import VIDEO_EXTENSIONS, open_videos
from eyesmith.data.sample import IMAGE_EXTENSIONS
from eyesmith.data.table_rows import TABLE_EXTENSIONS
from eyesmith.errors import ConfigError, DataError

_MAX_LOOKED_AT = 2000


def open_evaluation_set(
    path: str | os.PathLike[str],
    *,
    layout: Layout | None = None,
    split: str = "test",
    prompts: str = "",
    class_list: str = "",
    is_strict: bool = True,
) -> EvaluationSet:
    """Open an evaluation set: the hub's folder of tar shards, class folders, folders of videos, or a table.

    layout: which one; when None it follows from dataset_type.txt and from what is there. split: the folder of shards
    (or class folders) inside. prompts, class_list: names in the installed packages, used where the folder has no
    templates or names of its own. With `is_strict` anything that would falsify a number is refused: a shard that is
    missing or cut, a label out of range, a sample without one, an empty class; else it is listed in `problems`.
    Raises DataError, and MissingDependencyError as `class_names` and PyAV do.
    """
    place = Path(path)
    if layout is not None and layout not in LAYOUTS:
        raise ConfigError(f"layout: expected one of {', '.join(LAYOUTS)}, got {layout!r}")
    if not place.exists():
        raise DataError(f"{place}: no such folder or file{_closest_sibling(place)}")
    if place.is_file():
        if place.suffix.lower() not in TABLE_EXTENSIONS:
            raise DataError(f"{place}: expected a folder, or a table ({', '.join(TABLE_EXTENSIONS)})")
        return open_own_table(place, is_strict=is_strict)
    folder, inside = _split_folder(place, split)
    if (inside / COUNT_FILE).is_file() or _has(inside, (".tar",)):
        return open_tars(folder, inside, layout=layout, prompts=prompts, class_list=class_list, is_strict=is_strict)
    if layout == "video" or (layout is None and _is_video_folder(folder, inside)):
        return open_videos(folder, inside, prompts=prompts, class_list=class_list, is_strict=is_strict)
    if layout not in (None, "classification", "retrieval"):
        raise DataError(
            f"{inside}: no {COUNT_FILE} and no shards; the layout {layout} is kept in tars (0.tar, 1.tar ...)"
        )
    if not any(inside.iterdir()):
        raise DataError(f"{inside}: the folder is empty")
    return open_class_folders(inside, names_from=folder, is_strict=is_strict)


def _split_folder(place: Path, split: str) -> tuple[Path, Path]:
    # the folder of the names, and the one of the samples
    if (place / COUNT_FILE).is_file():
        return place.parent, place
    if (place / split).is_dir():
        others = [entry.name for entry in place.iterdir() if entry.is_dir() and entry.name[0] != "."]
        if (
            (place / split / COUNT_FILE).is_file()
            or _has(place / split, (".tar",))
            or set(others) <= {*SPLIT_FOLDERS, split}
        ):
            return place, place / split
    elif (place / CLASS_FILE).is_file() and (place / TYPE_FILE).is_file():
        raise DataError(f"{place}: has names, but no folder {split!r} with the samples; fetch the set again")
    else:
        splits = sorted(entry.name for entry in place.iterdir() if (entry / COUNT_FILE).is_file())
        if splits:
            raise DataError(f"{place}: no split {split!r}; it has: {', '.join(splits)}")
    return place, place


def _is_video_folder(folder: Path, inside: Path) -> bool:
    if (folder / TYPE_FILE).is_file():
        return (folder / TYPE_FILE).read_text("utf-8", "replace").strip() == "video"
    images = tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)
    videos = tuple(f".{extension}" for extension in VIDEO_EXTENSIONS)
    files = [file.name.lower() for file in itertools.islice(inside.glob("*/*"), _MAX_LOOKED_AT)]
    return any(name.endswith(videos) for name in files) and not any(name.endswith(images) for name in files)


def _has(folder: Path, endings: tuple[str, ...]) -> bool:
    return any(file.name.endswith(endings) and file.name[0] != "." for file in folder.iterdir() if file.is_file())


def _closest_sibling(place: Path) -> str:
    if not place.parent.is_dir():
        return f" (nor {place.parent})"
    names = [entry.name for entry in itertools.islice(place.parent.iterdir(), _MAX_LOOKED_AT)]
    close = difflib.get_close_matches(place.name, names, n=1)
    return f" - did you mean {close[0]!r}?" if close else ""
