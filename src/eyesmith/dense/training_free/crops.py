"""What is in a box or a mask, by looking at it alone: cut out, perhaps pasted on white, and classified as a picture.

The method for any encoder, also those whose maps are in no text space. N boxes, K classes, D embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from eyesmith.dense.vocabulary import Vocabulary
from eyesmith.errors import ConfigError, DataError, ShapeError
from eyesmith.eval.heads.score import link_of
from eyesmith.images import ImageSource, evaluation_pixels, open_image
from eyesmith.images.decode import to_rgb
from eyesmith.models.clip import Clip

Background = Literal["picture", "white", "mean"]


@dataclass(frozen=True, kw_only=True)
class Crop:
    """One way to cut an object out: a window of the encoder's own shape around the middle of its box."""

    context: float = 1.0
    """Longer side of the window in sides of the box: 1 just covers it, 1.5 shows what is around it."""
    background: Background = "picture"
    """What stands around the object: the picture; or white, or the model's mean colour, everywhere outside of its mask
    (of its box, where there is no mask)."""

    def __post_init__(self) -> None:
        if not 1 <= self.context <= 100:
            raise ConfigError(f"context: expected 1 (the box alone) to 100, got {self.context}")
        if self.background not in get_args(Background):
            raise ConfigError(f"background: expected one of {', '.join(get_args(Background))}, got {self.background!r}")


CROPS: dict[str, tuple[Crop, ...]] = {
    "crop": (Crop(context=1.1),),
    "white": (Crop(context=1.1, background="white"),),
    "vild": (Crop(context=1.0), Crop(context=1.5)),
    "ensemble": (Crop(context=1.1), Crop(context=1.1, background="white")),
}
"""Ways to look, by name; of several crops the unit features are added (ViLD's box and 1.5 times the box)."""


@torch.no_grad()
def crop_features(
    clip: Clip,
    image: ImageSource,
    boxes: Tensor,
    *,
    masks: Tensor | None = None,
    crops: str | Sequence[Crop] = "crop",
    batch_size: int = 64,
) -> Tensor:
    """Unit features [N, D], fp32 on the CPU, of what is in boxes of a picture.

    boxes: [N, 4] of x0, y0, x1, y1 in its pixels; parts outside of the picture are cut off. masks: bool [N, H, W], of
    the objects in the boxes. crops: a name in CROPS, or ways of your own. What a window shows beyond the picture is
    the mean colour (white, where the background is). Raises ShapeError for tensors that do not fit, DataError for a box
    without a pixel in the picture, or numbers that are not finite, ConfigError for an unknown name.
    """
    ways = find_crops(crops)
    picture = to_rgb(open_image(image, exif=clip.preprocess.exif))
    kept = checked_boxes(boxes, (picture.height, picture.width))
    if masks is not None and tuple(masks.shape) != (len(kept), picture.height, picture.width):
        raise ShapeError(
            f"masks: expected [{len(kept)}, {picture.height}, {picture.width}], one a box over the whole picture, got "
            f"{list(masks.shape)}"
        )
    if not len(kept):
        return torch.zeros(0, clip.image.embed_dim)
    total = torch.zeros(len(kept), clip.image.embed_dim)
    for way in ways:
        for start in range(0, len(kept), batch_size):
            rows = range(start, min(start + batch_size, len(kept)))
            looks = [_cut(picture, kept[row], None if masks is None else masks[row], way, clip) for row in rows]
            pixels = torch.stack([evaluation_pixels(one, clip.preprocess) for one in looks])
            total[start : rows.stop] += clip.encode_image(pixels.to(clip.logit_scale.device)).float().cpu()
    return F.normalize(total, dim=-1)


def classify_crops(
    clip: Clip,
    image: ImageSource,
    boxes: Tensor,
    vocabulary: Vocabulary,
    *,
    masks: Tensor | None = None,
    crops: str | Sequence[Crop] = "crop",
    batch_size: int = 64,
) -> Tensor:
    """Probabilities [N, K], fp32, of the classes for boxes of a picture, by the model's own link; see crop_features."""
    features = crop_features(clip, image, boxes, masks=masks, crops=crops, batch_size=batch_size)
    return link_of(clip).probabilities(vocabulary.scores(features))


def find_crops(crops: str | Sequence[Crop]) -> tuple[Crop, ...]:
    """The ways to look that are meant. Raises ConfigError for an unknown name, or none at all."""
    if isinstance(crops, str):
        if crops not in CROPS:
            raise ConfigError(f"crops: no {crops!r}; there are {', '.join(CROPS)}")
        return CROPS[crops]
    if not crops:
        raise ConfigError("crops: expected one way to cut out at least, got none")
    return tuple(crops)


def checked_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes cut to a picture of height and width `size`: fp32 [N, 4] on the CPU.

    Raises ShapeError for another shape, DataError for one that is not finite, turned round or outside of the picture.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ShapeError(f"boxes: expected [N, 4] of x0, y0, x1, y1 in pixels, got {list(boxes.shape)}")
    found = boxes.detach().float().cpu()
    height, width = size
    cut = torch.stack(
        (
            found[:, 0].clamp(0, width),
            found[:, 1].clamp(0, height),
            found[:, 2].clamp(0, width),
            found[:, 3].clamp(0, height),
        ),
        dim=1,
    )
    wrong = ~(found.isfinite().all(1) & (cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1]))
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise DataError(
            f"boxes: expected x0 < x1 and y0 < y1 in pixels of a picture of {width} x {height}, row {row} is "
            f"{[round(value, 2) for value in found[row].tolist()]}"
        )
    return cut


def _cut(picture: Image.Image, box: Tensor, mask: Tensor | None, way: Crop, clip: Clip) -> Image.Image:
    """What the encoder gets to see: RGB, of the shape of its input."""
    left, top, right, bottom = window_of(box.tolist(), way.context, clip.preprocess.image_size)
    mean = tuple(round(255 * value) for value in clip.preprocess.mean)
    colour = (255, 255, 255) if way.background == "white" else mean
    canvas = Image.new("RGB", (right - left, bottom - top), colour)
    # the part of the window that the picture has
    inner = (max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height))
    part = picture.crop(inner)
    stencil = None
    if way.background != "picture":
        stencil = Image.fromarray(_stencil(box, mask, inner))
    canvas.paste(part, (inner[0] - left, inner[1] - top), stencil)
    return canvas


def window_of(box: Sequence[float], context: float, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """The window around a box, whole pixels (x0, y0, x1, y1), perhaps beyond the picture; of height : width `shape`."""
    x0, y0, x1, y1 = box
    scale = context * max((x1 - x0) / shape[1], (y1 - y0) / shape[0])
    width, height = (max(1, round(scale * side)) for side in (shape[1], shape[0]))
    left, top = round((x0 + x1 - width) / 2), round((y0 + y1 - height) / 2)
    return left, top, left + width, top + height


def _stencil(box: Tensor, mask: Tensor | None, inner: tuple[int, int, int, int]) -> np.ndarray:
    """255 where the object is, 0 elsewhere: uint8 [h, w] of a part of the picture."""
    left, top, right, bottom = inner
    if mask is not None:
        return mask[top:bottom, left:right].cpu().numpy().astype(np.uint8) * 255
    x0, y0, x1, y1 = box.tolist()
    rows = (np.arange(top, bottom) + 1 > y0) & (np.arange(top, bottom) < y1)
    columns = (np.arange(left, right) + 1 > x0) & (np.arange(left, right) < x1)
    return (rows[:, None] & columns[None]).astype(np.uint8) * 255
