"""Bytes to a loaded picture: safe for whatever a crawl or a user hands over, and fast for JPEG."""

import math
import os
import re
import stat
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Literal, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from eyesmith.errors import ConfigError, ImageError
from eyesmith.images.formats import open_header, refuse_unread, without_side_chunks

Exif = Literal["ignore", "apply"]
"""Whether a picture is turned as its EXIF orientation says."""
_ENCODED = (bytes, bytearray, memoryview, str, os.PathLike)
_Encoded = bytes | bytearray | memoryview | str | os.PathLike[str]
ImageSource = _Encoded | IO[bytes] | NDArray[np.uint8] | Image.Image
"""The bytes of an image file, its path, a file that is open for reading bytes, pixels [H, W, 3] or [H, W], an image."""

MAX_PIXELS = 89_478_485  # Pillow's own bound for a picture that is no decompression bomb: 256 MB of RGB
_SHORTEST_SCALED_PX = 64  # below, decoding in full costs nothing and n/8 of so few pixels is no clean scale
_BLOCK_PIXELS = 1 << 18
_TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_JPEG_MAGIC = b"\xff\xd8\xff"
_EXTRA_BYTES = re.compile(r"(\d+) extraneous bytes before marker (0x\w+)")  # as libjpeg says it, and the next
_HOLES = ("premature end of data", "bad Huffman code", "bad arithmetic code", "instead of RST")


def open_image(
    source: ImageSource, *, where: str | os.PathLike[str] = "image", max_pixels: int = MAX_PIXELS, exif: Exif = "ignore"
) -> Image.Image:
    """The first frame of a picture, fully loaded, in the mode its file has.

    source: an image file's bytes, its path, or it opened in binary mode; uint8 pixels [H, W, 3] (RGB) or [H, W] of
    numpy's; or a PIL image (returned itself when nothing has to change). where: how
    messages call it; the path when a path is given. max_pixels: width x height above which the header alone is
    reason to refuse. To go above MAX_PIXELS, raise PIL.Image.MAX_IMAGE_PIXELS too.
    Of an animation only the first frame is read. 16-bit greyscale is scaled to 8 bits (mode "L"): Pillow's own
    conversion, which open_clip inherits, clips it to white instead. So are 32-bit floats in 0..1 (in 0..255 they
    stay); of another range, and of 32-bit integers above 255, nobody says which value is white: refused. A JPEG with
    a hole, which Pillow reads and fills with grey, is found where simplejpeg is installed. exif: an EXIF
    orientation is not applied unless asked for, because open_clip does not apply it.
    Only the formats of `eyesmith.images.formats` are read; no picture starts a program.
    Raises ImageError: no such file, a folder, empty, no picture or one of another format, cut short or damaged, no
    pixels, too many pixels.
    """
    source = plain_source(source)
    if isinstance(source, Image.Image):
        refuse_unread(source, str(where))
        _check_size(source.size, str(where), max_pixels)
        return _eight_bit(_turn(_load(source, str(where)), exif), str(where))
    data = read_file(source)
    where = str(where) if isinstance(source, (bytes, bytearray, memoryview)) else os.fspath(source)
    if is_jpeg(data) and _has_simplejpeg():
        _refuse_hole(data, where, max_pixels)
    return _eight_bit(_turn(_load(_open(data, where, max_pixels), where), exif), where)


