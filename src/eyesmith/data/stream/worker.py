"""A decoding process: `python -m eyesmith.data.stream.worker SOCKET MEMORY`, both inherited file descriptors.

A process of its own program, not a fork: a fork of a process with threads or a GPU may hang, and a spawned one would
run the user's script again. It ends when its socket does, so that nothing is left behind when the trainer is killed.
Ctrl-C and SIGTERM reach the whole process group (a terminal, torchrun, srun); the trainer alone decides when to end.
"""

import mmap
import os
import signal
import sys
from multiprocessing.connection import Connection

import torch

from eyesmith.data.stream.read import Reader
from eyesmith.errors import EyesmithError


def main(socket: int, memory: int) -> None:
    """Answer requests until the socket closes.

    The first message is the Reader. Then (offset, Chunk): read the chunk into the shared memory, [num_rows, H, W, 3]
    uint8 from byte `offset` on. The answer is a ChunkRead or the error.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # blocked since before the process began, so none came through
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    connection = Connection(socket)
    reader: Reader = connection.recv()
    height, width = reader.image_size
    with mmap.mmap(memory, os.fstat(memory).st_size) as shared:
        everything = torch.frombuffer(shared, dtype=torch.uint8)
        while True:
            try:
                offset, chunk = connection.recv()
            except (EOFError, ConnectionError):
                break
            try:
                size = chunk.num_rows * height * width * 3
                rows = everything[offset : offset + size].view(chunk.num_rows, height, width, 3)
                answer = reader.read(chunk, rows.permute(0, 3, 1, 2))
            except EyesmithError as error:
                answer = error
            try:
                connection.send(answer)
            except (BrokenPipeError, ConnectionError):
                break
        os._exit(0)  # the mapping is still exported to a tensor; there is nothing to clean up


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
