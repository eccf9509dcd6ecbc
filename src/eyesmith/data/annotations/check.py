"""What is wrong with a set of boxes or masks: what would cost objects, or give a number that means nothing."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

import numpy as np
from PIL import ExifTags

from eyesmith.data.annotations.maps import MapFiles
from eyesmith.data.annotations.masks import Polygons, segment_boxes
from eyesmith.data.annotations.panoptic import PanopticReader
from eyesmith.data.annotations.types import Annotations, Objects, Picture
from eyesmith.data.check import CheckReport
from eyesmith.data.sample import Finding, Severity
from eyesmith.errors import DataError, ImageError
from eyesmith.images.decode import image_size
from eyesmith.images.formats import open_header

_OUTSIDE_PX = 1.0  # a box may reach this far out by rounding
_DIFFERS_PX = 2.0  # box and mask may differ by this much
_VOID_VALUES = (0, 255, 65535)  # of maps, that nobody takes for a class by mistake
_MOST_VOID_FRAC = 0.5


def check_annotations(
    annotations: Annotations,
    *,
    pictures: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Read every object (and, with `pictures`, the head of every picture) and report what is wrong.

    Errors: unreadable (objects of a picture), missing_image, undecodable, size_differs (the picture has another size
    than its annotations say), exif_turned (it has once it is turned as its EXIF says), box_outside, empty_box,
    duplicate_id, duplicate_name, unknown_value (of a map of classes), all_void, unknown_segment (in a panoptic PNG and
    not in its JSON), missing_segment (the other way round), area_differs.
    Warnings: box_differs (from its mask), cut_by_a_pixel (outlines end at the last pixel's left or upper edge),
    duplicate_object, empty_category, parent_category (a class whose name is another's supercategory), no_objects,
    mostly_void, no_things (no category of a panoptic set is countable), no_stuff.
    """
    start = time.perf_counter()
    findings = list(_categories(annotations))
    seen_ids: dict[int, str] = {}
    counts = np.zeros(len(annotations.categories), np.int64)
    cut: list[str] = []
    num_outlines = 0
    for index, picture in enumerate(annotations.pictures):
        if pictures:
            findings += _picture(annotations, picture)
        try:
            objects = annotations.objects(index)
            findings += _map_findings(annotations, index, picture, objects)
        except DataError as error:
            findings.append(_finding("unreadable", "error", picture, str(error)))
            continue
        np.add.at(counts, objects.labels, 1)
        findings += _boxes(picture, objects)
        if annotations.kind == "instances":
            findings += _repeats(picture, objects, seen_ids)
            outlines = [shape for shape in objects.shapes if isinstance(shape, Polygons)]
            num_outlines += len(outlines)
            cut += [picture.file for shape in outlines if _ends_early(shape, objects)]
        if on_progress is not None:
            on_progress(index + 1, len(annotations))
    if len(cut) > max(2, 0.02 * num_outlines) and not _reach_the_edge(annotations):
        detail = (
            f"{len(cut):,} of {num_outlines:,} outlines end exactly one pixel before the right or lower edge and none "
            f"reaches it, such as in {cut[0]}: they were cut at width - 1"
        )
        findings.append(Finding("cut_by_a_pixel", "warning", "", "", detail))
    findings += _empty(annotations, counts)
    seconds = time.perf_counter() - start
    return CheckReport(
        path=str(annotations.path),
        splits={"": len(annotations)},
        findings=findings,
        seconds=seconds,
        images_per_s=len(annotations) / max(seconds, 1e-9),
    )


def _categories(annotations: Annotations) -> Iterator[Finding]:
    names = Counter(annotations.names)
    for name, number in names.items():
        if number > 1:
            detail = f"{number} categories are called {name!r}: their scores cannot be told apart"
            yield Finding("duplicate_name", "error", "", "categories", detail)
    children = defaultdict(list)
    for one in annotations.categories:
        if one.supercategory and one.supercategory != one.name:
            children[one.supercategory].append(one.name)
    for name in names:
        if name in children:
            detail = f"{name!r} is the parent of {', '.join(children[name][:5])} and a class of its own"
            yield Finding("parent_category", "warning", "", "categories", detail)
    if annotations.kind == "panoptic":
        for kind, wanted in (("no_things", True), ("no_stuff", False)):
            if all(one.is_thing is not wanted for one in annotations.categories):
                what = "countable (isthing 1)" if wanted else "stuff (isthing 0)"
                yield Finding(kind, "warning", "", "categories", f"no category is {what}")


def _picture(annotations: Annotations, picture: Picture) -> Iterator[Finding]:
    try:
        content = annotations.images.content(picture.file)
        height, width = image_size(content, where=picture.file)
    except ImageError as error:
        yield _finding("undecodable", "error", picture, str(error))
        return
    except DataError as error:
        yield _finding("missing_image", "error", picture, str(error))
        return
    with open_header(content, picture.file) as image:
        turn = image.getexif().get(ExifTags.Base.Orientation, 1)
    says = f"{picture.width} x {picture.height}"
    if (width, height) == (picture.width, picture.height):
        if turn in range(2, 9):
            detail = f"EXIF orientation {turn}: boxes are read for the picture as stored; were they drawn on it turned?"
            yield _finding("exif_orientation", "warning", picture, detail)
    elif turn >= 5 and (height, width) == (picture.width, picture.height):
        detail = f"{width} x {height} as stored, {says} once turned by EXIF orientation {turn}: the boxes are of that"
        yield _finding("exif_turned", "error", picture, f"{detail}; store the pictures turned")
    else:
        yield _finding("size_differs", "error", picture, f"{width} x {height}, the annotations say {says}")


