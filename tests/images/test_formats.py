"""Which pictures are opened, and that opening one starts nothing: payloads here leave a mark where they run."""

import ast
import io
import os
import struct
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

import eyesmith
from eyesmith.data.check import check
from eyesmith.data.sample import IMAGE_EXTENSIONS
from eyesmith.errors import ImageError
from eyesmith.images.decode import decode, image_size, open_image
from eyesmith.images.formats import FORMATS

SOURCES = Path(eyesmith.__file__).parent
READ = {*FORMATS, "MPO"}
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.startfile")
_started: list[str] | None = None


def _listen(event: str, _: object) -> None:
    if _started is not None and event in STARTS:
        _started.append(event)


sys.addaudithook(_listen)  # sees what starts a process however it is called; it cannot be taken off, so it is a switch


@contextmanager
def nothing_starts() -> Iterator[None]:
    global _started
    _started = []
    try:
        yield
        assert _started == []
    finally:
        _started = None


def eps(mark: Path) -> bytes:
    """An EPS picture whose PostScript writes the file `mark` and draws nothing."""
    return (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n"
        + f"({mark}) (w) file dup (ran) writestring closefile\nshowpage\n%%EOF\n".encode()
    )


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mark left when any `gs` is called, be one installed or not."""
    mark, folder = tmp_path / "gs-ran", tmp_path / "bin"
    folder.mkdir()
    (folder / "gs").write_text(f"#!/bin/sh\necho ran >> '{mark}'\n")
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # what was looked up before, in another PATH
    return mark


def _saved() -> dict[str, bytes]:
    """A picture in every format that this Pillow can write without a handler of the user's."""
    Image.init()
    modes = {"XBM": "1", "MSP": "1", "PALM": "P", "SPIDER": "F", "BLP": "P"}
    found = {}
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    for name in sorted({*Image.SAVE} - {"BUFR", "GRIB", "HDF5", "WMF"}):
        stream = io.BytesIO()
        options = {"save_all": True, "append_images": [picture.rotate(90)]} if name == "MPO" else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Pillow's farewell to some of its formats
            picture.convert(modes.get(name, "RGB")).save(stream, name, **options)
        found[name] = stream.getvalue()
    return found


def _made(mark: Path) -> dict[str, bytes]:
    """Files of the formats that Pillow can only read, as short as its readers take them; none of them holds pixels."""
    card = "{:<8}= {:>20}".format
    cards = [card("SIMPLE", "T"), card("BITPIX", 8), card("NAXIS", 2), card("NAXIS1", 4), card("NAXIS2", 4), "END"]
    return {
        "EPS": eps(mark),
        "DOS EPS": struct.pack("<IIIIIII", 0xC6D3D0C5, 32, len(eps(mark)), 0, 0, 0, 0) + b"\xff\xff\0\0" + eps(mark),
        "WMF": b"\xd7\xcd\xc6\x9a\0\0"
        + struct.pack("<hhhhHIH", 0, 0, 100, 100, 1440, 0, 0)
        + b"\x01\0\t\0"
        + bytes(40),
        "EMF": struct.pack("<II8i4s", 1, 108, 0, 0, 99, 99, 0, 0, 2999, 2999, b" EMF") + bytes(64),
        "FITS": "".join(f"{line:<80}" for line in cards).encode().ljust(2880) + bytes(2880),
        "ICNS": b"icns" + struct.pack(">I", 8 + 8 + 64) + b"il32" + struct.pack(">I", 72) + bytes(64),
        "PSD": b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 4, 4, 8, 3) + bytes(12) + b"\0\0" + bytes(48),
        "PDF": b"%PDF-1.4\n%%EOF\n",
        "GRIB": b"GRIB\0\0\0\x01" + bytes(64),
        "BUFR": b"BUFR\0\0\0\x01" + bytes(64),
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(64),
        "MPEG": b"\0\0\x01\xb3\x02\0\x20" + bytes(64),
        "SUN": struct.pack(">8I", 0x59A66A95, 4, 4, 24, 48, 1, 0, 0) + bytes(48),
        "XPM": b'/* XPM */\nstatic char *x[] = {\n"1 1 1 1",\n"a c #ff0000",\n"a"\n};\n',
        "XVTHUMB": b"P7 332\n#END_OF_COMMENTS\n4 4 255\n" + bytes(16),
        "FLI": struct.pack("<IHHHHHH", 128, 0xAF11, 1, 4, 4, 8, 3) + bytes(112),
        "CUR": b"\0\0\x02\0\x01\0" + bytes(90),
        "DCX": struct.pack("<II", 0x3ADE68B1, 0) + bytes(64),
        "GBR": struct.pack(">IIIII4sI", 32, 2, 4, 4, 1, b"GIMP", 1) + bytes(20),
        "FTEX": b"FTEX" + bytes(64),
        "MCIDAS": b"\0\0\0\0\0\0\0\x04" + bytes(300),
        "PIXAR": b"\x80\xe8\0\0" + bytes(600),
        "IMT": b"*\nwidth 4\nheight 4\nx\n\x0c" + bytes(16),
        "IPTC": b"\x1c\x03\x14\0\0" + bytes(64),
        "PCD": bytes(2048) + b"PCD_" + bytes(1500),
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "JPEG XL": b"\xff\x0a\x00\x90\x01\x00\x12\x00",
        "a web page": b"<!DOCTYPE html><html><body>expired</body></html>",
    }


