"""Pictures with what was found in them: objects and detections outlined and numbered, and a list of what they are."""

import base64
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from eyesmith.data.annotations import Annotations, Objects
from eyesmith.data.annotations.masks import rle_masks
from eyesmith.data.annotations.outline import mask_rings
from eyesmith.eval.located import Found, Outcome
from eyesmith.eval.located.precision import Region
from eyesmith.report.markup import Markup, element
from eyesmith.report.words import shorten

KINDS = ("right", "confused", "missed", "wrong")
SIDE_PX = 420


def scene(truth: Annotations, index: int, found: Found, listed: Sequence[Outcome], region: Region) -> Markup:
    """A picture of a set with its outcomes, as an item of a list. found: all detections in it."""
    picture, objects = truth.pictures[index], truth.objects(index)
    order = sorted(listed, key=lambda one: (KINDS.index(one.kind), -one.score))
    shapes = [_shape(one, objects, found, number, region) for number, one in enumerate(order, 1)]
    svg = element(
        "svg",
        element(
            "image",
            href=_embedded(truth.image(index)),
            width=picture.width,
            height=picture.height,
            preserveAspectRatio="none",
        ),
        [shape for shape, _ in shapes],
        [tag for _, tag in shapes],
        viewBox=f"0 0 {picture.width} {picture.height}",
        role="img",
        aria_label=f"{shorten(picture.file, 60)} with {len(order)} numbered objects and detections, listed below",
    )
    items = [
        element(
            "li",
            element("span", number, class_="no"),
            element("span", _words(one, truth.names)),
            element("span", f"{one.score:.2f}" if one.detection >= 0 else ""),
            class_=one.kind,
        )
        for number, one in enumerate(order, 1)
    ]
    return element(
        "li", svg, element("ol", items), element("p", shorten(picture.file, 60), class_="file"), class_="scene"
    )


def _words(one: Outcome, names: Sequence[str]) -> str:
    match one.kind:
        case "right":
            return names[one.guess]
        case "confused":
            return f"{names[one.truth]}, taken for {names[one.guess]}"
        case "missed":
            return f"{names[one.truth]}, missed"
        case _:
            return f"{names[one.guess]}, overlaps nothing by half"


def _shape(one: Outcome, objects: Objects, found: Found, number: int, region: Region) -> tuple[Markup, Markup]:
    """The outline of an object or detection, and its number."""
    if one.detection >= 0:
        x0, y0, x1, y1 = found.boxes[one.detection].tolist()
    else:
        x0, y0, x1, y1 = objects.boxes[one.object].tolist()
    unit = max(objects.width, objects.height) / 100
    paths = _mask_path(one, objects, found) if region == "mask" else None
    box = {"x": f"{x0:.1f}", "y": f"{y0:.1f}", "width": f"{x1 - x0:.1f}", "height": f"{y1 - y0:.1f}"}
    if paths is not None:
        drawn = [element("path", d=paths, class_="halo"), element("path", d=paths, class_="shape mask")]
    else:
        drawn = [element("rect", **box, class_="halo"), element("rect", **box, class_="shape")]
    x = min(max(x0 + 2.4 * unit, 2.6 * unit), objects.width - 2.6 * unit)
    y = min(max(y0 + 2.4 * unit, 2.6 * unit), objects.height - 2.6 * unit)
    tag = element(
        "g",
        element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{2.4 * unit:.2f}", class_="tag"),
        element("text", number, x=f"{x:.1f}", y=f"{y:.1f}", style=f"font-size:{3.2 * unit:.2f}px", class_="number"),
        class_=one.kind,
    )
    return element("g", drawn, class_=one.kind), tag


def _mask_path(one: Outcome, objects: Objects, found: Found) -> str | None:
    """SVG's path around a mask, drawn at the size at which it is shown; None where there is no mask."""
    if one.detection >= 0 and found.masks is not None:
        mask = rle_masks().decode(found.masks[one.detection]).astype(np.bool_)
    elif one.detection < 0 and objects.shapes[one.object] is not None:
        mask = objects.mask(one.object)
    else:
        return None
    factor = max(1, max(mask.shape) // SIDE_PX)
    small = mask[factor // 2 :: factor, factor // 2 :: factor]
    rings = mask_rings(small)
    return (
        "".join("M" + "L".join(f"{x * factor} {y * factor}" for x, y in ring.tolist()) + "Z" for ring in rings) or None
    )


def _embedded(image: Image.Image) -> str:
    copy = image.copy()
    copy.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    stream = BytesIO()
    copy.save(stream, "WEBP", quality=78, method=4)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
