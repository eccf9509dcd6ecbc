import io

import numpy as np
import pytest
from PIL import Image

from eyesmith.errors import ImageError
from eyesmith.report.thumbnails import thumbnail


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def test_small_drawings_keep_every_pixel() -> None:
    drawing = Image.new("RGB", (72, 60), (10, 200, 30))
    made = thumbnail(encoded(drawing))
    assert (made.width, made.height, made.media_type) == (72, 60, "image/webp")
    assert decoded(made.data).tobytes() == drawing.tobytes()


def test_transparency_becomes_white() -> None:
    made = thumbnail(encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 0))))
    assert decoded(made.data).getpixel((4, 4)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1"])
def test_other_modes(mode: str) -> None:
    made = thumbnail(encoded(Image.new("RGB", (300, 100), "red").convert(mode), "TIFF"))
    assert (made.width, made.height) == (96, 32)


def test_photographs_stay_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 300, 3), dtype=np.uint8)
    assert len(thumbnail(encoded(Image.fromarray(noise))).data) < 12_000


def test_no_image() -> None:
    with pytest.raises(ImageError):
        thumbnail(b"no image")
