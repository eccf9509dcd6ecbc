"""Reads what `test_fuzz.py` sends: a process of its own, so that nothing it meets can hurt the tests.

In: one byte for the kind ("t" tar, "p" picture), four for the length, the content. Out: a line of JSON for each, what
went wrong or null. A process that something tries to start ends this one with status 3.
"""

import contextlib
import json
import os
import resource
import struct
import sys
import traceback
from pathlib import Path

from eyesmith.data.curate.samples import ShardSamples
from eyesmith.data.stream.index import shard_index
from eyesmith.data.tar_source import TarSource
from eyesmith.errors import DataError, EyesmithError, ImageError
from eyesmith.images.decode import decode, image_size, open_image, to_rgb

STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn")
MAX_GROWTH_BYTES = 1 << 30
TIME_LIMIT_S = 10  # of processor time: what else the machine does is of no account


def read_tar(content: bytes, folder: Path) -> None:
    path = folder / "0.tar"
    path.write_bytes(content)
    for require_text in (True, False):
        try:
            source = TarSource([path], name="fuzz", require_text=require_text)
        except DataError:
            continue
        for index in range(len(source)):
            _ = source[index], source.text_findings(index)
            source.fingerprint()
        with contextlib.suppress(DataError):
            _ = source.labels
    index = shard_index(path, folder=folder / "index")
    assert len(index.keys) == len(index.places)
    assert (index.places[..., 0] >= 0).all()
    assert (index.places.sum(-1) <= len(content)).all()
    try:
        with ShardSamples(path) as samples:
            for sample in samples:
                sample.image()
    except DataError:
        pass


def read_picture(content: bytes, folder: Path) -> None:
    path = folder / "picture.png"
    path.write_bytes(content)
    for read in (
        lambda: to_rgb(open_image(path)),
        lambda: decode(content),
        lambda: decode(content, at_least_px=8, backend="pillow"),
        lambda: image_size(content),
    ):
        with contextlib.suppress(ImageError):
            read()


def _refuse(event: str, _: object) -> None:
    if event in STARTS:
        os._exit(3)


def main(folder: Path) -> None:
    sys.addaudithook(_refuse)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.fsync = lambda _: None  # what is written here need not outlive the machine
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    while len(head := sys.stdin.buffer.read(5)) == 5:
        kind, length = struct.unpack(">cI", head)
        content = sys.stdin.buffer.read(length)
        wrong = None
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = int(used.ru_utime + used.ru_stime) + 1 + TIME_LIMIT_S
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))  # past it, SIGXCPU ends the process
        try:
            (read_tar if kind == b"t" else read_picture)(content, folder)
        except EyesmithError:
            wrong = f"an error where a finding was promised: {traceback.format_exc()}"
        except Exception:
            wrong = traceback.format_exc()
        growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        if growth > MAX_GROWTH_BYTES:
            wrong = f"memory grew by {growth:,} bytes"
        print(json.dumps(wrong), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
