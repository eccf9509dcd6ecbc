"""`eyesmith segment`: which of some named things each pixel of a user's pictures shows."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

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
from eyesmith.dense.draw import draw_classes, draw_objects
from eyesmith.dense.segment import PictureSegmenter, is_segmenter, load_segmenter
from eyesmith.dense.segment.measure import measure
from eyesmith.dense.training_free import SegmentConfig, TrainingFreeSegmenter
from eyesmith.dense.training_free.measure import measure_segmentation
from eyesmith.dense.vocabulary import named
from eyesmith.dense.write import (
    VOID_VALUE,
    FoundIn,
    distinct_stems,
    write_image,
    write_png_masks,
    write_png_objects,
)
from eyesmith.errors import ConfigError
from eyesmith.eval.results import ResultRow, append_rows
from eyesmith.files import write_atomic
from eyesmith.hub.device import find_device
from eyesmith.images import collect_images
from eyesmith.models.clip import Clip

Truth = Annotated[
    Path | None, tyro.conf.arg(metavar="DATA", help="A set of pictures with masks, to measure instead of drawing.")
]


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
    or any other --classes; its overlays have a mask for each thing. With another model:

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
    if is_segmenter(model):
        if whole or background or threshold or name is not None or prompts is not None:
            raise ConfigError(
                "whole, background, threshold, name, prompts: a trained segmenter has its own; leave them out"
            )
        finder = load_segmenter(model, device=find_device(device))
        if source is not None:
            finder.predict = replace(finder.predict, source=source)
        return _trained(finder, images, classes, classes_file, truth, split, out, as_json=as_json)
    if source is not None:
        raise ConfigError(f"source: goes with the run folder of a segmenter, and {model} is none")
    config = SegmentConfig(
        path=look, sliding=not whole, short_side=scale, long_side=max(6.0, 3 * scale), threshold=threshold
    )
    where = find_device(device)
    ground = named(background) if background else []
    if truth is not None:
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
    asked = classes_of(classes, classes_file)
    stems = dict(zip(files := collect_images(images), distinct_stems(map(str, files)), strict=True))
    clip = load_model(model, name, where)
    vocabulary = vocabulary_of(clip, [*asked, *ground], prompts)
    segmenter = TrainingFreeSegmenter(clip, vocabulary, config)
    names = vocabulary.names[: len(asked)]
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "classes.txt", "".join(f"{one}\n" for one in names))
    told: list[dict[str, Any]] = []
    regions: list[FoundIn] = []
    for file, picture in each_picture(images, exif=clip.preprocess.exif):
        cells = segmenter(picture)
        found = cells.class_map().only(len(names))
        write_image(out / f"{stems[file]}.overlay.png", draw_classes(picture, found))
        write_png_masks(out / f"{stems[file]}.mask.png", found)
        least = max(1, round(cells.cell_px[0] * cells.cell_px[1] / 4))
        regions.append(FoundIn(str(file), found.objects(min_px=least)))
        parts = dict(zip(found.names, found.fractions().tolist(), strict=True))
        told.append({"image": str(file), "overlay": str(out / f"{stems[file]}.overlay.png"), "parts": parts})
    write_json_of(out, regions)
    if as_json:
        print_json({"out": str(out), "classes": list(names), "images": told})
        return 0
    rows = [(one["image"], _largest(one["parts"]), one["overlay"]) for one in told]
    print_table(("image", "classes, the largest first", "to look at"), rows)
    return 0


def _trained(
    finder: PictureSegmenter,
    images: tuple[str, ...],
    classes: str,
    classes_file: Path | None,
    truth: Path | None,
    split: str | None,
    out: Path,
    *,
    as_json: bool,
) -> int:
    """The same with a trained segmenter: its segments are objects, drawn and written as such."""
    if truth is not None:
        if images or classes or classes_file is not None:
            raise ConfigError("--truth brings its own pictures and classes; leave out IMAGE and --classes")
        rows = measure(finder, open_annotations(truth, split), (finder.predict.source,), model="segmenter")
        out.mkdir(parents=True, exist_ok=True)
        append_rows(out / "results.jsonl", rows)
        if as_json:
            print_json([asdict(one) for one in rows])
            return 0
        cells = [(one.split, one.metric, _percent(one.value), one.n) for one in rows]
        print_table(("classes", "measure", "%", "pictures"), cells, right=("%", "pictures"))
        return 0
    if classes or classes_file is not None:
        finder.use(classes_of(classes, classes_file))
    stems = dict(zip(files := collect_images(images), distinct_stems(map(str, files)), strict=True))
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "classes.txt", "".join(f"{one}\n" for one in finder.names))
    told: list[dict[str, Any]] = []
    results: list[FoundIn] = []
    for file, picture in each_picture(images, exif=finder.clip.preprocess.exif):
        found = finder(picture)
        objects = found.objects()
        write_image(out / f"{stems[file]}.overlay.png", draw_objects(picture, objects))
        if len(finder.names) <= VOID_VALUE:  # a PNG of bytes holds no more
            write_png_masks(out / f"{stems[file]}.mask.png", found.class_map())
        write_png_objects(out, stems[file], objects)
        results.append(FoundIn(str(file), objects))
        named = [
            {"name": finder.names[label], "score": round(score, 4)}
            for label, score in zip(objects.labels.tolist(), objects.scores.tolist(), strict=True)
        ]
        told.append({"image": str(file), "overlay": str(out / f"{stems[file]}.overlay.png"), "segments": named})
    write_json_of(out, results)
    if as_json:
        print_json({"out": str(out), "classes": list(finder.names), "images": told})
        return 0
    rows = [
        (one["image"], "   ".join(f"{s['name']} {100 * s['score']:.0f} %" for s in one["segments"][:5]), one["overlay"])
        for one in told
    ]
    print_table(("image", "segments, the surest first", "to look at"), rows)
    return 0


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
    return "   ".join(f"{name} {100 * part:.1f} %" for name, part in best if part > 0)
