"""The one loader: batches read, decoded and prepared ahead of the step that asks for them, each a function of it.

What the rows of a step are is the business of `Rows`: pairs and class folders by index (`indexed.py`), shards as they
stream by (`StreamedRows`). Whatever is made ahead is made from the step's number alone, so a loader that reads ahead
gives the batches of one that does not, and a resumed run those of one never stopped.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from eyesmith.data.sample import Finding
from eyesmith.data.stream import ShardStream

AHEAD = 2  # steps that are made before they are asked for
_NOTHING: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples of one step that this process computes. Row i of every field is one of them.

    pixels: [b, 3, H, W] uint8; texts: one caption each, none where the run reads no texts; labels: [b] int64 class of
    each, -1 for a streamed row without one, or None; keys: for messages; rows: [b] int64 place of each in the batch of
    all processes, on the CPU; indices: [b] int64 place of each in the data set, on the CPU, None where they stream by;
    extra: what else was made of the rows before the step, [b, ...] each: token ids, masks, second labels; host: the
    same on the CPU wherever the batch is, for what must be known without waiting for a device.
    """

    pixels: Tensor
    texts: list[str]
    labels: Tensor | None
    keys: tuple[str, ...]
    rows: Tensor
    indices: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=lambda: _NOTHING)
    host: Mapping[str, Tensor] = field(default_factory=lambda: _NOTHING)

    def __len__(self) -> int:
        return len(self.rows)

    def with_extra(self, extra: Mapping[str, Tensor]) -> "Batch":
        """The batch, on the CPU, with what else was made of its rows."""
        extra = {**self.extra, **extra}
        return replace(self, extra=extra, host=extra)

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with `move` applied to what the model computes with: pixels, labels and extra."""
        return replace(
            self,
            pixels=move(self.pixels),
            labels=None if self.labels is None else move(self.labels),
            extra={name: move(value) for name, value in self.extra.items()},
        )

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; itself where all of it is there."""
        held = (self.pixels, *([] if self.labels is None else [self.labels]), *self.extra.values())
        if all(value.device == device for value in held):
            return self
        return self.moved(lambda value: on_device(value, device))

    def parts(self, count: int) -> list["Batch"]:
        """The rows cut into `count` parts of equal size, or nearly, without a copy; of fewer rows one a part."""
        count = min(count, len(self))
        if count == 1:
            return [self]
        size, longer = divmod(len(self), count)
        ends = [(size * i + min(i, longer), size * (i + 1) + min(i + 1, longer)) for i in range(count)]
        return [self._between(slice(start, stop)) for start, stop in ends]

    def _between(self, own: slice) -> "Batch":
        return Batch(
            pixels=self.pixels[own],
            texts=self.texts[own],
            labels=None if self.labels is None else self.labels[own],
            keys=self.keys[own],
            rows=self.rows[own],
            indices=None if self.indices is None else self.indices[own],
            extra={name: value[own] for name, value in self.extra.items()},
            host={name: value[own] for name, value in self.host.items()},
        )


class Read(NamedTuple):
    """A step's rows as they were read. seen: rows that were tried; broken: why some are not in the batch.

    batch: None where not one of them can be used.
    """

    batch: Batch | None
    seen: int
    broken: list[Finding]


class Rows(Protocol):
    """Where a loader gets the rows of a step from."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one pass over the data."""
        ...

    @property
    def num_samples(self) -> int:
        """Usable samples, as far as is known before they are read."""
        ...

    @property
    def problems(self) -> list[Finding]:
        """What opening the data found unusable."""
        ...

    @property
    def skipped(self) -> list[Finding]:
        """Samples left out so far."""
        ...

    def fingerprint(self) -> str:
        """A hash of the data, independent of its place on disk."""
        ...

    def captions(self) -> list[str]:
        """Every caption that a batch may hold, duplicates included."""
        ...

    def samples(self, step: int) -> int:
        """How many samples the steps before this one had, those that could not be used included."""
        ...

    def begin(self, step: int) -> Callable[[], Read]:
        """Begin to read this process's rows of a step; the result waits for them. May be called in any order."""
        ...

    def count(self, read: Read) -> None:
        """Note what was left out of a step that is given out. Raises DataError above the allowed rate."""
        ...

    def close(self) -> None:
        """End what works in the background."""
        ...


Prepare = Callable[[Batch, int], Mapping[str, Tensor]]
"""Makes `Batch.extra` of a batch and its step: a function of these and of the run's seed alone."""


class Transfer(Protocol):
    """How a prepared batch gets to the device: `send` begins, `receive` gives what can be computed with."""

    def send(self, batch: Batch) -> Any:
        """Begin; called at most one step before the batch is asked for, in any thread."""
        ...

    def receive(self, sent: Any) -> Batch:
        """The batch on the device; called in the thread that computes."""
        ...


class StayHere:
    """No transfer: the model computes where the batches are made."""

    def send(self, batch: Batch) -> Batch:
        return batch

    def receive(self, sent: Batch) -> Batch:
        return sent


