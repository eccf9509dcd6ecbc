"""Pictures with what was found in them: objects and detections outlined and numbered, and a list of what they are."""

import base64
import math
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eyesmith.data.annotations import Annotations, Objects
from eyesmith.data.annotations.masks import rle_masks
from eyesmith.data.annotations.outline import mask_rings
from eyesmith.eval.located import Found, Outcome
from eyesmith.eval.located.precision import Region
from eyesmith.report.markup import Markup, element
from eyesmith.report.words import count, shorten

KINDS = ("right", "confused", "missed", "wrong")
SIDE_PX = 420
MAX_WRONG = 10  # of a picture, that overlap nothing: a head of little training finds hundreds, which hide the picture
TAG = 2.4  # radius of a number, in hundredths of the picture's longer side
_CELLS = 64  # along a mask's longer side, among which its number finds a place


def scene(truth: Annotations, index: int, found: Found, listed: Sequence[Outcome], region: Region) -> Markup:
    """A picture of a set with its outcomes, as an item of a list. found: all detections in it.

    Of those that overlap nothing the surest MAX_WRONG are drawn, and the others counted.
    """
    picture, objects = truth.pictures[index], truth.objects(index)
    order = sorted(listed, key=lambda one: (KINDS.index(one.kind), -one.score))
    left_out = max(0, sum(one.kind == "wrong" for one in order) - MAX_WRONG)
    order = order[: len(order) - left_out]
    unit = max(objects.width, objects.height) / 100
    shapes, tags, places = list[tuple[float, Markup]](), list[Markup](), list[tuple[float, float]]()
    for number, one in enumerate(order, 1):
        box = (found.boxes[one.detection] if one.detection >= 0 else objects.boxes[one.object]).tolist()
        mask = _mask(one, objects, found) if region == "mask" else None
        area = (box[2] - box[0]) * (box[3] - box[1]) if mask is None else float(mask.sum())
        shapes.append((area, element("g", _outline(box, mask), class_=one.kind)))
        spots = _corners(box, objects, unit) if mask is None else _spots(mask, unit)
        places.append(_free(spots or _corners(box, objects, unit), places, unit))
        tags.append(element("g", _tag(number, *places[-1], unit), class_=one.kind))
    shapes.sort(key=lambda shape: -shape[0])  # what is small lies on what is large
    svg = element(
        "svg",
        element(
            "image",
            href=_embedded(truth.image(index)),
            width=picture.width,
            height=picture.height,
            preserveAspectRatio="none",
        ),
        [shape for _, shape in shapes],
        tags,
        viewBox=f"0 0 {picture.width} {picture.height}",
        role="img",
        aria_label=f"{shorten(picture.file, 60)} with {len(order)} numbered outlines, listed below",
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
    more = f"and {count(left_out)} more, wrong, of lower scores; not drawn" if left_out else ""
    return element(
        "li",
        svg,
        element("ol", items),
        element("p", more, class_="file") if more else None,
        element("p", shorten(picture.file, 60), class_="file"),
        class_="scene",
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
            return f"{names[one.guess]}, wrong"


def _mask(one: Outcome, objects: Objects, found: Found) -> NDArray[np.bool_] | None:
    """Its pixels [H, W]; None where it has no mask, or an empty one."""
    if one.detection >= 0 and found.masks is not None:
        mask = rle_masks().decode(found.masks[one.detection]).astype(np.bool_)
    elif one.detection < 0 and objects.shapes[one.object] is not None:
        mask = objects.mask(one.object)
    else:
        return None
    return mask if mask.any() else None


def _outline(box: Sequence[float], mask: NDArray[np.bool_] | None) -> list[Markup]:
    """Around a mask at the size at which it is shown, else around the box."""
    path = "" if mask is None else _path(mask)
    if path:
        return [element("path", d=path, class_="halo"), element("path", d=path, class_="shape mask")]
    x0, y0, x1, y1 = box
    sides = {"x": f"{x0:.1f}", "y": f"{y0:.1f}", "width": f"{x1 - x0:.1f}", "height": f"{y1 - y0:.1f}"}
    return [element("rect", **sides, class_="halo"), element("rect", **sides, class_="shape")]


def _path(mask: NDArray[np.bool_]) -> str:
    factor = max(1, max(mask.shape) // SIDE_PX)
    rings = mask_rings(mask[factor // 2 :: factor, factor // 2 :: factor])
    return "".join("M" + "L".join(f"{x * factor} {y * factor}" for x, y in ring.tolist()) + "Z" for ring in rings)


def _tag(number: int, x: float, y: float, unit: float) -> list[Markup]:
    font = f"font-size:{3.2 * unit:.2f}px"
    return [
        element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{TAG * unit:.2f}", class_="tag"),
        element("text", number, x=f"{x:.1f}", y=f"{y:.1f}", style=font, class_="number"),
    ]


def _corners(box: Sequence[float], objects: Objects, unit: float) -> list[tuple[float, float, float]]:
    """Where a box's number may stand, (x, y, how well it fits there): in its corners, the upper left one first."""
    x0, y0, x1, y1 = box
    edge = (TAG + 0.2) * unit

    def inside(value: float, size: int) -> float:
        return min(max(value, edge), size - edge)

    return [
        (inside(x, objects.width), inside(y, objects.height), 1.0)
        for y in (y0 + TAG * unit, y1 - TAG * unit)
        for x in (x0 + TAG * unit, x1 - TAG * unit)
    ]


def _spots(mask: NDArray[np.bool_], unit: float) -> list[tuple[float, float, float]]:
    """The same of a mask: on its pixels, better the farther from its edge, the upper ones first. None of a tiny one."""
    step = max(1, max(mask.shape) // _CELLS)
    inner = mask[step // 2 :: step, step // 2 :: step]
    rows, columns = np.nonzero(inner)
    layers = math.ceil(TAG * unit / step + 0.5)  # counted from the middle of a cell
    depth = np.zeros(len(rows))
    for _ in range(layers):
        depth += inner[rows, columns]
        padded = np.pad(inner, 1)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    fits = depth / layers
    return list(zip(((columns + 0.5) * step).tolist(), ((rows + 0.5) * step).tolist(), fits.tolist(), strict=True))


def _free(
    spots: Sequence[tuple[float, float, float]], taken: Sequence[tuple[float, float]], unit: float
) -> tuple[float, float]:
    """The spot that fits best and is free of other numbers; of equal ones the first."""
    points = np.array(spots)
    value = points[:, 2]
    if taken:
        away = points[:, None, :2] - np.array(taken)  # [spots, taken, 2]
        value = value + np.minimum(np.hypot(away[..., 0], away[..., 1]).min(1) / (2.2 * TAG * unit), 1)
    x, y, _ = points[int(np.argmax(value))].tolist()
    return x, y


def _embedded(image: Image.Image) -> str:
    copy = image.copy()
    copy.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    stream = BytesIO()
    copy.save(stream, "WEBP", quality=78, method=4)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
