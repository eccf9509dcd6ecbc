import io
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from PIL import Image


@cache
def _natural(height: int, width: int, seed: int = 0) -> Image.Image:
    """Like a photograph: amplitude 1/f, channels that mostly agree, and hard edges of discs."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width)
    shared = rng.standard_normal((height, width))
    channels = []
    for _ in range(3):
        spectrum = np.fft.rfft2(0.8 * shared + 0.2 * rng.standard_normal((height, width))) / np.maximum(frequency, 1)
        channel = np.fft.irfft2(spectrum, (height, width))
        channels.append(128 + 50 * (channel - channel.mean()) / channel.std())
    pixels = np.stack(channels, axis=-1)
    y, x = np.mgrid[:height, :width]
    for _ in range(25):
        radius = rng.uniform(0.03, 0.2) * min(height, width)
        disc = (y - rng.uniform(0, height)) ** 2 + (x - rng.uniform(0, width)) ** 2 < radius**2
        pixels[disc] = 0.4 * pixels[disc] + 0.6 * rng.uniform(0, 255, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture(scope="session")
def natural() -> Callable[..., Image.Image]:
    return _natural


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    return _encoded
