"""`eyesmith segment`: which of some named things each pixel of a user's pictures shows."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from PIL import Image

from eyesmith.cli.dispatch import call
from eyesmith.cli.images import Device, Images, Model, ModelName, load_model
from eyesmith.cli.numbers import Within
from eyesmith.cli.output import AsJson, messages, print_json, print_table
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
from eyesmith.dense.draw import draw_classes
from eyesmith.dense.result import ClassMap, FoundObjects
from eyesmith.dense.segment.picture_segmenter import PictureSegmenter
from eyesmith.dense.segment.run_folder import is_segmenter, load_segmenter
from eyesmith.dense.segment.segments import segments_found
from eyesmith.dense.training_free import SegmentConfig, TrainingFreeSegmenter
from eyesmith.dense.training_free.measure import measure_segmentation
from eyesmith.dense.vocabulary import named
from eyesmith.dense.write import VOID_VALUE, FoundIn, distinct_stems, write_image, write_png_masks
from eyesmith.errors import ConfigError
from eyesmith.eval.results import ResultRow, append_rows
from eyesmith.files import write_atomic
from eyesmith.hub.device import find_device
from eyesmith.images import collect_images
from eyesmith.models.clip import Clip

Truth = Annotated[
    Path | None, tyro.conf.arg(metavar="DATA", help="A set of pictures with masks, to measure instead of drawing.")
]


Find = Callable[[Image.Image], tuple[ClassMap, FoundObjects]]


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(segment, argv, prog=prog)


def segment(
    model: Model,
    images: Images,
    /,
    *,
    classes: Classes = "",
    classes_file: ClassesFile = None,
    out: Out = Path("found"),
    truth: Truth = None,
    split: str | None = None,
    look: Look = "auto",
    whole: bool = False,
    scale: float = 2.0,
    threshold: Annotated[float, Within(0, 1)] = 0.0,
    background: str = "",
    source: Literal["head", "dense", "crop"] | None = None,
    prompts: PromptsName = None,
    name: ModelName = None,
    device: Device = None,
    as_json: AsJson = False,
) -> int:
    """Outline named things in pictures: with a trained segmenter, or with any image-text model, without training.

    MODEL may be the run folder of a segmenter (`eyesmith train segment-emoji`), which outlines what it was trained on,
    or any other --classes.

    With --truth, how well a set is segmented: mean IoU of its classes, into DIR/results.jsonl. Else, for each picture,
    DIR gets NAME.overlay.png (to look at) and NAME.mask.png (the class of each pixel: its place in
    classes.txt from 0, 255 for none); found.json has the regions in COCO's form.

    Args:
        split: Of the set.
        whole: The whole picture at once, instead of windows of the size the model was trained at.
        scale: Shorter side of a picture in windows; more sees smaller things, and takes longer.
        threshold: Pixels whose likeliest class has a lower probability belong to none.
        background: Words, by commas, whose pixels belong to none: wall,sky,texture.
        source: With a segmenter: what names masks beside it: the eye's map (dense), each cut out (crop), or nothing.
    """
    if source is not None and not is_segmenter(model):
        raise ConfigError(f"source: goes with the run folder of a segmenter, and {model} is none")
    config = SegmentConfig(
        path=look, sliding=not whole, short_side=scale, long_side=max(6.0, 3 * scale), threshold=threshold
    )
    where, is_trained = find_device(device), is_segmenter(model)
    ground = named(background) if background else []
    if truth is not None:
        if is_trained:
            raise ConfigError(f"truth: a trained segmenter is measured by its run; see {model}/results.jsonl")
        if images or classes or classes_file is not None:
            raise ConfigError("--truth brings its own pictures and classes; leave out IMAGE and --classes")
        clip = load_model(model, name, where)
        rows = _measured(clip, open_annotations(truth, split), config, prompts, [one[0] for one in ground])
        out.mkdir(parents=True, exist_ok=True)
        append_rows(out / "results.jsonl", rows)
        if as_json:
            print_json([asdict(one) for one in rows])
            return 0
        cells = [
            (one.split, _percent(one.value), f"{_percent(one.low)} to {_percent(one.high)}", one.n) for one in rows
        ]
        print_table(("classes", "mIoU %", "95 %", "pictures"), cells, right=("mIoU %", "pictures"))
        return 0
    asked = [] if is_trained and not classes and classes_file is None else classes_of(classes, classes_file)
    stems = dict(zip(files := collect_images(images), distinct_stems(map(str, files)), strict=True))
    if is_trained:
        if background or name is not None or prompts is not None:
            raise ConfigError("background, name, prompts: a trained segmenter has its own; leave them out")
        trained = load_segmenter(model, device=where)
        trained.use(asked or None)
        if source is not None:
            trained.predict = replace(trained.predict, source=source)
        find, names, exif = _of_trained(trained, threshold), trained.names, trained.clip.preprocess.exif
    else:
        clip = load_model(model, name, where)
        vocabulary = vocabulary_of(clip, [*asked, *ground], prompts)
        names, exif = vocabulary.names[: len(asked)], clip.preprocess.exif
        find = _training_free(TrainingFreeSegmenter(clip, vocabulary, config), len(asked))
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "classes.txt", "".join(f"{one}\n" for one in names))
    told: list[dict[str, Any]] = []
    regions: list[FoundIn] = []
    for file, picture in each_picture(images, exif=exif):
        found, objects = find(picture)
        write_image(out / f"{stems[file]}.overlay.png", draw_classes(picture, found))
        if len(names) <= VOID_VALUE:  # a PNG of bytes holds no more; found.json has them all
            write_png_masks(out / f"{stems[file]}.mask.png", found)
        regions.append(FoundIn(str(file), objects))
        parts = dict(zip(found.names, found.fractions().tolist(), strict=True))
        told.append({"image": str(file), "overlay": str(out / f"{stems[file]}.overlay.png"), "parts": parts})
    write_json_of(out, regions)
    if as_json:
        print_json({"out": str(out), "classes": list(names), "images": told})
        return 0
    rows = [(one["image"], _largest(one["parts"]), one["overlay"]) for one in told]
    print_table(("image", "classes, the largest first", "to look at"), rows)
    return 0


def _training_free(segmenter: TrainingFreeSegmenter, num_classes: int) -> Find:
    def find(picture: Image.Image) -> tuple[ClassMap, FoundObjects]:
        cells = segmenter(picture)
        found = cells.class_map().only(num_classes)
        least = max(1, round(cells.cell_px[0] * cells.cell_px[1] / 4))
        return found, found.objects(min_px=least)

    return find


def _of_trained(segmenter: PictureSegmenter, threshold: float) -> Find:
    def find(picture: Image.Image) -> tuple[ClassMap, FoundObjects]:
        found = segmenter(picture)
        return segments_found(found.panoptic, found.names, threshold=threshold)

    return find


def _measured(
    clip: Clip, truth: Annotations, config: SegmentConfig, prompts: str | None, background: list[str]
) -> list[ResultRow]:
    from eyesmith.train.callbacks.progress import progress

    with progress(messages(), "pictures", len(truth), unit="image") as advance:
        return measure_segmentation(clip, truth, config, prompts=prompts, background=background, advance=advance)


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:.1f}"


def _largest(parts: dict[str, float], count: int = 5) -> str:
    best = sorted(parts.items(), key=lambda one: -one[1])[:count]
    return "   ".join(f"{name} {100 * part:.1f} %" for name, part in best if part > 0) or "nothing"