class SideStream:
    """To a CUDA device, from pinned memory on a stream of its own, while the step before computes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def send(self, batch: Batch) -> tuple[Batch, Any]:
        """The batch on its way, and the event of its arrival."""
        with torch.cuda.stream(self._stream):
            moved = batch.moved(lambda value: value.pin_memory().to(self._device, non_blocking=True))
            return moved, self._stream.record_event()

    def receive(self, sent: tuple[Batch, Any]) -> Batch:
        """The batch, for which the present stream waits on the device, not this thread."""
        batch, arrival = sent
        present = torch.cuda.current_stream(self._device)
        present.wait_event(arrival)

        def hold(value: Tensor) -> Tensor:
            value.record_stream(present)  # else its memory may be given away while the step still reads it
            return value

        return batch.moved(hold)


def on_device(value: Tensor, device: torch.device) -> Tensor:
    """A value made on the host in the step itself, on its way to the device; the host does not wait for it."""
    if value.device == device:
        return value
    return value.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else value.to(device)


def transfer_to(device: torch.device) -> Transfer:
    """How batches get to a device."""
    return SideStream(device) if device.type == "cuda" else StayHere()


class Loader:
    """The batches of a run. `batch(step)` depends on nothing but the rows, `prepare` and the step.

    While a step computes, the next `ahead` ones are made: their samples decoded by the rows' own workers, joined and
    prepared by one thread, and the very next one sent to the device. An error of a step shows when that is asked for.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        prepare: Prepare | None = None,
        transfer: Transfer | None = None,
        ahead: int = AHEAD,
        last_step: int | None = None,
    ) -> None:
        """ahead: 0 makes each batch when it is asked for. last_step: steps of the run, past which nothing is made."""
        self.rows = rows
        self._prepare, self._transfer, self._ahead, self._last = prepare, transfer or StayHere(), ahead, last_step
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._made: dict[int, Future[Read]] = {}
        self._sent: dict[int, Future[tuple[Read, Any]]] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one pass over the data."""
        return self.rows.steps_per_epoch

    def samples(self, step: int) -> int:
        """How many samples the steps before this one had, those that could not be used included."""
        return self.rows.samples(step)

    def batch(self, step: int) -> Batch:
        """This process's rows of a global step, counted from 0; steps in order are fastest.

        Raises DataError above the allowed rate of broken samples, and what reading raises.
        """
        if step not in self._made:
            self._drop()
        last = step + self._ahead if self._last is None else min(step + self._ahead, self._last - 1)
        for later in range(step, max(step, last) + 1):
            if later not in self._made:
                self._made[later] = self._maker.submit(self._make, self.rows.begin(later), later)
        for near in (step, step + 1):
            if near in self._made and near not in self._sent:
                self._send(near)
        del self._made[step]
        read, sent = self._sent.pop(step).result()
        self.rows.count(read)
        assert read.batch is not None, "rows that gave no batch passed their count"
        return self._transfer.receive(sent)

    def __iter__(self) -> Iterator[Batch]:
        """The batches from the first step on, without an end."""
        step = 0
        while True:
            yield self.batch(step)
            step += 1

    def close(self) -> None:
        """Drop what is made ahead and end all workers; nothing of the loader runs after it."""
        self._drop()
        self._maker.shutdown(wait=True, cancel_futures=True)
        self.rows.close()

    def _make(self, finish: Callable[[], Read], step: int) -> Read:
        read = finish()
        if read.batch is None or self._prepare is None:
            return read
        return read._replace(batch=read.batch.with_extra(self._prepare(read.batch, step)))

    def _send(self, step: int) -> None:
        """Send the step's batch when it is made: at once, or by the thread that makes it."""
        sent: Future[tuple[Read, Any]] = Future()
        self._sent[step] = sent

        def send(made: Future[Read]) -> None:
            if made.cancelled():
                sent.cancel()
                return
            try:
                read = made.result()
                sent.set_result((read, None if read.batch is None else self._transfer.send(read.batch)))
            except BaseException as error:
                sent.set_exception(error)

        self._made[step].add_done_callback(send)

    def _drop(self) -> None:
        for made in self._made.values():
            made.cancel()
        self._made.clear()
        self._sent.clear()


class StreamedRows:
    """The rows of tar shards, decoded by the processes of a `ShardStream`, which counts what is broken itself."""

    def __init__(self, stream: ShardStream, *, epoch_steps: int = 0) -> None:
        """epoch_steps: that count as one epoch; 0: those of all samples there are."""
        self.stream = stream
        self.steps_per_epoch = epoch_steps or stream.plan.steps_per_epoch
        self.num_samples = stream.plan.num_samples
        self.problems: list[Finding] = []  # a stream finds them on the way

    @property
    def skipped(self) -> list[Finding]:
        """Samples left out so far, the first 1,000 of them."""
        return self.stream.skipped

    def fingerprint(self) -> str:
        """SHA-256 over the shards' names and content, and their order."""
        return self.stream.fingerprint()

    def describe(self) -> dict[str, Any]:
        """The order and every shard by what it holds; what differs, `data.stream.differences` says."""
        return self.stream.describe()

    def captions(self) -> list[str]:
        """Every caption that a batch may hold, duplicates included; reads the texts of all shards."""
        return self.stream.captions()

    def samples(self, step: int) -> int:
        """How many samples the steps before this one had, those that could not be used included."""
        return step * self.stream.plan.batch_size

    def begin(self, step: int) -> Callable[[], Read]:
        return lambda: self._read(step)

    def count(self, read: Read) -> None:
        """Nothing: see `ShardStream.broken`."""

    def close(self) -> None:
        """End the decoding processes."""
        self.stream.close()

    def _read(self, step: int) -> Read:
        pairs = self.stream.batch(step)
        first = self.stream.first_row
        batch = Batch(
            pixels=pairs.pixels,
            texts=pairs.texts,
            labels=pairs.labels,
            keys=pairs.keys,
            rows=torch.arange(first, first + len(pairs.keys)),
        )
        return Read(batch, len(pairs.keys), [])
