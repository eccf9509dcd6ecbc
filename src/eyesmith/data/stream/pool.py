"""Decoding processes that write pixels straight into memory shared with the trainer."""

import mmap
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import eyesmith
from eyesmith.data.stream.read import Chunk, ChunkRead, Reader
from eyesmith.errors import ConfigError, EyesmithError, TrainingError

_AHEAD = 2  # requests a process holds: the next one is there when it has answered


class DecodePool:
    """`num_workers` processes with one reader each, and a piece of memory that all of them write to.

    Pixels never pass through a pipe and are never pickled; the trainer's own interpreter lock is not touched while a
    picture is decoded. The memory has no name, so a killed trainer leaves none behind.
    """

    def __init__(self, reader: Reader, *, num_workers: int, memory_bytes: int) -> None:
        """Starts the processes; they import while the caller goes on. Raises ConfigError on systems without pipes."""
        if num_workers < 1:
            raise ConfigError(f"num_workers: expected 1 or more, got {num_workers}")
        if os.name != "posix":
            raise ConfigError("num_workers: decoding processes need a POSIX system; use num_workers=0 here")
        self._requests: queue.SimpleQueue[tuple[tuple[int, Chunk], Future[ChunkRead]] | None] = queue.SimpleQueue()
        self._closed = False
        self._broken: EyesmithError | None = None
        descriptor = _nameless_memory(memory_bytes)
        try:
            self.memory = mmap.mmap(descriptor, memory_bytes)
            self._processes: list[subprocess.Popen[bytes]] = []
            self._connections: list[Connection] = []
            for _ in range(num_workers):
                self._start(reader, descriptor)
        finally:
            os.close(descriptor)
        self._threads = [
            threading.Thread(target=self._serve, args=(number,), name=f"decode-{number}", daemon=True)
            for number in range(num_workers)
        ]
        for thread in self._threads:
            thread.start()

    def read(self, chunk: Chunk, offset: int) -> "Future[ChunkRead]":
        """Ask for a chunk to be read to byte `offset` of the memory, as [num_rows, H, W, 3] uint8."""
        future: Future[ChunkRead] = Future()
        self._requests.put(((offset, chunk), future))
        if self._broken is not None:
            self._refuse_waiting(self._broken)
        return future

    def close(self) -> None:
        """End the processes; requests not yet answered fail."""
        if self._closed:
            return
        self._closed = True
        for _ in self._threads:
            self._requests.put(None)
        for process in self._processes:
            process.kill()  # they ignore the polite way, and have nothing to tidy up
        for process in self._processes:
            process.wait()
        for thread in self._threads:
            thread.join()

    def _start(self, reader: Reader, memory: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            root = str(Path(eyesmith.__file__).parents[1])
            paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
            with _signals_held():
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "eyesmith.data.stream.worker", str(theirs.fileno()), str(memory)],
                    pass_fds=(theirs.fileno(), memory),
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
                )
        self._processes.append(process)
        connection = Connection(ours.detach())
        self._connections.append(connection)
        connection.send(reader)

    def _serve(self, number: int) -> None:
        connection = self._connections[number]
        waiting: list[Future[ChunkRead]] = []
        try:
            while True:
                while len(waiting) < _AHEAD:
                    try:
                        request = self._requests.get(block=not waiting)
                    except queue.Empty:
                        break
                    if request is None:
                        self._requests.put(None)
                        return
                    waiting.append(request[1])
                    connection.send(request[0])
                answer = connection.recv()
                future = waiting.pop(0)
                if isinstance(answer, EyesmithError):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        except (EOFError, OSError):
            self._broken = self._reason(number)
            self._refuse_waiting(self._broken)
        finally:
            connection.close()
            for future in waiting:
                future.set_exception(self._broken or TrainingError("the stream was closed while it was being read"))

    def _refuse_waiting(self, reason: EyesmithError) -> None:
        """Without one of the processes the run stops: nothing that was asked may wait for ever."""
        try:
            while True:
                request = self._requests.get_nowait()
                if request is not None:
                    request[1].set_exception(reason)
        except queue.Empty:
            if self._closed:  # the word to end may have been among them
                self._requests.put(None)

    def _reason(self, number: int) -> EyesmithError:
        if self._closed:
            return TrainingError("the stream was closed while it was being read")
        status = self._processes[number].wait()
        if status == -signal.SIGKILL:
            how = "was killed by signal 9, out of memory most likely; lower num_workers, or the batch size, and resume"
        elif status < 0:
            how = f"was killed by signal {-status} ({signal.strsignal(-status)}); resume the run"
        else:
            how = f"ended with status {status}; what it said stands above. Resume the run"
        return TrainingError(f"decoding process {number} {how}")


@contextmanager
def _signals_held() -> Iterator[None]:
    """A process started inside is born with Ctrl-C and SIGTERM blocked, until it says that it ignores them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _nameless_memory(num_bytes: int) -> int:
    """A file descriptor of shared memory that vanishes with its last user."""
    if hasattr(os, "memfd_create"):  # not bound by the size of /dev/shm, which containers keep at 64 MB
        descriptor = os.memfd_create("eyesmith-pixels", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as stream:
            descriptor = os.dup(stream.fileno())
    os.truncate(descriptor, num_bytes)
    return descriptor
