"""Small encoded copies of pictures, for embedding in a page."""

import io

from PIL import Image

from eyesmith.images import open_image
from eyesmith.report.content import Picture

SIDE_PX = 96
LOSSLESS_BYTES = 6000  # flat drawings stay below this without loss; photographs do not and are compressed instead


def thumbnail(data: bytes, *, side_px: int = SIDE_PX) -> Picture:
    """An RGB copy on white of an encoded image, longest side at most `side_px`, never enlarged, as WebP.

    Raises ImageError when `data` is no image.
    """
    image = open_image(data)
    if image.mode in ("RGBA", "LA", "PA", "P") and (image.mode != "P" or "transparency" in image.info):
        layer = image.convert("RGBA")
        image = Image.new("RGBA", layer.size, "white")
        image.alpha_composite(layer)
    image = image.convert("RGB")
    image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    encoded = _encode(image, lossless=True)
    if len(encoded) > LOSSLESS_BYTES:
        encoded = _encode(image, lossless=False)
    return Picture(data=encoded, media_type="image/webp", width=image.width, height=image.height)


def _encode(image: Image.Image, *, lossless: bool) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=lossless, quality=80, method=4)
    return buffer.getvalue()
