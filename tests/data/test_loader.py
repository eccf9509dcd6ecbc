"""The loader: what is made ahead is what would be made when asked for, and nothing of it stays behind."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from eyesmith.data.loader import Batch, Loader, Read
from eyesmith.data.sample import Finding
from eyesmith.errors import DataError

STEPS = 6


class Numbers:
    """Rows that hold their step. broken: steps without a usable row; fails: the step that cannot be read."""

    steps_per_epoch, num_samples = STEPS, 4 * STEPS

    def __init__(self, *, broken: int = -1, fails: int = -1) -> None:
        self.problems: list[Finding] = []
        self.skipped: list[Finding] = []
        self.begun: list[int] = []
        self.counted: list[int] = []
        self.is_closed = False
        self._broken, self._fails = broken, fails

    def fingerprint(self) -> str:
        return "numbers"

    def captions(self) -> list[str]:
        return []

    def samples(self, step: int) -> int:
        return 4 * step

    def begin(self, step: int) -> Callable[[], Read]:
        self.begun.append(step)
        return lambda: self._read(step)

    def count(self, read: Read) -> None:
        if read.batch is None:
            raise DataError("not one can be used")
        self.counted.append(int(read.batch.pixels[0]))

    def close(self) -> None:
        self.is_closed = True

    def _read(self, step: int) -> Read:
        if step == self._fails:
            raise OSError(f"step {step} is gone")
        if step == self._broken:
            return Read(None, 4, [])
        rows = torch.arange(4)
        batch = Batch(
            pixels=torch.full((4,), step), texts=list("abcd"), labels=rows + step, keys=tuple("abcd"), rows=rows
        )
        return Read(batch, 4, [])


def squares(batch: Batch, step: int) -> Mapping[str, Tensor]:
    assert int(batch.pixels[0]) == step
    return {"square": batch.rows**2 + step}


def threads() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name.startswith(("batches", "decode"))}


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    before = threads()
    yield
    assert threads() <= before


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("steps", [range(STEPS), (3, 4, 0, 5, 5, 1)])
def test_a_batch_is_a_function_of_its_step_however_far_is_read_ahead(ahead: int, steps: Any) -> None:
    rows = Numbers()
    loader = Loader(rows, prepare=squares, ahead=ahead)
    for step in steps:
        batch = loader.batch(step)
        assert batch.pixels.tolist() == [step] * 4
        assert batch.extra["square"].tolist() == [step, 1 + step, 4 + step, 9 + step]
    assert rows.counted == list(steps)  # what was made ahead and not given out does not count
    loader.close()
    assert rows.is_closed


def test_reading_ahead_is_bounded_and_ends_with_the_run() -> None:
    rows = Numbers()
    loader = Loader(rows, ahead=2, last_step=STEPS)
    loader.batch(0)
    assert rows.begun == [0, 1, 2]
    for step in range(1, STEPS):
        loader.batch(step)
    assert rows.begun == list(range(STEPS))
    loader.close()


def test_an_error_shows_at_its_own_step() -> None:
    loader = Loader(Numbers(fails=3), ahead=3)
    for step in range(3):
        loader.batch(step)
    with pytest.raises(OSError, match="step 3 is gone"):
        loader.batch(3)
    assert int(loader.batch(4).pixels[0]) == 4
    loader.close()
    loader = Loader(Numbers(broken=1), ahead=3)
    loader.batch(0)
    with pytest.raises(DataError, match="not one"):
        loader.batch(1)
    loader.close()


class Slow:
    """A transfer to a device of its own: notes what it is told, and marks what arrived."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def send(self, batch: Batch) -> Batch:
        self.told.append(("send", int(batch.pixels[0])))
        return batch

    def receive(self, sent: Batch) -> Batch:
        self.told.append(("receive", int(sent.pixels[0])))
        return sent.moved(lambda value: value + 100)


def test_a_batch_is_sent_while_the_one_before_it_computes_and_none_earlier() -> None:
    transfer = Slow()
    loader = Loader(Numbers(), prepare=squares, transfer=transfer, ahead=4, last_step=STEPS)
    batch = loader.batch(0)
    assert batch.pixels.tolist() == [100] * 4
    assert batch.labels is not None
    assert batch.labels.tolist() == [100, 101, 102, 103]
    assert batch.extra["square"].tolist() == [100, 101, 104, 109]
    assert batch.rows.tolist() == [0, 1, 2, 3]  # places, not values
    _wait_for(lambda: ("send", 1) in transfer.told)
    assert {step for what, step in transfer.told if what == "send"} == {0, 1}  # 2 to 4 are made, and wait
    for step in range(1, STEPS):
        loader.batch(step)
    assert [step for what, step in transfer.told if what == "receive"] == list(range(STEPS))
    assert sorted(step for what, step in transfer.told if what == "send") == list(range(STEPS))
    loader.close()


def _wait_for(is_so: Callable[[], bool]) -> None:
    for _ in range(1000):
        if is_so():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def test_ctrl_c_leaves_no_thread() -> None:
    before = threads()  # of another file's tests
    began = threading.Event()
    goes_on = threading.Event()

    def prepare(batch: Batch, step: int) -> Mapping[str, Tensor]:
        if step:
            began.set()
            goes_on.wait(30)
        return {}

    loader = Loader(Numbers(), prepare=prepare, ahead=3)
    try:
        loader.batch(0)
        began.wait(30)
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        goes_on.set()
        loader.close()
    assert threads() <= before


def test_parts_are_the_rows_in_order_without_a_copy() -> None:
    rows = torch.arange(7)
    batch = Batch(
        pixels=torch.arange(7.0), texts=list("abcdefg"), labels=rows * 2, keys=tuple("ABCDEFG"), rows=rows, indices=rows
    )
    batch = replace(batch, extra={"mask": rows > 2})
    for count in (1, 2, 3, 7):
        parts = batch.parts(count)
        assert [len(part) for part in parts] == [len(part) for part in rows.tensor_split(count)]
        assert torch.equal(torch.cat([part.extra["mask"] for part in parts]), rows > 2)
        assert "".join(text for part in parts for text in part.texts) == "abcdefg"
        assert all(
            part.pixels.untyped_storage().data_ptr() == batch.pixels.untyped_storage().data_ptr() for part in parts
        )
    assert batch.to(torch.device("cpu")) is batch
    assert batch.to(torch.device("meta")).extra["mask"].device.type == "meta"
