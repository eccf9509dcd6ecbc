"""`eyesmith export`: a model as ONNX or torch.export files that need nothing of ours."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from eyesmith.cli.dispatch import call
from eyesmith.cli.images import Model, ModelName
from eyesmith.cli.numbers import Written
from eyesmith.cli.output import AsJson, answer, print_json, print_table
from eyesmith.cli.places import Classes, ClassesFile, classes_of
from eyesmith.errors import ConfigError

if TYPE_CHECKING:
    from eyesmith.hub.export import ExportTarget

Out = Annotated[
    tyro.conf.Positional[Path], Written("folder"), tyro.conf.arg(metavar="FOLDER", help="The folder to write.")
]


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(export, argv, prog=prog)


def export(
    model: Model,
    out: Out,
    /,
    *,
    to: Literal["onnx", "onnx_int8", "torch_export"] = "onnx",
    part: Literal["image", "text", "both"] = "both",
    image_size: tuple[int, int] | None = None,
    dynamic_size: bool = False,
    pixels: Literal["uint8", "float32"] = "uint8",
    raw: bool = False,
    opset: int = 18,
    external_data: bool = False,
    images: tuple[str, ...] = (),
    classes: Classes = "",
    classes_file: ClassesFile = None,
    source: Literal["detector", "dense"] | None = None,
    overwrite: bool = False,
    name: ModelName = None,
    as_json: AsJson = False,
) -> int:
    """Write a model's towers as files for other programs, with a card that says all they need.

    Every file is run and compared with the model before the folder appears. MODEL may be the run folder of a detector,
    which becomes one ONNX file from pixels to boxes, for the names it was trained on or --classes.

    Args:
        to: onnx: fp32. onnx_int8: 8-bit products for CPUs, written only if it is faster on this machine. torch_export:
            .pt2 files for PyTorch.
        part: Which towers; each is a file.
        image_size: Height and width in pixels, else the model's own; a position table is resampled.
        dynamic_size: Any image size that is a multiple of the stride (ViTamin-XL only).
        pixels: uint8: RGB bytes, normalised inside. float32: normalised by you.
        raw: Features before they are made unit vectors.
        opset: ONNX operator set.
        external_data: Weights in a file beside the ONNX file; always so from 1 GiB on.
        images: Your images (files, folders, patterns) to compare with.
        source: With a detector: what names regions beside it: the eye's map (dense), or nothing.
        overwrite: Replace an exported model that is there.
    """
    from eyesmith.dense.detect import is_detector
    from eyesmith.dense.segment import is_segmenter
    from eyesmith.hub import load
    from eyesmith.hub.export import ExportTarget, export_model
    from eyesmith.images.collect import collect_images

    target = ExportTarget(
        format=to,
        part=part,
        is_dynamic_size=dynamic_size,
        pixels=pixels,
        is_unit=not raw,
        opset=opset,
        external_data=external_data,
    )
    if is_segmenter(model):
        raise ConfigError(f"{model}: a segmenter cannot be exported; export its eye, {model}/eye, or a detector")
    if is_detector(model):
        if image_size is not None or raw or name is not None:
            raise ConfigError("image_size, raw, name: a detector has its own; leave them out")
        return _detector(model, out, target, classes, classes_file, source, images, overwrite, as_json)
    if classes or classes_file is not None or source is not None:
        raise ConfigError(f"classes, source: go with the run folder of a detector, and {model} is none")
    report = export_model(
        load(model, name=name, image_size=image_size),
        out,
        target,
        name=name or "",
        images=collect_images(images) if images else (),
        overwrite=overwrite,
    )
    if as_json:
        rows = [asdict(row) for row in report.rows]
        made = {"out": str(out), "files": report.files, "parity": rows}
        print_json(made if to != "onnx_int8" else made | {"speed": report.speed, "agreement": report.agreement})
        return 0
    print_table(
        ("tower", "batch", "samples", "largest difference", "smallest cosine"),
        [(r.part, r.batch, r.samples, f"{r.max_difference:.1e}", f"{r.min_cosine:.6f}") for r in report.rows],
        right=("batch", "samples", "largest difference", "smallest cosine"),
    )
    for tower, ratio in report.speed.items():
        answer(f"{tower}: {ratio:.2f} times the speed of the fp32 file here, one row at a time")
    if report.agreement is not None:
        answer(f"same best class as the model's: {report.agreement:.1%} of the pictures")
    answer(f"{out}: {', '.join(report.files)}")
    return 0


def _detector(
    model: str,
    out: Path,
    target: "ExportTarget",
    classes: str,
    classes_file: Path | None,
    source: Literal["detector", "dense"] | None,
    images: tuple[str, ...],
    overwrite: bool,
    as_json: bool,
) -> int:
    from eyesmith.dense.detect import load_detector
    from eyesmith.dense.detect.export import export_detector
    from eyesmith.images.collect import collect_images

    finder = load_detector(model)
    if classes or classes_file is not None:
        finder.use(classes_of(classes, classes_file))
    if source is not None:
        finder.predict = finder.predict.looking_at(source)
    given = collect_images(images) if images else ()
    report = export_detector(finder, out, target, name=Path(model).name, images=given, overwrite=overwrite)
    if as_json:
        facts = asdict(report) | {"classes": list(finder.names)}
        del facts["folder"]
        print_json({"out": str(out), **facts})
        return 0
    answer(
        f"{report.equal_frac:.1%} equal: what the detector and the file find in {report.pictures} pictures "
        f"({report.detections:,} detections)"
    )
    answer(f"{out}: {', '.join(report.files)}")
    return 0
