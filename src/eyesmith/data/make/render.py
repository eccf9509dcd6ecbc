"""SVG drawings to PNG bytes, drawn in a process that may die, from drawings that reach for nothing outside."""

import importlib.util
import io
import os
import re
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from xml.parsers import expat

from PIL import Image

from eyesmith.errors import ConfigError, DataError, MissingDependencyError
from eyesmith.images import open_image

MAX_SVG_BYTES = 4 << 20  # the largest drawing of the icon sets has 0.2 MB
MAX_DEPTH = 200  # elements inside each other
MAX_PX = 4096
TIME_LIMIT_S = 10.0
_AHEAD = 8

_DATA_IMAGE = re.compile(r"data:image/(png|jpe?g|gif|webp)[;,]", re.IGNORECASE)
_FOREIGN_CSS = re.compile(r"""@import|url\(\s*["']?\s*(?!\s|["']|#|data:)""", re.IGNORECASE)


class SvgRenderer:
    """Draws SVG in a process of its own, which is started with the first drawing and again when one has killed it.

    A context manager; for one thread. Raises MissingDependencyError without resvg-py.
    """

    def __init__(self, *, time_limit_s: float = TIME_LIMIT_S) -> None:
        """time_limit_s: seconds for one drawing."""
        found = importlib.util.find_spec("resvg_py")
        if found is None or found.origin is None:
            raise MissingDependencyError("drawings are rasterised by resvg-py: pip install 'eyesmith[demo]'")
        self._place = Path(found.origin).parents[1]
        self._time_limit_s = time_limit_s
        self._process: subprocess.Popen[bytes] | None = None

    def png(self, svg: str, *, size_px: int, where: str = "drawing", alpha: bool = False) -> bytes:
        """Rasterise `svg` to a square PNG: RGB, uint8, size_px x size_px, on white, centred with its aspect kept.

        alpha: RGBA instead, transparent where nothing is drawn.
        Raises DataError naming `where` when the drawing cannot be rendered, is refused (`check_svg`), or does not end
        within the time and memory that one drawing may take.
        """
        return next(self.pngs([(svg, where)], size_px=size_px, alpha=alpha))

    def pngs(self, drawings: Iterable[tuple[str, str]], *, size_px: int, alpha: bool = False) -> Iterator[bytes]:
        """As `png`, of many in order, each with its `where`: the process draws ahead while here they are written."""
        if not 1 <= size_px <= MAX_PX:
            raise ConfigError(f"size_px: expected 1 to {MAX_PX}, got {size_px}")
        waiting: deque[tuple[str, Future[bytes]]] = deque()
        pool = ThreadPoolExecutor(1)  # a thread that waits for the pipe
        try:
            for svg, where in drawings:
                check_svg(svg, where=where)
                waiting.append((where, pool.submit(self._draw, svg.encode(), size_px, where, alpha)))
                if len(waiting) > _AHEAD:
                    yield self._finished(*waiting.popleft(), size_px, alpha)
            while waiting:
                yield self._finished(*waiting.popleft(), size_px, alpha)
        finally:
            if waiting:  # an error, or the caller wants no more: what is drawn now is for nobody
                self.close()
            pool.shutdown(cancel_futures=True)

    def _finished(self, where: str, drawn: "Future[bytes]", size_px: int, alpha: bool) -> bytes:
        image = open_image(drawn.result(), where=where)
        # on an opaque background dropping alpha changes nothing
        pixels = image.convert("RGBA" if alpha else "RGB")
        if pixels.size != (size_px, size_px):
            wrong = f"resvg drew {pixels.size[0]} x {pixels.size[1]}"
            raise DataError(f"{where}: expected {size_px} x {size_px} px, {wrong}")
        return png_bytes(pixels)

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with suppress(BrokenPipeError):  # what it did not read any more
                process.communicate()

    def __enter__(self) -> "SvgRenderer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _draw(self, svg: bytes, size_px: int, where: str, alpha: bool) -> bytes:
        if self._process is not None and self._process.poll() is not None:
            self.close()  # somebody ended it between two drawings
        if self._process is None:
            # -I: neither the folder one stands in nor the environment decides what it imports
            command = [sys.executable, "-I", str(Path(__file__).with_name("drawing.py")), str(self._place)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=os.sep
            )
        process = self._process
        assert process.stdin is not None  # both are pipes
        assert process.stdout is not None
        is_late = threading.Event()
        timer = threading.Timer(self._time_limit_s, lambda: (is_late.set(), process.kill()))
        timer.start()
        try:
            process.stdin.write(struct.pack(">IIII", 12 + len(svg), size_px, round(self._time_limit_s), alpha) + svg)
            process.stdin.flush()
            length = process.stdout.read(4)
            answer = process.stdout.read(struct.unpack(">I", length)[0]) if len(length) == 4 else b""
        except (BrokenPipeError, ValueError):  # ValueError: closed by `close`
            answer = b""
        finally:
            timer.cancel()
        if answer.startswith(b"+"):
            return answer[1:]
        if answer:
            raise DataError(f"{where}: resvg cannot draw it ({answer[1:].decode('utf-8', 'replace')})")
        self.close()
        limit = f"it took more than {self._time_limit_s:g} s" if is_late.is_set() else "out of memory, or it crashed"
        raise DataError(f"{where}: resvg was stopped over this drawing ({limit}); simplify it or leave it out")


