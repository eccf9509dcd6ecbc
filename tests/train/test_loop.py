import os
import signal
from collections.abc import Iterator

import pytest

from eyesmith.train.loop import StopSignal


@pytest.fixture(autouse=True)
def _interrupt_as_usual() -> Iterator[None]:
    """Python's own handler: a process started in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_signal_raises_a_flag_and_the_second_acts() -> None:
    with pytest.raises(KeyboardInterrupt), StopSignal() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        os.kill(os.getpid(), signal.SIGINT)


def test_afterwards_signals_are_as_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopSignal():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
