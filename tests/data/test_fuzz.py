"""Tars and pictures with damaged headers: nothing hangs, grows, starts a program or escapes but errors of our family.

About a minute in all. EYESMITH_FUZZ=10 makes ten times as many inputs, others than those of a shorter run after it.
"""

import io
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HANG_S = 120.0  # fuzz_reader.py bounds the processor time of an input; this is for one that waits
NUM_TARS, NUM_PICTURES = 9000, 9000
TIMES = int(os.environ.get("EYESMITH_FUZZ", "1"))
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


class Reader:
    """The process of fuzz_reader.py, with limits on the time of each input."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).with_name("fuzz_reader.py")), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "EYESMITH_CACHE": str(folder / "cache")},
        )

    def read(self, kind: bytes, content: bytes) -> str | None:
        """What went wrong with an input, None for nothing."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        timer = threading.Timer(HANG_S, self.process.kill)
        timer.start()
        self.process.stdin.write(struct.pack(">cI", kind, len(content)) + content)
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        timer.cancel()
        if not answer:
            status = self.process.wait()
            reasons = {3: "it started a process", -9: "it hangs", -signal.SIGXCPU: "it took more than 10 s"}
            return reasons.get(status, f"the process ended with status {status}")
        return json.loads(answer)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def fuzz(tmp_path: Path, kind: bytes, count: int, make: Callable[[random.Random], bytes]) -> None:
    reader = Reader(tmp_path / "reader")
    try:
        for number in range(count * TIMES):
            content = make(random.Random(f"{TIMES} {number}"))
            wrong = reader.read(kind, content)
            if wrong is not None:
                (tmp_path / "input").write_bytes(content)
                pytest.fail(f"input {number}, kept as {tmp_path / 'input'} ({len(content):,} bytes): {wrong}")
    finally:
        reader.close()


@cache
def tars() -> list[bytes]:
    found = []
    names = ["a.png", "a.txt", "a.json", "a.cls", "b.jpg", "b.txt", "d/" * 70 + "c.png", "d/" * 70 + "c.txt", "ä.webp"]
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
            for number, name in enumerate(names):
                if form == tarfile.USTAR_FORMAT and len(name) > 100:
                    continue
                content = b'{"cls": 1, "uid": "x", "texts": ["y"]}' if name.endswith("json") else b"7" * (number * 100)
                info = tarfile.TarInfo(name)
                info.size = len(content)
                info.mtime = 1.5 if form == tarfile.PAX_FORMAT else 1
                tar.addfile(info, io.BytesIO(content))
            link = tarfile.TarInfo("b.cls")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
        found.append(stream.getvalue())
    return found


