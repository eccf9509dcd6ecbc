"""Ctrl-C between two steps, so that what is saved is a whole state."""

import signal
import threading
from types import FrameType
from typing import Self


class StopSignal:
    """Inside the context, a first SIGINT or SIGTERM only raises the flag; a second one acts at once."""

    def __init__(self) -> None:
        self.is_set = False
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def __call__(self) -> bool:
        return self.is_set

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.is_set = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
