"""SVG drawings to RGB PNG bytes."""

import io

from PIL import Image

from eyesmith.errors import DataError, MissingDependencyError


def render_svg(svg: str, *, size_px: int, where: str = "drawing") -> bytes:
    """Rasterise `svg` to a square PNG: RGB, uint8, size_px x size_px, on white, centred with its aspect kept.

    Raises DataError naming `where` when the drawing cannot be rendered, MissingDependencyError without resvg-py.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise MissingDependencyError("drawings are rasterised by resvg-py: pip install 'eyesmith[demo]'") from error
    try:
        # system fonts are left out: a drawing must not look different from one machine to the next
        raw = resvg_py.svg_to_bytes(
            svg_string=svg, width=size_px, height=size_px, background="#ffffff", skip_system_fonts=True
        )
    except ValueError as error:
        raise DataError(f"{where}: resvg cannot draw it ({error})") from error
    with Image.open(io.BytesIO(bytes(raw))) as image:
        pixels = image.convert("RGB")  # the background is opaque, so dropping alpha changes nothing
    if pixels.size != (size_px, size_px):
        raise DataError(f"{where}: expected {size_px} x {size_px} px, resvg drew {pixels.size[0]} x {pixels.size[1]}")
    return png_bytes(pixels)


def png_bytes(image: Image.Image) -> bytes:
    """`image` as PNG without any metadata: equal pixels give equal bytes."""
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=6)
    return stream.getvalue()
