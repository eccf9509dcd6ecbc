"""Drawings: the same pictures as resvg's own, nothing read from outside, and no drawing that takes the run along."""

import base64
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyesmith.data.make import drawing
from eyesmith.data.make.render import MAX_DEPTH, MAX_SVG_BYTES, SvgRenderer, check_svg
from eyesmith.errors import ConfigError, DataError

resvg_py = pytest.importorskip("resvg_py")

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 10 10">'
RED = Image.new("RGB", (10, 10), (255, 0, 0))


@pytest.fixture(scope="module")
def renderer() -> Iterator[SvgRenderer]:
    with SvgRenderer() as one:
        yield one


def svg(body: str) -> str:
    return f"{HEAD}{body}</svg>"


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def red_at_centre(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        return image.getpixel((8, 8)) == (255, 0, 0)


def bomb(levels: int) -> str:
    """Every level uses the one below ten times."""
    body = '<g id="a0"><rect width="1" height="1"/></g>'
    for level in range(1, levels):
        body += f'<g id="a{level}">' + f'<use href="#a{level - 1}"/>' * 10 + "</g>"
    return svg(f'<defs>{body}</defs><use href="#a{levels - 1}"/>')


def test_pictures_are_those_of_resvg_in_this_process(renderer: SvgRenderer) -> None:
    rng = np.random.default_rng(0)
    data = base64.b64encode(png(RED)).decode()
    drawings = [
        svg(
            '<circle cx="5" cy="5" r="4" fill="none" stroke="#08f"/>'
            '<a href="https://x.org"><rect width="3" height="2"/></a>'
        ),
        svg(
            '<defs><linearGradient id="g"><stop stop-color="red"/><stop offset="1"/></linearGradient></defs>'
            '<style>.a{fill:url("#g")}</style><rect class="a" width="9" height="4"/>'
            '<g style="fill:url(#g)"><path d="M0 5h9v5z"/></g><use xlink:href="#nothing"/>'
        ),
        svg(f'<image href="data:image/png;base64,{data}" width="5" height="5"/>'),
        '<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" '
        '"http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">'
        + svg('<text x="1" y="5">é &amp; 猫</text><rect width="1" height="9"/>'),
    ]
    for _ in range(10):
        points = " ".join(f"{x:.2f},{y:.2f}" for x, y in rng.uniform(-2, 12, (6, 2)))
        drawings.append(svg(f'<polygon points="{points}" fill="rgb({",".join(map(str, rng.integers(0, 256, 3)))})"/>'))
    for text in drawings:
        for size_px in (1, 33, 72):
            raw = resvg_py.svg_to_bytes(
                svg_string=text, width=size_px, height=size_px, background="#ffffff", skip_system_fonts=True
            )
            with (
                Image.open(io.BytesIO(bytes(raw))) as expected,
                Image.open(io.BytesIO(renderer.png(text, size_px=size_px))) as got,
            ):
                assert got.mode == "RGB"
                np.testing.assert_array_equal(np.asarray(got), np.asarray(expected.convert("RGB")))


@pytest.mark.parametrize(
    "body",
    [
        '<image href="{red}" width="10" height="10"/>',
        '<image xlink:href="file://{red}" width="10" height="10"/>',
        '<image href="  {red}" width="10" height="10"/>',
        '<image href="red.png" width="10" height="10"/>',
        '<image href="https://example.org/red.png" width="10" height="10"/>',
        '<filter id="f"><feImage href="{red}"/></filter><rect filter="url(#f)" width="10" height="10"/>',
        '<use href="{red}#a"/>',
        '<image href="data:image/svg+xml;base64,PHN2Zy8+" width="10" height="10"/>',
        '<image href="data:text/plain,x" width="10" height="10"/>',
        "<style>@import 'file:///x.css';</style>",
        "<style>@font-face{{font-family:a;src:url({red})}}</style>",
        "<style><![CDATA[rect{{fill:url( '{red}' )}}]]></style>",
        '<rect style="fill:url(https://example.org/#a)" width="10" height="10"/>',
        '<rect fill="url({red})" width="10" height="10"/>',
    ],
)
def test_a_drawing_that_reaches_outside_is_refused(tmp_path: Path, renderer: SvgRenderer, body: str) -> None:
    (tmp_path / "red.png").write_bytes(png(RED))
    with pytest.raises(DataError, match="icon 3: refused"):
        renderer.png(svg(body.format(red=tmp_path / "red.png")), size_px=16, where="icon 3")


@pytest.mark.parametrize(
    "declaration",
    [
        "<!ENTITY x SYSTEM 'file:///etc/hostname'>",
        "<!ENTITY x 'y'>",
        "<!ENTITY % x SYSTEM 'https://example.org/x.dtd'>",
    ],
)
def test_declared_entities_are_refused(renderer: SvgRenderer, declaration: str) -> None:
    with pytest.raises(DataError, match="entity 'x'"):
        renderer.png(f"<!DOCTYPE svg [{declaration}]>{svg('<text>&amp;</text>')}", size_px=16)


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits there")
def test_the_process_itself_opens_no_file(
    tmp_path: Path, renderer: SvgRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the rules: where one of them fails, the file still stays closed."""
    (tmp_path / "red.png").write_bytes(png(RED))
    text = svg(f'<image href="{tmp_path / "red.png"}" width="10" height="10"/>')
    raw = resvg_py.svg_to_bytes(svg_string=text, width=16, height=16, background="#ffffff", skip_system_fonts=True)
    assert red_at_centre(png(Image.open(io.BytesIO(bytes(raw))).convert("RGB")))  # what resvg does without limits
    monkeypatch.setattr("eyesmith.data.make.render.check_svg", lambda svg, *, where: None)
    assert not red_at_centre(renderer.png(text, size_px=16))


def test_size_and_depth_are_bounded(renderer: SvgRenderer) -> None:
    rect = '<rect width="10" height="10" fill="red"/>'
    inside = MAX_DEPTH - 2
    assert red_at_centre(renderer.png(svg("<g>" * inside + rect + "</g>" * inside), size_px=16))
    with pytest.raises(DataError, match="deep"):
        renderer.png(svg("<g>" * 300_000 + rect + "</g>" * 300_000), size_px=16)
    with pytest.raises(DataError, match="bytes of SVG"):
        check_svg(svg("<g/>" * (MAX_SVG_BYTES // 4)))
    for size_px in (0, 5000):
        with pytest.raises(ConfigError, match="size_px"):
            renderer.png(svg(rect), size_px=size_px)


def test_what_is_no_drawing_is_named(renderer: SvgRenderer) -> None:
    for text in ("<svg", "", "<svg>\0</svg>", "<html/>", svg("\ud800")):
        with pytest.raises(DataError, match="toy: x: resvg cannot draw it"):
            renderer.png(text, size_px=8, where="toy: x")


def test_a_drawing_without_end_is_given_up_and_the_next_is_drawn() -> None:
    with SvgRenderer(time_limit_s=0.3) as renderer:
        with pytest.raises(DataError, match=r"slow: resvg was stopped.*0\.3 s"):
            renderer.png(bomb(6) + "<!-- about a second -->", size_px=16, where="slow")
        assert red_at_centre(renderer.png(svg('<rect width="10" height="10" fill="red"/>'), size_px=16))


def test_a_drawing_that_kills_its_process_costs_that_drawing(renderer: SvgRenderer) -> None:
    rect = svg('<rect width="10" height="10" fill="red"/>')
    before = renderer.png(rect, size_px=16)
    assert renderer._process is not None
    killer = threading.Timer(0.2, renderer._process.kill)
    killer.start()
    with pytest.raises(DataError, match="crashed"):
        renderer.png(bomb(6), size_px=16)
    killer.join()
    assert renderer.png(rect, size_px=16) == before
    renderer._process.kill()
    renderer._process.wait()  # ended between two drawings it costs none
    assert renderer.png(rect, size_px=16) == before


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is bounded on Linux alone")
def test_the_process_has_bounds_of_its_own() -> None:
    with SvgRenderer() as renderer:
        renderer.png(svg(""), size_px=16)
        assert renderer._process is not None
        lines = Path(f"/proc/{renderer._process.pid}/limits").read_text().splitlines()
    bounds = {line[:26].strip(): line[26:].split()[:2] for line in lines}
    assert bounds["Max address space"] == [str(drawing.MAX_MEMORY_BYTES)] * 2
    assert bounds["Max file size"] == ["0", "0"]
    assert int(bounds["Max open files"][0]) < 10
    assert int(bounds["Max cpu time"][0]) < 20


def test_the_process_ends_with_its_parent() -> None:
    code = (
        "import os, sys; from eyesmith.data.make.render import SvgRenderer; r = SvgRenderer();"
        'r.png(\'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>\', size_px=4);'
        "print(r._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    child = int(done.stdout)
    for _ in range(500):  # it sees the end of its input a moment later
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").exists() and Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.01)
    pytest.fail("the drawing process outlived its parent")
