"""Coloured shapes drawn by arithmetic: outlines in a unit square, patterns, anti-aliased pixels and exact masks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw

OVERSAMPLING = 4  # drawn this many times larger, then averaged

Points = tuple[tuple[float, float], ...]

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "orange": (255, 136, 14),
    "yellow": (240, 205, 20),
    "green": (44, 150, 60),
    "blue": (38, 98, 205),
    "purple": (135, 65, 170),
    "pink": (240, 120, 180),
    "gray": (125, 125, 125),
}
PATTERNS = ("solid", "striped", "dotted")
BACKGROUNDS = ((255, 255, 255), (250, 244, 232), (238, 244, 250), (240, 248, 238), (245, 245, 245))
_PATTERN_COLOR = (255, 255, 255)


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One drawn shape. x, y: centre and radius, as fractions of the image's side; turn: radians, clockwise.

    shape, color, pattern: keys of SHAPES and COLORS, member of PATTERNS. size: the word for the radius.
    """

    shape: str
    color: str
    pattern: str
    size: str
    x: float
    y: float
    radius: float
    turn: float

    @property
    def place(self) -> tuple[float, float]:
        """Its centre."""
        return self.x, self.y


def _regular(corners: int, *, radius: float = 1.0, start: float = -math.pi / 2) -> Points:
    angles = (start + 2 * math.pi * corner / corners for corner in range(corners))
    return tuple((radius * math.cos(angle), radius * math.sin(angle)) for angle in angles)


def _star() -> Points:
    outer, inner = _regular(5), _regular(5, radius=0.42, start=-math.pi / 2 + math.pi / 5)
    return tuple(point for pair in zip(outer, inner, strict=True) for point in pair)


def _heart() -> Points:
    # the usual parametric heart, scaled into the unit circle; y grows downwards
    points = []
    for step in range(64):
        t = 2 * math.pi * step / 64
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x / 18, -(y + 2) / 18))
    return tuple(points)


def _crescent() -> Points:
    # the outer circle from horn to horn, and back along a circle that is shifted to the right
    horn, shift = math.radians(50), 0.55
    inner_radius = math.hypot(math.cos(horn) - shift, math.sin(horn))
    inner_horn = math.atan2(math.sin(horn), math.cos(horn) - shift)
    outer = [horn + (2 * math.pi - 2 * horn) * step / 48 for step in range(49)]
    inner = [-inner_horn - (2 * math.pi - 2 * inner_horn) * step / 48 for step in range(1, 48)]
    return (
        *((math.cos(angle), math.sin(angle)) for angle in outer),
        *((shift + inner_radius * math.cos(angle), inner_radius * math.sin(angle)) for angle in inner),
    )


_CIRCLE = _regular(72)
_CROSS: Points = (
    (-0.34, -0.94), (0.34, -0.94), (0.34, -0.34), (0.94, -0.34), (0.94, 0.34), (0.34, 0.34),
    (0.34, 0.94), (-0.34, 0.94), (-0.34, 0.34), (-0.94, 0.34), (-0.94, -0.34), (-0.34, -0.34),
)  # fmt: skip
_ARROW: Points = ((-0.95, -0.3), (0.1, -0.3), (0.1, -0.75), (1.0, 0.0), (0.1, 0.75), (0.1, 0.3), (-0.95, 0.3))

# outline, and the outline of a hole or ()
SHAPES: dict[str, tuple[Points, Points]] = {
    "circle": (_CIRCLE, ()),
    "square": (_regular(4, start=-math.pi / 4), ()),
    "triangle": (_regular(3), ()),
    "diamond": (((0.0, -1.0), (0.6, 0.0), (0.0, 1.0), (-0.6, 0.0)), ()),
    "pentagon": (_regular(5), ()),
    "hexagon": (_regular(6, start=0.0), ()),
    "star": (_star(), ()),
    "heart": (_heart(), ()),
    "cross": (_CROSS, ()),
    "ring": (_CIRCLE, _regular(72, radius=0.52)),
    "crescent": (_crescent(), ()),
    "arrow": (_ARROW, ()),
}


