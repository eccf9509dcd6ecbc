"""How long work tells where it is: a bar in a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eyesmith.plain import plain

PLAIN_EVERY_S = 15.0  # between two lines where there is no terminal


class Advance(Protocol):
    """Says that the work stands at `done`, with a short note such as the loss."""

    def __call__(self, done: int, note: str = "") -> None: ...


@contextmanager
def progress(console: Console, title: str, total: int, *, start: int = 0, unit: str = "step") -> Iterator[Advance]:
    """Show work from `start` to `total` units, with rate and time left."""
    title = plain(title)
    if console.is_terminal:
        bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(),
            console=console,
        )
        with bar:
            task = bar.add_task(title, total=total, completed=start, note="")
            yield lambda done, note="": bar.update(task, completed=done, note=note)
        return

    began = last = time.monotonic()

    def tell(done: int, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < PLAIN_EVERY_S and done < total:
            return
        last = now
        rate = (done - start) / max(now - began, 1e-9)
        left = (total - done) / max(rate, 1e-9)
        said = f"{title}: {unit} {done}/{total}, {rate:.1f} {unit}s/s, {left:.0f} s left  {note}"
        console.print(said, highlight=False, markup=False, soft_wrap=True)

    yield tell