def damaged_tar(rng: random.Random) -> bytes:
    content = bytearray(rng.choice(tars()))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        block = rng.randrange(len(content) // 512) * 512
        choice = rng.randrange(10)
        if choice < 5:
            digits = str(rng.choice((*EXTREMES, 1 << 62, 1 << 63, 1 << 64, 511, 512, 513, 1024)))
            size = rng.choice(
                [
                    *[f"{sign}{digits}".encode() for sign in ("-", "+", "", "0o", " ", "-0000")],
                    b"%o" % int(digits),
                    b"-%o" % rng.randrange(1 << 20),
                    bytes([rng.choice((0x80, 0xFF, 0xC0))]) + rng.randbytes(11),
                    b"\xff" * 8 + struct.pack(">i", -rng.randrange(1, 1 << 20)),
                    rng.randbytes(12),
                ]
            )
            content[block + 124 : block + 136] = size.ljust(12, b"\0")[:12]
        elif choice < 7:
            content[block + 156] = rng.choice(b"01234567LKxgSVDMNA\0\xff")
            content[block + 482] = rng.choice((0, 1))
        elif choice < 8:
            place = block + rng.randrange(512)
            content[place : place + 4] = rng.randbytes(4)
        elif choice < 9:
            records = [
                b"size=-512",
                b"size=99999999999999999999",
                b"path=a\0b.txt",
                b"GNU.sparse.major=1",
                b"size=\xc2\xb2",
            ]
            record = b" " + rng.choice(records) + b"\n"
            length = rng.choice((len(record) + 2, len(record) + 2, -5, 0, 10**15, rng.randrange(99)))
            content[block + 512 : block + 1024] = (str(length).encode() + record).ljust(512, b"\0")
            content[block + 156], content[block + 124 : block + 136] = ord("x"), b"%011o\0" % 512
        else:
            other = rng.choice(tars())
            start = rng.randrange(len(other) // 512) * 512
            content[block:block] = other[start : start + 1024]
        if rng.random() < 0.9:
            content[block + 148 : block + 156] = b" " * 8
            content[block + 148 : block + 156] = b"%06o\0 " % sum(content[block : block + 512])
    return bytes(content[: rng.randrange(len(content))]) if rng.random() < 0.1 else bytes(content)


@cache
def pictures() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    sixteen = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    others = [picture.rotate(90), picture.rotate(180)]
    several: dict[str, object] = {}
    saved = [
        *((picture.convert(mode), "PNG", {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")),
        (sixteen, "PNG", {}),
        (picture, "PNG", several),
        *((picture.convert(mode), "JPEG", {}) for mode in ("RGB", "L", "CMYK")),
        (picture, "JPEG", {"progressive": True, "exif": Image.Exif()}),
        (picture, "MPO", several),
        (picture.convert("P"), "GIF", {}),
        (picture, "GIF", several),
        (picture, "WEBP", {}),
        (picture.convert("RGBA"), "WEBP", {"lossless": True}),
        (picture, "WEBP", several),
        (picture, "AVIF", {}),
        *((picture.convert(mode), "BMP", {}) for mode in ("RGB", "RGBA", "P", "1", "L")),
        (picture, "DIB", {}),
        (picture, "TIFF", {}),
        *((picture, "TIFF", {"compression": name}) for name in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")),
        (picture.convert("1"), "TIFF", {"compression": "group4"}),
        (sixteen, "TIFF", {}),
        (picture, "TIFF", several),
        *((picture.convert(mode), "PPM", {}) for mode in ("RGB", "L", "1")),
        (picture, "JPEG2000", {}),
        (picture.convert("RGBA"), "JPEG2000", {"irreversible": True, "tile_size": (16, 16)}),
        *((picture, name, {}) for name in ("ICO", "TGA", "PCX", "SGI", "ICNS", "EPS", "PDF", "IM", "DDS", "QOI")),
    ]
    found = [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n{} loop\n", b"P3 2 2 255 " + b"9 " * 12]
    for image, name, options in saved:
        is_several = options is several
        stream = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            more = {"save_all": True, "append_images": [one.copy() for one in others]} if is_several else {}
            image.copy().save(stream, name, **options, **more)  # copies: Pillow keeps options at an image it saved
        found.append(stream.getvalue())
    return found


def damaged_picture(rng: random.Random) -> bytes:
    content = bytearray(rng.choice(pictures()))
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        reach = min(len(content), rng.choice((32, 64, 256, 1024, 1 << 20)))
        place = rng.randrange(reach)
        choice = rng.randrange(8)
        if choice < 2:
            content[place] = rng.randrange(256)
        elif choice < 5:
            value, order = rng.choice(EXTREMES), rng.choice("<>")
            width = rng.choice("HI") if value < 1 << 16 else "I"
            content[place : place + struct.calcsize(width)] = struct.pack(order + width, value)
        elif choice < 6:
            del content[place : place + rng.randrange(1, 16)]
        elif choice < 7:
            content[place:place] = content[place : place + rng.randrange(1, 64)]
        else:
            other = rng.choice(pictures())
            content[place:] = other[min(place, len(other)) :]
        if not content:
            break
    return bytes(content[: rng.randrange(len(content) + 1)]) if rng.random() < 0.1 else bytes(content)


@pytest.mark.slow
def test_tars_with_damaged_headers(tmp_path: Path) -> None:
    fuzz(tmp_path, b"t", NUM_TARS, damaged_tar)


@pytest.mark.slow
def test_pictures_with_damaged_headers(tmp_path: Path) -> None:
    fuzz(tmp_path, b"p", NUM_PICTURES, damaged_picture)
