"""`eyesmith export`: a model as ONNX or torch.export files that need nothing of ours."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import tyro

from eyesmith.cli.dispatch import call
from eyesmith.cli.images import Model, ModelName
from eyesmith.cli.numbers import Written
from eyesmith.cli.output import AsJson, answer, print_json, print_table

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
    overwrite: bool = False,
    name: ModelName = None,
    as_json: AsJson = False,
) -> int:
    """Write a model's towers as files for other programs, with a card that says all they need.

    Every file is run and its features are compared with the model's before the folder appears.

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
        overwrite: Replace an exported model that is there.
    """
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
