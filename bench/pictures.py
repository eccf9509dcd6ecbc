"""JPEG files that cost a decoder what photographs cost it, and shards of them."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def jpegs(height: int, width: int, *, num_bytes: int, count: int, seed: int = 0) -> list[bytes]:
    """Distinct pictures of height x width pixels as JPEG files, 4:2:0, at the quality whose size is next to num_bytes.

    A picture has the spectrum of photographs (amplitude 1 / frequency), channels that mostly agree, and 25 discs with
    hard edges. A decoder's time follows the pixels and, through the entropy code, the bytes; both are given here.
    """
    return [_jpeg(_picture(height, width, seed + number), num_bytes) for number in range(count)]


def write_shards(folder: Path, pictures: list[bytes], *, num_shards: int, per_shard: int) -> list[str]:
    """Shards as img2dataset writes them (jpg, txt, json), the pictures in turn. Returns the keys, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = [f"{shard:05d}{number:04d}" for shard in range(num_shards) for number in range(per_shard)]
    for shard in range(num_shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number, key in enumerate(keys[shard * per_shard : (shard + 1) * per_shard], start=shard * per_shard):
                caption = f"a photo of thing {number}"
                facts = {"key": key, "caption": caption, "status": "success", "url": f"https://example.org/{number}"}
                for name, content in (
                    ("jpg", pictures[number % len(pictures)]),
                    ("json", json.dumps(facts).encode()),
                    ("txt", caption.encode()),
                ):
                    member = tarfile.TarInfo(f"{key}.{name}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return keys


def _picture(height: int, width: int, seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width)
    shared = rng.standard_normal((height, width))
    channels = []
    for _ in range(3):
        noise = 0.8 * shared + 0.2 * rng.standard_normal((height, width))
        channel = np.fft.irfft2(np.fft.rfft2(noise) / np.maximum(frequency, 1), (height, width))
        channels.append(128 + 50 * (channel - channel.mean()) / channel.std())
    pixels = np.stack(channels, axis=-1)  # [H, W, 3]
    y, x = np.mgrid[:height, :width]
    for _ in range(25):
        radius = rng.uniform(0.03, 0.2) * min(height, width)
        disc = (y - rng.uniform(0, height)) ** 2 + (x - rng.uniform(0, width)) ** 2 < radius**2
        pixels[disc] = 0.4 * pixels[disc] + 0.6 * rng.uniform(0, 255, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _jpeg(picture: Image.Image, num_bytes: int) -> bytes:
    low, high = 50, 98  # the size grows with the quality
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if len(_encoded(picture, middle)) <= num_bytes else (low, middle)
    return min((_encoded(picture, quality) for quality in (low, high)), key=lambda data: abs(len(data) - num_bytes))


def _encoded(picture: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return stream.getvalue()
