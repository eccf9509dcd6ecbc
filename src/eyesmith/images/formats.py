"""The one place that opens an encoded picture: an allow-list of formats, because Pillow goes by content and some of
its readers start a program (EPS: Ghostscript), hand the file to the system (WMF) or were never meant for pictures.
"""

import io
import zlib
from functools import cache

from PIL import Image, ImageFile, UnidentifiedImageError

from eyesmith.errors import ImageError

# What data sets and crawls hold. MPO, the JPEG of stereo cameras and phones, comes with JPEG. Left out although
# harmless today: TGA, which has no signature, so that any damaged file may pass for one; ICO, PSD and others, which no
# data set is kept in.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000")
_LOADED_AS = (*FORMATS, "MPO")

_PREFIX_BYTES = 16  # what Pillow shows its readers to recognise a format by
_OTHERS = (  # what Pillow does not know: first bytes in lower case, where they stand, what people call it
    (b"%pdf", 0, "PDF"),
    (b"ftyphei", 4, "HEIC"),
    (b"ftypmif1", 4, "HEIC"),
    (b"\xff\x0a", 0, "JPEG XL"),
    (b"jxl ", 4, "JPEG XL"),
    (b"<svg", 0, "SVG"),
    (b"<?xml", 0, "XML (an SVG drawing?)"),
    (b"<!doctype", 0, "a web page"),
    (b"<html", 0, "a web page"),
    (b"version https://", 0, "a Git LFS pointer, not the file itself"),
)
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_SIDE_CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_MOST_TEXT_BYTES, _MOST_TEXTS_BYTES = (
    (1 << 20) - 80,
    32 << 20,
)  # below Pillow's own bounds, of one chunk and of all texts
_CONVERT = "convert it to PNG or JPEG with a program you trust"


def open_header(data: bytes, where: str) -> ImageFile.ImageFile:
    """A picture of one of FORMATS with its header read and its pixels not yet; `where` is how messages call it.

    No reader of another format sees the bytes. Raises ImageError: another format (named where its first bytes tell),
    no picture, damaged, or more pixels than Pillow takes for a decompression bomb.
    """
    try:
        return Image.open(io.BytesIO(data), formats=_installed())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{where}: refused before decoding, too many pixels: {error}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{where}: {_what(data)}") from None
    except Exception as error:  # a damaged header raises whatever its plugin stumbled over
        raise ImageError(f"{where}: damaged image file: {error}") from error


def without_side_chunks(data: bytes) -> bytes:
    """The bytes of a PNG without the texts and colour profiles that Pillow would refuse the whole picture for.

    Pillow bounds what a chunk unpacks to (1 MiB), against bombs; a browser leaves such a chunk out and shows the
    picture, and so do we: no pixel depends on them. Other bytes, a damaged PNG included, come back as they are.
    """
    if not data.startswith(_PNG_MAGIC):
        return data
    kept: list[bytes] = [_PNG_MAGIC]
    place, texts = len(_PNG_MAGIC), 0
    is_cut = False
    while place + 12 <= len(data):
        length, name = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        end = place + 12 + length
        if name in _SIDE_CHUNKS:
            size = _unpacked_bytes(name, data[place + 8 : end - 4])
            texts += size
            if size > _MOST_TEXT_BYTES or texts > _MOST_TEXTS_BYTES:
                is_cut = True
                texts -= size
                place = end
                continue
        kept.append(data[place:end])
        place = end
    return b"".join(kept) + data[place:] if is_cut else data


def _unpacked_bytes(name: bytes, body: bytes) -> int:
    """Bytes that a chunk of text or profile unpacks to, counted no further than is allowed."""
    keyword, _, rest = body.partition(b"\0")
    if name == b"tEXt" or (name == b"iTXt" and rest[:1] != b"\1"):
        return len(body)
    packed = rest[1:]  # after the method
    if name == b"iTXt":
        packed = rest[2:].split(b"\0", 2)[-1]  # after language and translated keyword
    try:
        return len(keyword) + len(zlib.decompressobj().decompress(packed, _MOST_TEXT_BYTES + 1))
    except zlib.error:
        return len(body)


def refuse_unread(image: Image.Image, where: str) -> None:
    """Raise ImageError for a PIL image of another format whose pixels are not read yet: reading runs its reader."""
    if not isinstance(image, ImageFile.ImageFile) or image.format in _LOADED_AS:
        return
    if image.tile or isinstance(image, ImageFile.StubImageFile):
        raise ImageError(
            f"{where}: this is {image.format}, which is not read here, because reading it may start a program; "
            f"{_CONVERT}, or call its load() yourself"
        )


@cache
def _installed() -> tuple[str, ...]:
    Image.init()  # else Pillow would look for a name it does not know in all its plugins, once a picture
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _what(data: bytes) -> str:
    """Why bytes that no allowed reader takes are refused."""
    prefix = data[:_PREFIX_BYTES].ljust(_PREFIX_BYTES, b"\0")  # Pillow's own tests of a prefix fail on shorter ones
    names = [name for name, (_, accept) in Image.OPEN.items() if accept is not None and accept(prefix) is True]
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    names += [name for magic, place, name in _OTHERS if start[place:].startswith(magic)]
    if not names:
        return f"not an image of a known format ({len(data)} bytes)"
    if names[0] in FORMATS:
        return f"not a readable image: it starts like {names[0]}, but its header is damaged ({len(data)} bytes)"
    return f"this is {names[0]}, which is not read as a picture (read are {', '.join(FORMATS)}); {_CONVERT}"
