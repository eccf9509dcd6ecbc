"""`eyesmith detect`: where named things are in a user's pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from PIL import Image

from eyesmith.cli.dispatch import call
from eyesmith.cli.images import Device, Images, Model, ModelName, load_model
from eyesmith.cli.numbers import Within
from eyesmith.cli.output import AsJson, print_json, print_table
from eyesmith.cli.places import (
    Classes,
    ClassesFile,
    Look,
    Out,
    PromptsName,
    classes_of,
    each_picture,
    vocabulary_of,
    write_json_of,
)
from eyesmith.data.annotations import Annotations, open_annotations
from eyesmith.dense.detect import Detections, ObjectDetector, is_detector, load_detector
from eyesmith.dense.detect.predict import Source
from eyesmith.dense.draw import draw_objects
from eyesmith.dense.result import FoundObjects, Objects
from eyesmith.dense.training_free import BoxFinder, RegionFinder, SegmentConfig
from eyesmith.dense.training_free.objects import given_boxes
from eyesmith.dense.vocabulary import Vocabulary
from eyesmith.dense.write import FoundIn, distinct_stems, write_image, write_png_objects
from eyesmith.errors import ConfigError
from eyesmith.hub.device import find_device
from eyesmith.images import collect_images
from eyesmith.images.decode import Exif, to_rgb
from eyesmith.models.clip import Clip

Boxes = Annotated[
    Path | None,
    tyro.conf.arg(
        metavar="FILE", help="Annotations with the boxes or masks to be named: COCO json, or a folder of another form."
    ),
]


Find = Callable[[Path, Image.Image], Objects]


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(detect, argv, prog=prog)


def detect(
    model: Model,
    images: Images,
    /,
    *,
    classes: Classes = "",
    classes_file: ClassesFile = None,
    out: Out = Path("found"),
    boxes: Boxes = None,
    crops: Literal["crop", "white", "vild", "ensemble"] | None = None,
    look: Look = "auto",
    scale: float = 2.0,
    source: Literal["detector", "dense", "crop"] | None = None,
    threshold: Annotated[float, Within(0, 1)] = 0.0,
    top: int = 100,
    prompts: PromptsName = None,
    name: ModelName = None,
    device: Device = None,
    as_json: AsJson = False,
) -> int:
    """Find named things in pictures: with a trained detector, or with any image-text model, without training.

    MODEL may be the run folder of a detector (`eyesmith train detect-emoji`), which finds what it was trained on, or
    any other --classes. With another model:

    With --boxes, each box or mask of FILE is cut out and named. Without, regions of a segmentation by the names are
    the objects, each cut out and looked at once more. DIR gets NAME.overlay.png (to look at), masks as black and white
    PNGs, and found.json in COCO's form.

    Args:
        crops: How objects are cut out: the box with a little around it (with --boxes the default), pasted on white by
            its mask (without), ViLD's box and one and a half times it, or crop and white together.
        scale: Without --boxes: shorter side of a picture in windows; more sees smaller things, and takes longer.
        source: With a detector: what names regions beside it: the eye's map (dense), each cut out (crop), or nothing.
        threshold: Objects with a lower probability are left out.
        top: Objects of a picture at most.
    """
    is_trained = is_detector(model)
    asked = [] if is_trained and not classes and classes_file is None else classes_of(classes, classes_file)
    if source is not None and not is_trained:
        raise ConfigError(f"source: goes with the run folder of a detector, and {model} is none")
    if top < 1:
        raise ConfigError(f"top: expected at least 1, got {top}")
    where = find_device(device)
    stems = dict(zip(files := collect_images(images), distinct_stems(map(str, files)), strict=True))
    if is_trained:
        if boxes is not None or crops is not None or name is not None or prompts is not None:
            raise ConfigError("boxes, crops, name, prompts: a trained detector has its own; leave them out")
        finder = load_detector(model, device=where)
        if asked:
            finder.use(asked)
        find, names, exif = _trained(finder, source, threshold), finder.names, finder.clip.preprocess.exif
        return _search(images, stems, find, names, out, top, exif=exif, as_json=as_json)
    given = None if boxes is None else open_annotations(boxes)
    clip = load_model(model, name, where)
    vocabulary = vocabulary_of(clip, asked, prompts)
    find = _named_boxes(clip, vocabulary, given, crops or "crop", threshold) if given is not None else None
    if find is None:
        config = SegmentConfig(path=look, short_side=scale, long_side=max(6.0, 3 * scale))
        regions = RegionFinder(clip, vocabulary, config, crops=crops or "white", threshold=threshold, limit=top)
        find = lambda _file, picture: regions(picture)  # noqa: E731
    # boxes of a file are of pictures as they are stored
    exif = clip.preprocess.exif if given is None else "ignore"
    return _search(images, stems, find, vocabulary.names, out, top, exif=exif, as_json=as_json)


def _search(
    images: tuple[str, ...],
    stems: dict[Path, str],
    find: Find,
    names: tuple[str, ...],
    out: Path,
    top: int,
    *,
    exif: Exif,
    as_json: bool,
) -> int:
    """Search every picture and write what is found."""
    out.mkdir(parents=True, exist_ok=True)
    results: list[FoundIn] = []
    for file, picture in each_picture(images, exif=exif):
        found = find(file, picture)
        found = found[found.scores.argsort(descending=True, stable=True)[:top]]
        write_image(out / f"{stems[file]}.overlay.png", draw_objects(picture, found))
        write_png_objects(out, stems[file], found)
        results.append(FoundIn(str(file), found))
    write_json_of(out, results)
    overlays = {one.file: str(out / f"{stems[Path(one.file)]}.overlay.png") for one in results}
    if as_json:
        told = [{"image": one.file, "overlay": overlays[one.file], "objects": _objects(one.found)} for one in results]
        print_json({"out": str(out), "classes": list(names), "images": told})
        return 0
    rows = [(one.file, _surest(one.found), overlays[one.file]) for one in results]
    print_table(("image", "found, the surest first", "to look at"), rows)
    return 0


def _trained(finder: ObjectDetector, source: Source | None, threshold: float) -> Find:
    if source is not None:
        finder.predict = finder.predict.looking_at(source)

    def find(_file: Path, picture: Image.Image) -> Detections:
        found = finder(picture)
        return found[found.scores >= threshold]

    return find


def _named_boxes(
    clip: Clip, vocabulary: Vocabulary, given: Annotations, crops: str, threshold: float
) -> Callable[[Path, Image.Image], FoundObjects]:
    finder = BoxFinder(clip, vocabulary, crops=crops, threshold=threshold)

    def find(file: Path, picture: Image.Image) -> FoundObjects:
        places, masks = given_boxes(given, file)
        return finder(np.asarray(to_rgb(picture)), places, masks=masks)  # pixels alone, which nothing turns

    return find


def _objects(found: Objects) -> list[dict[str, Any]]:
    return [
        {"name": found.names[label], "score": score, "box": box}
        for label, score, box in zip(found.labels.tolist(), found.scores.tolist(), found.boxes_px.tolist(), strict=True)
    ]


def _surest(found: Objects, count: int = 5) -> str:
    shown = [f"{one['name']} {100 * one['score']:.0f} %" for one in _objects(found)[:count]]
    rest = len(found.scores) - count
    more = f"and {rest} more" if rest > 0 else ""
    return "   ".join([*shown, more] if more else shown) or "nothing"