def _boxes(picture: Picture, objects: Objects) -> Iterator[Finding]:
    left, top, width, height = objects.xywh.T
    outside = (left < -_OUTSIDE_PX) | (top < -_OUTSIDE_PX)
    outside |= (left + width > objects.width + _OUTSIDE_PX) | (top + height > objects.height + _OUTSIDE_PX)
    for place in np.flatnonzero(outside).tolist():
        box = ", ".join(f"{one:g}" for one in objects.xywh[place].tolist())
        detail = f"object {objects.ids[place]}: {box} (left, top, width, height) in {objects.width} x {objects.height}"
        yield _finding("box_outside", "error", picture, detail)
    for place in np.flatnonzero((width <= 0) | (height <= 0)).tolist():
        detail = f"object {objects.ids[place]}: {width[place]:g} x {height[place]:g} pixels"
        yield _finding("empty_box", "error", picture, detail)
    for place, shape in enumerate(objects.shapes):
        if isinstance(shape, Polygons) and not objects.crowd[place]:
            points = np.concatenate([part.reshape(-1, 2) for part in shape.parts])
            ends = np.concatenate([points.min(0), points.max(0)])
            given = np.array([left[place], top[place], left[place] + width[place], top[place] + height[place]])
            if (gap := float(np.abs(ends - given).max())) > _DIFFERS_PX:
                detail = f"object {objects.ids[place]}: box and outline differ by {gap:.1f} pixels"
                yield _finding("box_differs", "warning", picture, detail)


def _repeats(picture: Picture, objects: Objects, seen: dict[int, str]) -> Iterator[Finding]:
    for number in objects.ids.tolist():
        if number in seen:
            yield _finding("duplicate_id", "error", picture, f"object {number} is one of {seen[number]} too")
        seen[number] = picture.file
    rows: dict[tuple[float, ...], int] = {}
    for place, (label, box) in enumerate(zip(objects.labels.tolist(), objects.xywh.tolist(), strict=True)):
        first = rows.setdefault((label, *box), place)
        if first != place:
            detail = f"objects {objects.ids[first]} and {objects.ids[place]} have one class and one box"
            yield _finding("duplicate_object", "warning", picture, detail)


def _map_findings(annotations: Annotations, index: int, picture: Picture, objects: Objects) -> Iterator[Finding]:
    reader = annotations.read
    if isinstance(reader, PanopticReader):
        yield from _panoptic(reader, index, picture, objects)
    elif isinstance(reader, MapFiles):
        values, counts = np.unique(reader.values(index), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            if (
                reader.label(value) is None
                and value not in _VOID_VALUES
                and annotations.form in ("png", "voc", "ade20k")
            ):
                detail = f"value {value} ({count:,} pixels) is no class; values are {_span(reader)}"
                yield _finding("unknown_value", "error", picture, detail)
    void = annotations.void(index)
    if void is not None and void.all():
        yield _finding("all_void", "error", picture, "every pixel is void: it counts for nothing")
    elif void is not None and void.mean() > _MOST_VOID_FRAC:
        yield _finding("mostly_void", "warning", picture, f"{void.mean():.0%} of the pixels are void")


def _panoptic(reader: PanopticReader, index: int, picture: Picture, objects: Objects) -> Iterator[Finding]:
    values = reader.values(index)
    known = set(objects.ids.tolist())
    numbers, counts = np.unique(values, return_counts=True)
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        if number and number not in known:
            detail = f"segment {number} ({count:,} pixels) is in the PNG and not in the JSON"
            yield _finding("unknown_segment", "error", picture, detail)
    _, areas = segment_boxes(values, objects.ids.tolist())
    for number, given, area in zip(objects.ids.tolist(), objects.area.tolist(), areas.tolist(), strict=True):
        if not area:
            yield _finding("missing_segment", "error", picture, f"segment {number} is in the JSON and not in the PNG")
        elif given and given != area:
            detail = f"segment {number}: {area:,} pixels in the PNG, the JSON says {given:,.0f}"
            yield _finding("area_differs", "error", picture, detail)


def _empty(annotations: Annotations, counts: np.ndarray) -> Iterator[Finding]:
    if not counts.any():
        yield Finding("no_objects", "warning", "", "", "no picture has an object")
        return
    empty = [name for name, count in zip(annotations.names, counts.tolist(), strict=True) if not count]
    if empty:
        some = ", ".join(empty[:8]) + (", ..." if len(empty) > 8 else "")
        detail = f"{len(empty):,} of {len(counts):,} categories have no object: {some}"
        yield Finding("empty_category", "warning", "", "categories", detail)


def _ends_early(shape: Polygons, objects: Objects) -> bool:
    """Whether an outline ends at width - 1 or height - 1 to the digit."""
    last = np.concatenate([part.reshape(-1, 2) for part in shape.parts]).max(0)
    return last[0] == objects.width - 1 or last[1] == objects.height - 1


def _reach_the_edge(annotations: Annotations) -> bool:
    for objects in annotations:
        for shape in objects.shapes:
            if isinstance(shape, Polygons):
                last = np.concatenate([part.reshape(-1, 2) for part in shape.parts]).max(0)
                if last[0] > objects.width - 1 or last[1] > objects.height - 1:
                    return True
    return False


def _span(reader: MapFiles) -> str:
    known = sorted(reader.labels)
    return (
        f"{known[0]} to {known[-1]}"
        if known == list(range(known[0], known[-1] + 1))
        else ", ".join(map(str, known[:9]))
    )


def _finding(kind: str, severity: Severity, picture: Picture, detail: str) -> Finding:
    return Finding(kind, severity, str(picture.id), picture.file, detail)
