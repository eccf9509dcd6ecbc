import contextlib
import io
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from eyesmith.errors import ConfigError, ImageError
from eyesmith.images import decode as decode_module
from eyesmith.images.decode import MAX_PIXELS, decode, image_size, open_image, read_file, to_rgb


def _png(width: int, height: int, rows: bytes) -> bytes:
    """A one-bit greyscale PNG whose compressed rows are given, so that its header may claim any size."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        png += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return png


def test_open_image_gives_the_file_in_its_own_mode(natural, encoded, tmp_path: Path) -> None:
    picture = natural(20, 30)
    for mode in ("RGB", "L", "RGBA", "P", "LA", "1"):
        assert open_image(encoded(picture.convert(mode))).mode == mode
    path = tmp_path / "picture.png"
    picture.save(path)
    for source in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), memoryview(path.read_bytes())):
        np.testing.assert_array_equal(np.asarray(open_image(source)), np.asarray(picture))
    assert open_image(picture) is picture


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_a_file_cut_short_is_an_image_error(natural, encoded, kind: str, share: float) -> None:
    whole = encoded(natural(64, 96), kind)
    cut = whole[: int(len(whole) * share)]
    for read in (open_image, decode):
        with pytest.raises(ImageError, match="photo 7"):
            read(cut, where="photo 7")


@pytest.mark.parametrize("data", [b"hello, this is text", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\0" * 64])
def test_what_is_no_image_is_an_image_error(data: bytes) -> None:
    for read in (open_image, decode):
        with pytest.raises(ImageError, match="page 3"):
            read(data, where="page 3")


def test_damaged_bytes_give_an_image_or_an_image_error(natural, encoded) -> None:
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP"):
        whole = np.frombuffer(encoded(natural(32, 40), kind), np.uint8)
        for _ in range(25):
            damaged = whole.copy()
            damaged[rng.integers(0, len(whole), 4)] = rng.integers(0, 256, 4)
            for read in (open_image, decode):
                with contextlib.suppress(ImageError):
                    read(damaged.tobytes())


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "empty.jpg"
    path.touch()
    for source in (path, b""):
        with pytest.raises(ImageError, match="0 bytes"):
            open_image(source)
    with pytest.raises(ImageError, match="0 bytes"):
        decode(b"")


def test_a_path_that_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"here\.png: no such file"):
        open_image(tmp_path / "not here.png")
    with pytest.raises(ImageError, match="folder"):
        open_image(tmp_path)
    with pytest.raises(ImageError, match=r"'a\\x00b\.png': cannot be read"):
        open_image("a\0b.png")
    with pytest.raises(ImageError, match="cannot be read"):
        open_image("x" * 5000)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="device"):
        read_file(tmp_path / "pipe.png")


def test_a_bomb_is_refused_by_its_header() -> None:
    rows = zlib.compress(bytes(1 + 20_000 // 8) * 20_000, 9)  # complete and valid: 50 MB of rows in 50 KB
    bomb = _png(20_000, 20_000, rows)
    assert len(bomb) < 60_000
    for read in (open_image, decode, image_size):
        with pytest.raises(ImageError, match=r"poster: refused before decoding.*pixels"):
            read(bomb, where="poster")


def test_a_header_that_lies_about_its_size_allocates_nothing() -> None:
    with pytest.raises(ImageError, match="refused before decoding"):
        open_image(_png(2**31 - 1, 2**31 - 1, zlib.compress(b"")))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_max_pixels_is_a_bound_on_width_times_height(natural, encoded, kind: str) -> None:
    data = encoded(natural(30, 40), kind)
    for read in (open_image, decode, image_size):
        read(data, max_pixels=1200)
        with pytest.raises(ImageError, match="40 x 30 is more than 1,199 pixels"):
            read(data, max_pixels=1199)
    with pytest.raises(ImageError, match="40 x 30"):
        open_image(natural(30, 40), max_pixels=1199)
    assert MAX_PIXELS == Image.MAX_IMAGE_PIXELS


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(ImageError, match="no pixels"):
        open_image(Image.new("RGB", (0, 5)))


def test_an_animation_gives_its_first_frame(encoded) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    for kind, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)
        assert to_rgb(open_image(data)).getpixel((4, 4)) == (255, 0, 0)
        assert decode(data)[4, 4].tolist() == [255, 0, 0]


def test_sixteen_bits_are_scaled_and_not_clipped(encoded) -> None:
    levels = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    expected = np.round(levels / 257).astype(np.uint8)  # no half occurs: 257 is odd
    picture = Image.fromarray(levels)
    assert picture.mode == "I;16"
    pgm = b"P5 6 1 65535\n" + levels.astype(">u2").tobytes()
    for source in (picture, encoded(picture, "PNG"), encoded(picture, "TIFF"), pgm):
        opened = open_image(source)
        assert opened.mode == "L"
        np.testing.assert_array_equal(np.asarray(opened), expected)
    assert decode(encoded(picture))[..., 0].tolist() == expected.tolist()


def test_a_palette_with_transparency_becomes_its_colors(encoded) -> None:
    palette = Image.new("P", (4, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 8, 7])
    palette.putdata([0, 1, 2, 3])
    data = encoded(palette, transparency=bytes([0, 128, 255, 255]))
    opened = open_image(data)
    assert "transparency" in opened.info
    expected = [[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]]]
    assert np.asarray(to_rgb(opened)).tolist() == expected
    assert decode(data).tolist() == expected
    assert "transparency" in opened.info  # the caller's image is as it was


def test_cmyk_and_gray_jpegs_become_rgb(natural, encoded) -> None:
    for mode in ("CMYK", "L"):
        data = encoded(natural(64, 80).convert(mode), "JPEG")
        assert open_image(data).mode == mode
        for backend in ("auto", "pillow"):
            pixels = decode(data, backend=backend)
            assert pixels.shape == (64, 80, 3)
            assert pixels.dtype == np.uint8
            np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_one_pixel_is_an_image(encoded) -> None:
    for kind in ("PNG", "JPEG"):
        data = encoded(Image.new("RGB", (1, 1), "white"), kind)
        assert open_image(data).size == (1, 1)
        assert decode(data, at_least_px=32).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("backend", ["simplejpeg", "pillow"])
@pytest.mark.parametrize(
    ("size", "at_least_px", "scale"),
    [
        ((300, 401), None, 1),
        ((300, 401), 151, 1),
        ((301, 401), 151, 2),
        ((300, 401), 150, 2),
        ((300, 401), 75, 4),
        ((300, 401), 1, 8),
        ((401, 300), 150, 2),
        ((63, 200), 8, 1),
        ((65, 64), 8, 8),
        ((127, 126), 17, 4),
        ((127, 127), 16, 8),
    ],
)
def test_decode_scales_to_the_smallest_power_that_is_large_enough(
    natural, encoded, size: tuple[int, int], at_least_px: int | None, scale: int, backend: str
) -> None:
    if backend == "simplejpeg":
        pytest.importorskip("simplejpeg")
    data = encoded(natural(*size), "JPEG")
    pixels = decode(data, at_least_px=at_least_px, backend=backend)
    assert pixels.shape == (-(-size[0] // scale), -(-size[1] // scale), 3)
    assert image_size(data) == size


def test_decode_scaled_looks_like_the_picture_scaled(natural, encoded) -> None:
    data = encoded(natural(256, 320), "JPEG", quality=90)
    whole = decode(data).astype(float)
    for scale in (2, 4, 8):
        blocks = whole.reshape(256 // scale, scale, 320 // scale, scale, 3).mean((1, 3))
        for backend in ("auto", "pillow"):
            error = decode(data, at_least_px=256 // scale, backend=backend) - blocks
            assert 10 * np.log10(255**2 / (error**2).mean()) > 30


def test_both_backends_give_equal_pixels(natural, encoded) -> None:
    pytest.importorskip("simplejpeg")
    for options in ({"quality": 90}, {"quality": 50, "subsampling": 0}, {"progressive": True}):
        data = encoded(natural(101, 67), "JPEG", **options)
        np.testing.assert_array_equal(decode(data, backend="simplejpeg"), decode(data, backend="pillow"))


def test_without_simplejpeg_pillow_serves(natural, encoded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "_has_simplejpeg", lambda: False)
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    data = encoded(natural(128, 128), "JPEG")
    assert decode(data, at_least_px=64).shape == (64, 64, 3)
    assert image_size(data) == (128, 128)


def test_an_exif_orientation_is_not_applied(natural, encoded) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    data = encoded(natural(64, 96), "JPEG", exif=exif)
    assert open_image(data).size == (96, 64)
    assert decode(data).shape == (64, 96, 3)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ConfigError, match="backend"):
        decode(b"\xff\xd8\xff", backend="opencv")


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_floats_in_0_to_1_and_in_0_to_255_become_levels(scale: float) -> None:
    levels = np.linspace(0, scale, 48 * 40, dtype=np.float32).reshape(40, 48)
    opened = open_image(_tiff(levels))
    assert opened.mode == ("L" if scale == 1.0 else "F")  # floats in 0..255 are converted as Pillow does it
    assert np.abs(np.asarray(opened) - levels / scale * 255).max() <= 0.5 + 1e-4
    assert np.abs(decode(_tiff(levels))[..., 0] - levels / scale * 255).max() < 1


@pytest.mark.parametrize(
    "levels",
    [
        np.arange(1920, dtype=np.int32).reshape(40, 48) * 1_000_003,
        np.arange(1920, dtype=np.float32).reshape(40, 48) - 3.5,
        np.full((40, 48), np.nan, np.float32),
    ],
    ids=["integers", "floats", "nan"],
)
def test_32_bits_that_do_not_say_what_white_is_are_refused(levels: np.ndarray) -> None:
    """Pillow makes them all white or all black without a word."""
    for read in (open_image, decode):
        with pytest.raises(
            ImageError, match=r"scan\.tif: greyscale of 32-bit (integers|floats) from .* expected 0\.\."
        ):
            read(_tiff(levels), where="scan.tif")
    with pytest.raises(ImageError, match="32-bit"):
        open_image(Image.fromarray(levels))


def test_integers_of_32_bits_that_are_8_bit_levels_are_read() -> None:
    levels = (np.arange(1920, dtype=np.int32) % 256).reshape(40, 48)
    assert np.array_equal(np.asarray(open_image(_tiff(levels))), levels)


def _tiff(levels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "TIFF")
    return file.getvalue()


@pytest.mark.parametrize("damage", ["cut", "zeros", "noise"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_with_a_hole_is_an_image_error(natural, damage: str, progressive: bool) -> None:
    """Its end mark is there, so Pillow fills the rest with grey and says nothing."""
    pytest.importorskip("simplejpeg")
    file = io.BytesIO()
    natural(200, 300).save(file, "JPEG", quality=90, progressive=progressive)
    data = file.getvalue()
    first, last = len(data) // 2, len(data) * 4 // 5
    middle = {"cut": b"", "zeros": bytes(last - first), "noise": bytes(range(1, 255)) * 200}[damage][: last - first]
    broken = data[:first] + middle + data[last:]
    for read in (open_image, decode):
        with pytest.raises(ImageError, match=r"photo\.jpg: damaged"):
            read(broken, where="photo.jpg")
        read(data)
        read(data[:-2] + bytes(100) + data[-2:])  # as cameras pad it


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("chunk", ["zTXt", "iTXt", "tEXt", "iCCP"])
def test_a_png_with_large_texts_or_colours_is_read(natural, encoded, chunk: str, place: str) -> None:
    """Any browser shows it; Pillow refuses what unpacks to more than 1 MiB."""
    if (chunk, place) == ("iCCP", "after"):
        pytest.skip("a profile stands before the pixels")
    data = encoded(natural(32, 48), "PNG")
    large = b"comment " * 400_000
    body = {
        "zTXt": b"Comment\0\0" + zlib.compress(large),
        "iTXt": b"Comment\0\1\0en\0\0" + zlib.compress(large),
        "tEXt": b"Comment\0" + large,
        "iCCP": b"profile\0\0" + zlib.compress(large),
    }[chunk]
    added = len(body).to_bytes(4, "big") + chunk.encode() + body
    added += zlib.crc32(chunk.encode() + body).to_bytes(4, "big")
    at = 33 if place == "before" else data.rindex(b"IEND") - 4
    large_png = data[:at] + added * (1 if chunk == "iCCP" else 3) + data[at:]
    assert np.array_equal(np.asarray(open_image(large_png)), np.asarray(open_image(data)))
    assert np.array_equal(decode(large_png), decode(data))
    assert image_size(large_png) == (32, 48)


def test_small_texts_of_a_png_stay(natural) -> None:
    file, info = io.BytesIO(), PngInfo()
    info.add_text("Title", "a cat")
    info.add_text("Comment", "x" * 3000, zip=True)
    natural(32, 48).save(file, "PNG", pnginfo=info)
    assert open_image(file.getvalue()).info["Title"] == "a cat"
