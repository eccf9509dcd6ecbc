"""Where the work on a pool's files is done: here, in processes of this machine, or on a Ray cluster.

Every step of a curation is a function of one file whose result does not depend on the others, so all three give the
same. Functions and results are pickled; results come back in the order of the items.
"""

import logging
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal, Protocol, TypeVar

from eyesmith.errors import ConfigError, MissingDependencyError

Executor = Literal["local", "ray"]
Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[str, int, int], None]


class Mapper(Protocol):
    """Applies a function to items, results in order; `what` names the step for the progress display."""

    def __call__(self, what: str, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]: ...


@contextmanager
def open_mapper(executor: Executor, workers: int, on_progress: Progress | None = None) -> Iterator[Mapper]:
    """A mapper on `workers` processes of this machine (1: in this one), or on a Ray cluster by Ray Data.

    With "ray" a running cluster is used when there is one (RAY_ADDRESS), else one of `workers` CPUs is started; files
    must be at paths that all machines see. Raises ConfigError, and MissingDependencyError when Ray is not installed.
    """
    if workers < 1:
        raise ConfigError(f"workers: expected at least 1, got {workers}")
    report = on_progress or (lambda *_: None)
    if executor == "ray":
        with _ray(workers):
            yield lambda what, function, items: _counted(_ray_map(function, items), what, len(items), report)
    elif workers == 1:
        yield lambda what, function, items: _counted(map(function, items), what, len(items), report)
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_signals) as pool:
            yield lambda what, function, items: _counted(pool.map(function, items), what, len(items), report)


def _leave_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides when to end


def _counted(results: Iterator[Any], what: str, total: int, report: Progress) -> Iterator[Any]:
    for number, result in enumerate(results, start=1):
        report(what, number, total)
        yield result


@contextmanager
def _ray(workers: int) -> Iterator[None]:
    try:
        import ray  # pyright: ignore[reportMissingImports]
        import ray.data  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingDependencyError(
            f"executor=ray needs Ray Data ({error.name} is missing): pip install 'eyesmith[ray]'"
        ) from error
    is_ours = not ray.is_initialized()
    if is_ours:
        limits = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **limits)
    try:
        yield
    finally:
        if is_ours:
            ray.shutdown()


def _ray_map(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    import ray.data  # pyright: ignore[reportMissingImports]

    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"number": number, "item": pickle.dumps(item)} for number, item in enumerate(items)]
    if not rows:
        return iter(())
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(_Task(function)).take_all()
    return (pickle.loads(row["result"]) for row in sorted(done, key=lambda row: row["number"]))


class _Task:
    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"number": row["number"], "result": pickle.dumps(self.function(pickle.loads(row["item"])))}
