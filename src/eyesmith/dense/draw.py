"""What was found, drawn on the picture: outlines, tinted masks and readable names, or classes with a legend."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from eyesmith.data.annotations.types import VOID
from eyesmith.dense.result import ClassMap, Objects

Colour = tuple[int, int, int]

_SHOWN_PX = 960  # longer side that small pictures are drawn at, by a whole factor
_LARGEST_PX = 4096  # longer side that huge ones are drawn at
_TINT = 0.4  # of a mask over the picture
_LEAST_PART = 0.02  # of the picture, for a class to get its name inside
_GRID = 96  # cells of the map on which room for a name is looked for

_FIRST_COLOURS: tuple[Colour, ...] = (
    (230, 75, 53),
    (0, 114, 178),
    (0, 158, 115),
    (240, 165, 0),
    (146, 84, 200),
    (86, 180, 233),
    (204, 121, 167),
    (120, 94, 60),
    (180, 200, 40),
    (0, 180, 180),
    (255, 110, 180),
    (90, 90, 200),
)


def colour_of(label: int) -> Colour:
    """The colour of a class, the same in every picture; neighbouring numbers differ much."""
    if label < len(_FIRST_COLOURS):
        return _FIRST_COLOURS[label]
    import colorsys

    turn = label * 0.61803398875 % 1
    light, strong = (0.42, 0.58, 0.5)[label % 3], (0.75, 0.6, 0.9)[label // 3 % 3]
    red, green, blue = colorsys.hls_to_rgb(turn, light, strong)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_objects(picture: Image.Image, found: Objects) -> Image.Image:
    """The picture with boxes, masks, names and scores, RGB; small pictures are enlarged so that names can be read.

    Masks are tinted and outlined, boxes drawn where there is none, and around masks thinly. The best stand on top.
    """
    sheet = _Sheet.of(picture, found.size)
    order = found.scores.argsort(descending=False, stable=True).tolist()  # the best last
    labels, boxes = found.labels.tolist(), found.boxes_px.tolist()
    masks = None if found.masks is None or not order else found.masks_px().numpy()
    if masks is not None:
        tinted = np.array(sheet.image, np.float32)
        by_size = sorted(order, key=lambda place: -int(masks[place].sum()))  # the small ones on top
        for place in by_size:
            sheet.tint(tinted, masks[place], colour_of(labels[place]))
        drawn = tinted.round().astype(np.uint8)
        for place in by_size:
            sheet.outline(drawn, masks[place], colour_of(labels[place]))
        sheet.image = Image.fromarray(drawn)
    draw = ImageDraw.Draw(sheet.image)
    for place in order:
        sheet.box(draw, boxes[place], colour_of(labels[place]), is_thin=masks is not None)
    for place in reversed(order):  # the best choose their place first
        text = f"{found.names[labels[place]]} {100 * float(found.scores[place]):.0f} %"
        sheet.tag(draw, text, boxes[place], colour_of(labels[place]))
    return sheet.image


def draw_classes(picture: Image.Image, found: ClassMap) -> Image.Image:
    """The picture tinted by class, names inside of large regions, and below a legend of all classes with their part."""
    sheet = _Sheet.of(picture, found.size)
    labels = found.labels.numpy()
    present = [(float(part), label) for label, part in enumerate(found.fractions().tolist()) if part > 0]
    present.sort(reverse=True)
    colours = np.zeros((len(found.names) + 1, 3), np.float32)
    for _, label in present:
        colours[label] = colour_of(label)
    large = sheet.resized(labels)
    layer = np.asarray(sheet.image).astype(np.float32)
    known = (large != VOID)[..., None]
    layer = np.where(known, (1 - _TINT) * layer + _TINT * colours[large], layer)
    layer[_borders(large, max(1, sheet.line // 2))] = 255
    sheet.image = Image.fromarray(layer.round().astype(np.uint8))
    draw = ImageDraw.Draw(sheet.image)
    for part, label in present:
        if part >= _LEAST_PART:
            sheet.name_inside(draw, found.names[label], large == label, colour_of(label))
    entries = [(f"{found.names[label]} {100 * part:.1f} %", colour_of(label)) for part, label in present]
    void = 1 - sum(part for part, _ in present)
    if void > 0.0005:
        entries.append((f"none {100 * void:.1f} %", (128, 128, 128)))
    return _with_legend(sheet.image, entries, sheet.font)


@dataclass
class _Sheet:
    """A picture at the size that it is drawn at. scale: drawn pixels per pixel of the result."""

    image: Image.Image
    scale: tuple[float, float]  # height, width
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    line: int
    tags: list[tuple[float, float, float, float]]

    @classmethod
    def of(cls, picture: Image.Image, size: tuple[int, int]) -> "_Sheet":
        height, width = size
        longer = max(size)
        factor = max(1, _SHOWN_PX // longer) if longer < _SHOWN_PX else min(1.0, _LARGEST_PX / longer)
        shown = (max(1, round(width * factor)), max(1, round(height * factor)))
        way = Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.LANCZOS
        image = picture.convert("RGB")
        image = image if image.size == shown else image.resize(shown, way)
        text_px = max(13, round(max(shown) / 55))
        return cls(image, (shown[1] / height, shown[0] / width), _font(text_px), max(3, round(max(shown) / 320)), [])

    def resized(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """A map [H, W] of whole numbers at the drawn size."""
        if (self.image.height, self.image.width) == labels.shape:
            return labels
        rows = (np.arange(self.image.height) / self.scale[0]).astype(int).clip(0, labels.shape[0] - 1)
        columns = (np.arange(self.image.width) / self.scale[1]).astype(int).clip(0, labels.shape[1] - 1)
        return labels[rows[:, None], columns[None]]

    def tint(self, layer: NDArray[np.float32], mask: NDArray[np.bool_], colour: Colour) -> None:
        """Blend a colour over the mask's pixels of `layer` [h, w, 3], in place."""
        place, inside = self._window(mask)
        part = layer[place]
        part[inside] = (1 - _TINT) * part[inside] + _TINT * np.array(colour, np.float32)

    def outline(self, layer: NDArray[np.uint8], mask: NDArray[np.bool_], colour: Colour) -> None:
        """Colour the pixels of a mask within a line's width of its border, in place."""
        place, inside = self._window(mask)
        padded = np.pad(inside, self.line)
        core = inside.copy()
        height, width = inside.shape
        for step in range(2 * self.line + 1):
            core &= padded[step : step + height, self.line : self.line + width]
            core &= padded[self.line : self.line + height, step : step + width]
        layer[place][inside & ~core] = colour

    def _window(self, mask: NDArray[np.bool_]) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
        """Where a mask is on the sheet, and its pixels there: most masks are small, most pictures large."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.bool_)
        ys, xs = (
            np.arange(math.floor(found[0] * scale), min(math.ceil((found[-1] + 1) * scale), side))
            for found, scale, side in zip(
                (rows, columns), self.scale, (self.image.height, self.image.width), strict=True
            )
        )
        source_y, source_x = ((at / scale).astype(int) for at, scale in zip((ys, xs), self.scale, strict=True))
        inside = mask[source_y.clip(0, len(mask) - 1)[:, None], source_x.clip(0, mask.shape[1] - 1)[None]]
        return (slice(ys[0], ys[-1] + 1), slice(xs[0], xs[-1] + 1)), inside

    def box(self, draw: ImageDraw.ImageDraw, box: Sequence[float], colour: Colour, *, is_thin: bool) -> None:
        left, top, right, bottom = self._place(box)
        line = 1 if is_thin else self.line
        if not is_thin:  # a dark rim, so that no background hides the line
            draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(20, 20, 20), width=line + 2)
        draw.rectangle((left, top, right, bottom), outline=colour, width=line)

    def tag(self, draw: ImageDraw.ImageDraw, text: str, box: Sequence[float], colour: Colour) -> None:
        """A name at a corner of its box where no other name stands: above, inside, below."""
        left, top, right, bottom = self._place(box)
        width, height = self._text_size(text)
        places = [
            (left, top - height),
            (left, top),
            (left, bottom),
            (right - width, top - height),
            (left, bottom - height),
        ]
        inner = [self._inside(x, y, width, height) for x, y in places]
        free = [one for one in inner if not any(_meet(one, other) for other in self.tags)]
        chosen = free[0] if free else inner[0]
        self.tags.append(chosen)
        self._write(draw, text, chosen, colour)

    def name_inside(self, draw: ImageDraw.ImageDraw, text: str, mask: NDArray[np.bool_], colour: Colour) -> None:
        """A name in the middle of the widest place of a region."""
        y, x = widest_place(mask)
        width, height = self._text_size(text)
        place = self._inside(x - width / 2, y - height / 2, width, height)
        if not any(_meet(place, other) for other in self.tags):
            self.tags.append(place)
            self._write(draw, text, place, colour)

    def _place(self, box: Sequence[float]) -> tuple[float, float, float, float]:
        left, right = (min(max(value * self.scale[1], 0), self.image.width - 1) for value in (box[0], box[2]))
        top, bottom = (min(max(value * self.scale[0], 0), self.image.height - 1) for value in (box[1], box[3]))
        return left, top, max(left, right), max(top, bottom)

    def _text_size(self, text: str) -> tuple[float, float]:
        x0, _, x1, _ = self.font.getbbox(text)
        _, y0, _, y1 = self.font.getbbox("Ag|")
        return x1 - x0 + 8, y1 - y0 + 6

    def _inside(self, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        x = min(max(x, 0), max(self.image.width - width, 0))
        y = min(max(y, 0), max(self.image.height - height, 0))
        return x, y, x + width, y + height

    def _write(
        self, draw: ImageDraw.ImageDraw, text: str, place: tuple[float, float, float, float], colour: Colour
    ) -> None:
        draw.rounded_rectangle(place, radius=3, fill=colour, outline=(20, 20, 20))
        _, y0, _, _ = self.font.getbbox("Ag|")
        draw.text((place[0] + 4, place[1] + 3 - y0), text, fill=_ink_on(colour), font=self.font)


def widest_place(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Row and column of the middle of the largest square that fits into a mask [H, W], roughly."""
    height, width = mask.shape
    step_y, step_x = max(1, height // _GRID), max(1, width // _GRID)
    small = mask[step_y // 2 :: step_y, step_x // 2 :: step_x]
    if not small.any():
        rows, columns = np.nonzero(mask)
        middle = len(rows) // 2
        return float(rows[middle]), float(columns[middle])
    while True:  # peel cells off the border until the next time leaves nothing
        padded = np.pad(small, 1)
        inner = small & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        if not inner.any():
            break
        small = inner
    rows, columns = np.nonzero(small)
    best = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return (rows[best] + 0.5) * step_y, (columns[best] + 0.5) * step_x


def _borders(labels: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """Pixels that have another label `width` or fewer pixels to their right or below: bool [H, W]."""
    found = np.zeros(labels.shape, np.bool_)
    for step in range(1, width + 1):
        found[:-step] |= labels[:-step] != labels[step:]
        found[:, :-step] |= labels[:, :-step] != labels[:, step:]
    return found


def _with_legend(
    image: Image.Image, entries: Sequence[tuple[str, Colour]], font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> Image.Image:
    """The picture with a strip below it: a patch of colour and a text for each entry, in as many rows as needed."""
    _, y0, _, y1 = font.getbbox("Ag|")
    row, patch, gap = y1 - y0 + 12, y1 - y0, 14
    places: list[tuple[float, int]] = []
    x, line = float(gap), 0
    for text, _ in entries:
        wide = patch + 6 + font.getlength(text) + gap
        if x > gap and x + wide > image.width:
            x, line = float(gap), line + 1
        places.append((x, line))
        x += wide
    sheet = Image.new("RGB", (image.width, math.ceil(image.height + (line + 1) * row + 8)), (250, 250, 250))
    sheet.paste(image, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for (text, colour), (left, line) in zip(entries, places, strict=True):
        top = image.height + 4 + line * row + 6
        draw.rounded_rectangle((left, top, left + patch, top + patch), radius=3, fill=colour)
        draw.text((left + patch + 6, top - y0), text, fill=(30, 30, 30), font=font)
    return sheet


def _ink_on(colour: Colour) -> Colour:
    red, green, blue = colour
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