def check_svg(svg: str, *, where: str = "drawing") -> None:
    """Refuse a drawing that reaches outside itself or is built to exhaust whoever reads it.

    References must lead inside the drawing ("#name") or hold a PNG, JPEG, GIF or WebP themselves ("data:image/png").
    Raises DataError: other references (href, url(), @import), declared entities, more than MAX_SVG_BYTES, elements
    deeper than MAX_DEPTH, no XML.
    """
    if len(svg) > MAX_SVG_BYTES or len(svg.encode("utf-8", "replace")) > MAX_SVG_BYTES:
        raise DataError(f"{where}: more than {MAX_SVG_BYTES:,} bytes of SVG; simplify the drawing")
    open_elements: list[str] = []

    def refuse(what: str) -> None:
        raise DataError(
            f"{where}: refused, {what}; a drawing may only use what it holds itself (#name, or an embedded PNG, JPEG, "
            "GIF or WebP)"
        )

    def begin(name: str, attributes: dict[str, str]) -> None:
        open_elements.append(name.rpartition(":")[2])
        if len(open_elements) > MAX_DEPTH:
            raise DataError(f"{where}: elements lie more than {MAX_DEPTH} deep inside each other; simplify the drawing")
        for attribute, value in attributes.items():
            if attribute.rpartition(":")[2].lower() == "href":
                target = value.strip()
                is_own = not target or target.startswith("#") or _DATA_IMAGE.match(target)
                if not is_own and open_elements[-1] != "a":  # a link is not followed
                    refuse(f"it refers to {target[:60]!r}")
            elif _FOREIGN_CSS.search(value):
                refuse(f"{attribute} refers to something outside: {value[:60]!r}")

    def text(content: str) -> None:
        if "style" in open_elements and _FOREIGN_CSS.search(content):
            refuse("its style sheet refers to something outside")

    def entity(name: str, *_: object) -> None:
        refuse(f"it declares the entity {name!r}")

    parser = expat.ParserCreate()
    parser.buffer_text = True  # a style sheet comes as one text, not line by line
    parser.buffer_size = MAX_SVG_BYTES
    parser.StartElementHandler = begin
    parser.EndElementHandler = lambda _: open_elements.pop() and None
    parser.CharacterDataHandler = text
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(svg, True)
    except (expat.ExpatError, UnicodeError) as error:
        raise DataError(f"{where}: resvg cannot draw it (no well-formed XML: {error})") from error


def png_bytes(image: Image.Image) -> bytes:
    """`image` as PNG without any metadata: equal pixels give equal bytes."""
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=6)
    return stream.getvalue()
