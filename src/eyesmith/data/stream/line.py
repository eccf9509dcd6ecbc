"""Batches decoded ahead of the step that asks for them."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import torch
from torch import Tensor

from eyesmith.data.stream.feed import Feed, StepFeed
from eyesmith.data.stream.pool import DecodePool
from eyesmith.data.stream.read import ChunkRead, Reader


class Line:
    """Steps decoded ahead: a thread asks for chunks, processes fill slots with them, the caller takes them in order."""

    def __init__(self, reader: Reader, local_batch: int, num_workers: int, prefetch: int) -> None:
        height, width = reader.image_size
        self._row_bytes = height * width * 3
        num_slots = prefetch + 1
        slot_bytes = local_batch * self._row_bytes
        self._pool = DecodePool(reader, num_workers=num_workers, memory_bytes=num_slots * slot_bytes)
        self._slots = torch.frombuffer(self._pool.memory, dtype=torch.uint8).view(
            num_slots, local_batch, height, width, 3
        )
        self._slot_bytes = slot_bytes
        self._thread: threading.Thread | None = None
        self._next = -1

    def get(self, step: int, new_feed: Callable[[], Feed]) -> tuple[Tensor, list[ChunkRead]]:
        """Pixels [b, 3, H, W] uint8, channels-last memory, and what else is known of the step's chunks."""
        if step != self._next:
            self._stop()
            self._begin(step, new_feed())
        item = self._ready.get()
        if isinstance(item, BaseException):
            self._stop()
            raise item
        slot, feed, futures = item
        self._next = step + 1
        try:
            parts = [future.result() for future in futures]
        except BaseException:
            self._stop()
            raise
        # a copy: the slot is written again while this is trained on. NumPy's: torch's would wake all its threads for it
        pixels = torch.from_numpy(self._slots[slot].numpy().copy()).permute(0, 3, 1, 2)
        self._free.put(slot)
        self._feed.done(feed)
        return pixels, parts

    def close(self) -> None:
        """End the thread and the processes."""
        self._stop()
        self._pool.close()

    def _begin(self, step: int, feed: Feed) -> None:
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(len(self._slots)):
            self._free.put(slot)
        self._ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._is_stopping = threading.Event()
        self._feed = feed
        self._thread = threading.Thread(target=self._run, args=(step,), name="feed", daemon=True)
        self._thread.start()
        self._next = step

    def _run(self, step: int) -> None:
        try:
            while True:
                slot = self._free.get()
                if self._is_stopping.is_set():
                    return
                feed: StepFeed = self._feed.step(step)
                futures: list[Future[ChunkRead]] = []
                offset = slot * self._slot_bytes
                for chunk in feed.chunks:
                    futures.append(self._pool.read(chunk, offset))
                    offset += chunk.num_rows * self._row_bytes
                self._ready.put((slot, feed, futures))
                step += 1
        except BaseException as error:  # the caller raises it where it waits for the batch
            self._ready.put(error)

    def _stop(self) -> None:
        self._next = -1
        if self._thread is None:
            return
        self._is_stopping.set()
        self._free.put(-1)
        self._thread.join()
        self._thread = None
        while not self._ready.empty():
            item = self._ready.get()
            if not isinstance(item, BaseException):
                for future in item[2]:
                    future.exception()  # slots may be written until all of it is done
        self._feed.close()
