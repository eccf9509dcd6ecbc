"""The process that draws: `python -I drawing.py FOLDER`, FOLDER being where resvg_py lies. Started by `render.py`.

A program of its own that imports nothing of eyesmith: it starts in a few milliseconds, and a drawing that makes it
crash, run out of memory or never end takes nothing else along. On Unix it gives up, before it sees a drawing, what
drawing does not need: it can open no file or socket, start no process, and use no more than a bounded memory and time.

Both ways: a length of 4 bytes (big-endian), then the content. In, each of the numbers 4 bytes: the side in pixels, the
seconds of processor time allowed, 1 for a transparent background or 0 for a white one; then the drawing as UTF-8. Out:
b"+" and the PNG, or b"-" and the reason as UTF-8.
"""

import os
import signal
import struct
import sys
from typing import Any, BinaryIO

MAX_MEMORY_BYTES = 1 << 30


def _main() -> None:
    sys.path.append(sys.argv[1])
    import resvg_py

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that resvg might print gets among the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides when to end
    limits = _give_up_rights(answers.fileno())
    while request := _read(sys.stdin.buffer):
        size_px, seconds, alpha = struct.unpack(">III", request[:12])
        if limits is not None:
            used = limits.getrusage(limits.RUSAGE_SELF)
            limits.setrlimit(
                limits.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, limits.RLIM_INFINITY)
            )
        try:
            # system fonts are left out: a drawing must not look different from one machine to the next
            picture = resvg_py.svg_to_bytes(
                svg_string=request[12:].decode(),
                width=size_px,
                height=size_px,
                background=None if alpha else "#ffffff",
                skip_system_fonts=True,
            )
            answer = b"+" + bytes(picture)
        except ValueError as error:
            answer = b"-" + str(error).encode("utf-8", "replace")
        answers.write(struct.pack(">I", len(answer)) + answer)
        answers.flush()


def _read(stream: BinaryIO) -> bytes:
    """The next content; b"" when the parent is gone."""
    length = stream.read(4)
    return stream.read(struct.unpack(">I", length)[0]) if len(length) == 4 else b""


def _give_up_rights(last_file: int) -> Any:
    """The module that sets limits; None on Windows, which has none of the kind."""
    try:
        import resource
    except ImportError:
        return None
    limits = [
        (resource.RLIMIT_NOFILE, last_file + 1),  # the three standard ones and the pipe, which are open
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_AS, MAX_MEMORY_BYTES),
    ]
    for limit, value in limits:
        try:
            resource.setrlimit(limit, (value, value))
        except (ValueError, OSError):  # macOS knows RLIMIT_AS and does not keep to it
            continue
    return resource


if __name__ == "__main__":
    _main()
