"""An error in one process of several costs all of them the same step, and none waits for the others' rows for ever."""

from collections.abc import Iterator
from contextlib import contextmanager

from eyesmith.errors import DataError
from eyesmith.train.distributed import World


class AgreedError(Exception):
    """Raised in all processes at the same point; `error` is what each of them has to say."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def agree(world: World, error: Exception | None = None) -> None:
    """Go on where no process has an `error`; else all raise AgreedError (one process alone: its error itself).

    Stands before and after every exchange, so that a process that failed on its way there, and asks at its own next
    such point, meets the others here.
    """
    if world.size == 1:
        if error is not None:
            raise error
    elif world.any(error is not None):
        raise AgreedError(error or DataError("another process could not measure this set")) from error


@contextmanager
def agreed(world: World, kinds: tuple[type[Exception], ...]) -> Iterator[None]:
    """A block that succeeds in all processes or raises in all: its own error of `kinds`, or what another's means."""
    error: Exception | None = None
    try:
        yield
    except AgreedError as stopped:
        raise stopped.error from None
    except kinds as caught:
        error = caught
    try:
        agree(world, error)
    except AgreedError as stopped:
        raise stopped.error from None