def draw(
    things: Sequence[Thing], *, background: tuple[int, int, int], size_px: int
) -> tuple[Image.Image, list[np.ndarray]]:
    """Draw `things`, which lie inside the image and apart from each other.

    Returns the RGB image (size_px x size_px) and one mask a thing, bool [size_px, size_px]: true where the shape
    covers at least half of the pixel.
    """
    image = Image.new("RGB", (size_px * OVERSAMPLING, size_px * OVERSAMPLING), background)
    masks = []
    for thing in things:
        frame = _Frame(thing, size_px)
        covered = _covered(frame)
        image.paste(COLORS[thing.color], frame.corner, covered)
        if thing.pattern != "solid":
            # the rim keeps the shape's own colour, so that its outline stays whole on a light background
            inside = ImageChops.subtract(covered, _rim(frame))
            image.paste(_PATTERN_COLOR, frame.corner, ImageChops.darker(inside, _pattern(frame)))
        mask = Image.new("L", (size_px, size_px))
        mask.paste(covered.reduce(OVERSAMPLING), (frame.left_px, frame.top_px))
        masks.append(np.asarray(mask) >= 128)
    return image.reduce(OVERSAMPLING), masks


def mask_to_rle(mask: np.ndarray) -> dict[str, list[int]]:
    """Run lengths of a bool mask [H, W] as COCO writes them uncompressed: column by column, zeros first."""
    flat = np.concatenate(([False], mask.T.reshape(-1)))
    ends = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]), [mask.size]))
    return {"size": list(mask.shape), "counts": np.diff(ends).tolist()}


def mask_to_box(mask: np.ndarray) -> list[int]:
    """The box of a bool mask [H, W] that is not empty: [x0, y0, x1, y1] in px, the ends exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


class _Frame:
    """The square part of the oversampled image that holds one thing, aligned to whole pixels of the final image."""

    def __init__(self, thing: Thing, size_px: int) -> None:
        self.thing = thing
        self.left_px = math.floor((thing.x - thing.radius) * size_px)
        self.top_px = math.floor((thing.y - thing.radius) * size_px)
        self.side = (math.ceil(2 * thing.radius * size_px) + 2) * OVERSAMPLING
        self.corner = (self.left_px * OVERSAMPLING, self.top_px * OVERSAMPLING)
        self.radius = thing.radius * size_px * OVERSAMPLING
        self._x = thing.x * size_px * OVERSAMPLING - self.corner[0]
        self._y = thing.y * size_px * OVERSAMPLING - self.corner[1]

    def layer(self) -> Image.Image:
        return Image.new("L", (self.side, self.side))

    def place(self, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        """Points around the thing's centre in units of its radius -> oversampled pixels of this frame."""
        cos, sin = math.cos(self.thing.turn) * self.radius, math.sin(self.thing.turn) * self.radius
        return [(self._x + x * cos - y * sin, self._y + x * sin + y * cos) for x, y in points]


def _covered(frame: _Frame) -> Image.Image:
    covered = frame.layer()
    canvas = ImageDraw.Draw(covered)
    outline, hole = SHAPES[frame.thing.shape]
    canvas.polygon(frame.place(outline), fill=255)
    if hole:
        canvas.polygon(frame.place(hole), fill=0)
    return covered


def _rim(frame: _Frame) -> Image.Image:
    rim = frame.layer()
    canvas = ImageDraw.Draw(rim)
    width = max(2, round(0.2 * frame.radius))  # half of it lies inside the shape
    for points in SHAPES[frame.thing.shape]:
        if points:
            placed = frame.place(points)
            # a fine polygon needs no rounded joints, and each costs as much as its line
            canvas.line([*placed, *placed[:2]], fill=255, width=width, joint="curve" if len(placed) <= 16 else None)
    return rim


def _pattern(frame: _Frame) -> Image.Image:
    pattern = frame.layer()
    canvas = ImageDraw.Draw(pattern)
    if frame.thing.pattern == "striped":
        for step in range(-3, 4):
            x = 0.36 * step
            canvas.polygon(
                frame.place(((x - 0.09, -1.2), (x + 0.09, -1.2), (x + 0.09, 1.2), (x - 0.09, 1.2))), fill=255
            )
    else:
        for row in range(-3, 4):
            for column in range(-3, 4):
                ((x, y),) = frame.place(((0.38 * (column + 0.5 * (row % 2)), 0.33 * row),))
                dot = 0.115 * frame.radius
                canvas.ellipse((x - dot, y - dot, x + dot, y + dot), fill=255)
    return pattern
