"""Backgrounds for scenes: flat, gradient, noise, texture and drawn ones, out of nothing but a random stream."""

import math
import random

import numpy as np
from PIL import Image, ImageDraw

BACKGROUNDS = ("flat", "gradient", "noise", "texture", "drawn")
WHITE_FRAC = 0.25  # of the flat ones
Rgb = tuple[int, int, int]

# Only random() and randbytes() of the stream are used: they give the same numbers in every version of Python.


def background(kind: str, *, size_px: int, rng: random.Random) -> Image.Image:
    """One background of a `kind` out of BACKGROUNDS: RGB, size_px x size_px."""
    return {"flat": _flat, "gradient": _gradient, "noise": _noise, "texture": _texture, "drawn": _drawn}[kind](
        size_px, rng
    )


def _flat(size_px: int, rng: random.Random) -> Image.Image:
    color = (255, 255, 255) if rng.random() < WHITE_FRAC else _color(rng)
    return Image.new("RGB", (size_px, size_px), color)


def _gradient(size_px: int, rng: random.Random) -> Image.Image:
    # four corners, interpolated; two of them equal make a straight one
    corners = np.array([_color(rng) for _ in range(4)], np.uint8).reshape(2, 2, 3)
    if rng.random() < 0.5:
        corners[1] = corners[0]
    if rng.random() < 0.5:
        corners = corners.transpose(1, 0, 2)
    small = Image.fromarray(np.ascontiguousarray(corners))
    return small.resize((size_px, size_px), Image.Resampling.BILINEAR, box=(0.5, 0.5, 1.5, 1.5))


def _noise(size_px: int, rng: random.Random) -> Image.Image:
    cells = max(2, round(size_px ** rng.random()))
    is_gray = rng.random() < 0.3
    values = np.frombuffer(rng.randbytes(cells * cells * (1 if is_gray else 3)), np.uint8).reshape(cells, cells, -1)
    image = Image.fromarray(np.broadcast_to(values, (cells, cells, 3)).copy())
    image = image.resize((size_px, size_px), Image.Resampling.BILINEAR)
    return Image.blend(_flat(size_px, rng), image, 0.2 + 0.8 * rng.random())


def _texture(size_px: int, rng: random.Random) -> Image.Image:
    side = 6 + int(rng.random() * max(1, size_px // 8))
    first, second = _color(rng), _color(rng)
    tile = Image.new("RGB", (side, side), first)
    canvas = ImageDraw.Draw(tile)
    half, pattern = side // 2, int(rng.random() * 5)
    if pattern == 0:  # checks
        canvas.rectangle((0, 0, half - 1, half - 1), second)
        canvas.rectangle((half, half, side, side), second)
    elif pattern == 1:  # bars, one way or the other
        canvas.rectangle((0, 0, half - 1, side) if rng.random() < 0.5 else (0, 0, side, half - 1), second)
    elif pattern == 2:  # dots
        canvas.ellipse((side // 4, side // 4, side - side // 4, side - side // 4), second)
    elif pattern == 3:  # slanting lines: they meet at the tile's edges
        for place in (-side, 0, side):
            canvas.line((place, side, place + side, 0), second, max(1, side // 5))
    else:  # grain
        cells = np.frombuffer(rng.randbytes(side * side * 3), np.uint8).reshape(side, side, 3)
        tile = Image.blend(tile, Image.fromarray(cells.copy()), 0.5)
    times = math.ceil(size_px / side)
    whole = np.tile(np.asarray(tile), (times, times, 1))[:size_px, :size_px]
    return Image.blend(Image.new("RGB", (size_px, size_px), first), Image.fromarray(whole), 0.3 + 0.7 * rng.random())


def _drawn(size_px: int, rng: random.Random) -> Image.Image:
    # sky, hills before it, and a few simple forms: what lies behind things has edges of its own
    image = _gradient(size_px, rng)
    canvas = ImageDraw.Draw(image)
    for layer in range(1 + int(rng.random() * 3)):
        base, swing = size_px * (0.45 + 0.18 * layer), size_px * 0.15 * rng.random()
        phase, waves = 2 * math.pi * rng.random(), 1 + 3 * rng.random()
        steps = range(0, size_px + 8, 8)
        ridge = [(x, round(base + swing * math.sin(phase + 2 * math.pi * waves * x / size_px))) for x in steps]
        canvas.polygon([*ridge, (size_px + 8, size_px), (0, size_px)], _color(rng))
    for _ in range(int(rng.random() * 6)):
        x, y, side = (size_px * rng.random(), size_px * rng.random(), size_px * (0.04 + 0.2 * rng.random()))
        corners = (x, y, x + side, y + side * (0.5 + rng.random()))
        (canvas.ellipse if rng.random() < 0.5 else canvas.rectangle)(corners, _color(rng))
    return image


def _color(rng: random.Random) -> Rgb:
    return int(rng.random() * 256), int(rng.random() * 256), int(rng.random() * 256)