def test_no_format_but_the_allowed_ones_is_read_under_any_extension(tmp_path: Path, ghostscript: Path) -> None:
    mark = tmp_path / "postscript-ran"
    files = _saved() | _made(mark)
    Image.init()
    # one that is new in Pillow needs a file here
    assert {name for name in Image.OPEN if name not in files} == set()
    with nothing_starts():
        for name, data in files.items():
            own = [extension[1:] for extension, format_name in Image.EXTENSION.items() if format_name == name]
            for extension in {*IMAGE_EXTENSIONS, *own, ""}:
                path = tmp_path / f"picture.{extension}"
                path.write_bytes(data)
                for read in (
                    open_image,
                    lambda path: decode(path.read_bytes()),
                    lambda path: image_size(path.read_bytes()),
                ):
                    if name in READ:
                        read(path)
                        continue
                    with pytest.raises(ImageError):
                        read(path)
    assert not mark.exists()
    assert not ghostscript.exists()


@pytest.mark.parametrize("name", ["EPS", "WMF", "FITS", "ICNS", "PSD", "PDF", "SVG", "HEIC", "JPEG XL", "a web page"])
def test_a_refused_format_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match=rf"holiday: this is {name}.*JPEG, PNG.*convert it to PNG"):
        open_image(_made(tmp_path)[name], where="holiday")


def test_a_picture_never_calls_ghostscript(tmp_path: Path, ghostscript: Path) -> None:
    mark = tmp_path / "postscript-ran"
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(tmp_path / "set" / name / "0.png")
        (tmp_path / "set" / name / "1.png").write_bytes(eps(mark))
    with nothing_starts():
        found = check(tmp_path / "set")
    assert not mark.exists()
    assert not ghostscript.exists()
    assert sum("this is EPS" in finding.detail for finding in found.findings) == 2


def test_a_pil_image_of_another_format_is_refused_before_its_reader_runs(tmp_path: Path, ghostscript: Path) -> None:
    picture = Image.open(io.BytesIO(eps(tmp_path / "mark")))
    with nothing_starts(), pytest.raises(ImageError, match="slide: this is EPS"):
        open_image(picture, where="slide")
    assert not ghostscript.exists()
    loaded = Image.open(io.BytesIO(_saved()["PCX"]))
    with pytest.raises(ImageError, match="PCX"):
        open_image(loaded)
    loaded.load()  # the caller's own decision
    assert open_image(loaded) is loaded


def test_pillow_without_avif_reads_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    from eyesmith.images import formats

    monkeypatch.delitem(Image.OPEN, "AVIF")
    formats._installed.cache_clear()
    try:
        assert open_image(_saved()["BMP"]).size == (32, 32)
    finally:
        formats._installed.cache_clear()


def test_only_the_doors_of_the_house_decode_pictures_and_videos() -> None:
    """What opens an encoded picture, drawing or video, by name of the call or import, and the files that may."""
    doors = {
        "Image.open": {"images/formats.py"},
        "ImageFile.Parser": set(),
        "imread": set(),
        "simplejpeg": {"images/decode.py"},
        "cv2": set(),
        "imageio": set(),
        "torchvision.io": set(),
        "av.open": {"data/evaluation/video.py", "data/make/miniature.py"},
        "resvg_py": {"data/make/drawing.py"},
    }
    used: dict[str, set[str]] = {name: set() for name in doors}
    for file in SOURCES.rglob("*.py"):
        names: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Attribute):
                names |= {node.attr, ".".join(ast.unparse(node).split(".")[-2:])}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names} | {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                last = node.module.rpartition(".")[2]
                names |= {node.module, node.module.partition(".")[0]} | {f"{last}.{one.name}" for one in node.names}
        for name in doors.keys() & names:
            used[name].add(file.relative_to(SOURCES).as_posix())
    assert used == doors