def decode(
    data: bytes,
    *,
    at_least_px: int | None = None,
    where: str = "image",
    max_pixels: int = MAX_PIXELS,
    backend: Literal["auto", "simplejpeg", "pillow"] = "auto",
    exif: Exif = "ignore",
) -> NDArray[np.uint8]:
    """Pixels of an encoded picture, [H, W, 3] uint8 RGB, as fast as the installed packages allow.

    at_least_px: a JPEG may come back smaller, scaled by 1/2, 1/4 or 1/8 while its shorter side keeps at least this
    many pixels; None: full size. The scaling happens on the DCT coefficients, so the pixels left out are never
    computed; sides are ceil(side x scale). backend: "simplejpeg" (libjpeg-turbo without Pillow's copies; the extra
    `fast`), "pillow" (its draft mode; the same scales), "auto": the first that is installed and can read the file.
    exif: as in `open_image`. Transparency is dropped, as in open_clip. Raises ImageError as `open_image` does.
    """
    if not data:
        raise ImageError(f"{where}: empty, 0 bytes; expected an image file")
    if backend not in ("auto", "simplejpeg", "pillow"):
        raise ConfigError(f"backend: expected 'auto', 'simplejpeg' or 'pillow', got {backend!r}")
    if is_jpeg(data) and backend != "pillow" and _has_simplejpeg():
        pixels = _decode_simplejpeg(data, at_least_px, where, max_pixels)
        if pixels is not None:
            turn = None if exif == "ignore" else _TURNS.get(_orientation(data, where, max_pixels))
            return pixels if turn is None else np.array(Image.fromarray(pixels).transpose(turn))
    image = _open(data, where, max_pixels)
    if image.format == "JPEG" and at_least_px is not None:
        scale = _dct_scale(min(image.size), at_least_px)
        image.draft(None, (image.width // scale, image.height // scale))  # rounded up, Pillow would scale less
    image = to_rgb(_eight_bit(_turn(_load(image, where), exif), where))
    return np.asarray(image)


def image_size(
    data: bytes, *, where: str = "image", max_pixels: int = MAX_PIXELS, exif: Exif = "ignore"
) -> tuple[int, int]:
    """(height, width) in pixels from the header alone. exif and errors: as of `open_image`."""
    if exif == "apply" and _orientation(data, where, max_pixels) >= 5:
        height, width = image_size(data, where=where, max_pixels=max_pixels)
        return width, height
    header = _jpeg_header(data) if is_jpeg(data) and _has_simplejpeg() else None
    if header is not None:
        _check_size((header[1], header[0]), where, max_pixels)
        return header[0], header[1]
    image = _open(data, where, max_pixels)
    return image.height, image.width


def is_jpeg(data: bytes) -> bool:
    """Whether the first bytes say JPEG."""
    return data.startswith(_JPEG_MAGIC)


def is_one_image(images: object) -> bool:
    """Whether this is one picture and not several."""
    if isinstance(images, np.ndarray):
        return images.ndim <= 3
    return isinstance(images, (*_ENCODED, Image.Image)) or hasattr(images, "read")


def plain_source(source: ImageSource) -> _Encoded | Image.Image:
    """An array as a PIL image, an open file as its bytes, anything else itself. Raises ImageError for what is none."""
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or not (source.ndim == 2 or (source.ndim == 3 and source.shape[2] in (3, 4))):
            raise ImageError(
                f"image: expected an array of uint8, [H, W, 3] or [H, W], got {source.dtype} {list(source.shape)}"
            )
        return Image.fromarray(source)
    if isinstance(source, (*_ENCODED, Image.Image)):
        return source
    data = source.read() if hasattr(source, "read") else source
    if not isinstance(data, bytes):
        what = "a file opened as text" if isinstance(data, str) else f"a {type(source).__name__}"
        raise ImageError(
            f"image: expected a path, bytes, a file opened in binary mode, an array or a PIL image, got {what}"
        )
    return data


def read_file(source: _Encoded) -> bytes:
    """The bytes of an image file (given bytes: themselves). Raises ImageError: no regular file, unreadable, empty."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        where, data = "image", bytes(source)
    else:
        path = os.fspath(source)
        where = repr(path) if "\0" in path else path
        if isinstance(path, str) and "://" in path:
            raise ImageError(f"{where}: is an address, and nothing is fetched here; give its bytes, or a file's path")
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would block for ever, a device never end
                raise ImageError(f"{where}: expected an image file, this is a folder or a device")
            data = Path(path).read_bytes()
        except FileNotFoundError:
            raise ImageError(f"{where}: no such file") from None
        except (OSError, ValueError) as error:
            raise ImageError(f"{where}: cannot be read: {error}") from error
    if not data:
        raise ImageError(f"{where}: empty, 0 bytes; expected an image file")
    return data


def to_rgb(image: Image.Image) -> Image.Image:
    """Mode "RGB", as `convert("RGB")` makes it: transparency is dropped, what lies under it shows."""
    if image.mode == "RGB":
        return image
    if isinstance(image.info.get("transparency"), bytes):
        # Pillow warns that a palette with alpha should become RGBA; the pixels of RGB do not depend on it
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def _turn(image: Image.Image, exif: Exif) -> Image.Image:
    """The picture as its orientation says, which it then has no more; itself where there is none."""
    return image if exif == "ignore" else ImageOps.exif_transpose(image)


def _orientation(data: bytes, where: str, max_pixels: int) -> int:
    """1 (as stored) to 8 (EXIF, tag 274)."""
    value = _open(data, where, max_pixels).getexif().get(ExifTags.Base.Orientation, 1)
    return value if value in _TURNS else 1


def _open(data: bytes, where: str, max_pixels: int) -> Image.Image:
    image = open_header(without_side_chunks(data), where)
    _check_size(image.size, where, max_pixels)
    return image


def _check_size(size: tuple[int, int], where: str, max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{where}: the image is {width} x {height}, it has no pixels")
    if width * height > max_pixels:
        raise ImageError(
            f"{where}: refused before decoding: {width} x {height} is more than {max_pixels:,} pixels; "
            "make the image smaller, or pass a larger max_pixels if you trust it"
        )


def _load(image: Image.Image, where: str) -> Image.Image:
    try:
        image.load()
    except Exception as error:  # as in _open: OSError, SyntaxError, struct.error, ValueError, EOFError ...
        raise ImageError(f"{where}: damaged or cut short: {error}") from error
    return image


def _eight_bit(image: Image.Image, where: str) -> Image.Image:
    """Greyscale of 16 bits, 257 levels to one, and of floats in 0..1 as "L", rounded; every other image unchanged."""
    # "I" of PNG and PPM is 0..65535, never 32 bits
    is_short = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if not is_short and image.mode not in ("I", "F"):
        return image
    levels = np.asarray(image)  # [H, W]
    factor = 1.0 if is_short else _white_factor(levels, where)
    if factor == 1.0 and not is_short:
        return image  # already 0..255: resized and cut to whole levels as the reference does it
    scaled = np.empty(levels.shape, np.uint8)
    rows = max(1, _BLOCK_PIXELS // image.width)
    for top in range(0, image.height, rows):  # in pieces: the largest picture would take a gigabyte on the way
        block = levels[top : top + rows]
        if is_short:
            scaled[top : top + rows] = (block.clip(0, 65535).astype(np.uint32) + 128) // 257
        else:
            scaled[top : top + rows] = (block.astype(np.float64) * factor + 0.5).astype(np.uint8)
    return Image.fromarray(scaled)


def _white_factor(levels: NDArray[np.generic], where: str) -> float:
    """What makes 0..255 of 32-bit levels [H, W]. Raises ImageError where they do not say what white is."""
    low, high = float(levels.min()), float(levels.max())
    is_float = levels.dtype.kind == "f"
    if low >= 0 and high <= 255:  # NaN fails both
        return 255.0 if is_float and high <= 1 else 1.0
    kind, known = ("floats", "0..1 or 0..255") if is_float else ("integers", "0..255")
    raise ImageError(
        f"{where}: greyscale of 32-bit {kind} from {low:g} to {high:g}, expected {known}: the file does not say which "
        "value is white; write it as 8 or 16 bits, scaled as you mean it"
    )


def _dct_scale(shorter_px: int, at_least_px: int) -> int:
    # 1/8, 1/4, 1/2: libjpeg-turbo has vector code for these alone; 3/8 .. 7/8 decode slower than the full picture
    if shorter_px < _SHORTEST_SCALED_PX:
        return 1
    return max((scale for scale in (1, 2, 4, 8) if math.ceil(shorter_px / scale) >= at_least_px), default=1)


@cache  # looking through sys.path costs as much as decoding a small picture
def _has_simplejpeg() -> bool:
    return find_spec("simplejpeg") is not None


def _jpeg_header(data: bytes) -> tuple[int, int, str] | None:
    """Height, width, colour space; None where it cannot be read: then Pillow judges and names the damage."""
    import simplejpeg

    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return int(height), int(width), colorspace


def _decode_simplejpeg(data: bytes, at_least_px: int | None, where: str, max_pixels: int) -> NDArray[np.uint8] | None:
    """None where the picture needs Pillow: CMYK, or damage that Pillow then judges and names."""
    import simplejpeg

    header = _jpeg_header(data)
    if header is None or header[2] not in ("YCbCr", "Gray", "RGB"):
        return None
    height, width, _ = header
    _check_size((width, height), where, max_pixels)
    scale = 1 if at_least_px is None else _dct_scale(min(height, width), at_least_px)
    least_height, least_width = math.ceil(height / scale), math.ceil(width / scale)
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=least_height, min_width=least_width)
        return cast(NDArray[np.uint8], pixels)
    except ValueError as error:
        _raise_if_hole(data, error, where)
        return None


def _refuse_hole(data: bytes, where: str, max_pixels: int) -> None:
    """Raise ImageError where a JPEG's compressed data are damaged, which Pillow does not tell.

    All of them are read, at 1/8 and in grey, so that little but the reading is done.
    """
    import simplejpeg

    header = _jpeg_header(data)
    if header is None or header[2] not in ("YCbCr", "Gray", "RGB"):
        return
    _check_size((header[1], header[0]), where, max_pixels)
    try:
        simplejpeg.decode_jpeg(data, "GRAY", min_height=math.ceil(header[0] / 8), min_width=math.ceil(header[1] / 8))
    except ValueError as error:
        _raise_if_hole(data, error, where)


def _raise_if_hole(data: bytes, error: ValueError, where: str) -> None:
    """Raise ImageError for a warning of libjpeg that says a part of the compressed data is lost or foreign."""
    extra = _EXTRA_BYTES.search(str(error))
    if extra and int(extra[2], 16) == 0xD9:  # before the end mark cameras pad, with one value
        end = data.rfind(b"\xff\xd9")
        is_hole = len(set(data[end - int(extra[1]) : end])) > 2
    else:  # of others, as of odd parameters, the picture is whole
        is_hole = bool(extra) or any(words in str(error) for words in _HOLES)
    if is_hole:
        raise ImageError(f"{where}: damaged, a part of the picture is missing: {error}") from None
