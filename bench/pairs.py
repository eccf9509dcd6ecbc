"""Two sides measured in turns: A B A B, so that a slow moment of the machine hits both."""

import dataclasses
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Input = TypeVar("Input")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison. ours, theirs: medians in `unit`; ratio: how many times better ours is, with its quartiles."""

    row: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    low: float
    high: float
    equal: bool
    """Whether the outputs of both sides were equal in every pair of this run."""
    peer: str
    note: str = ""
    """What a reader must know about the inputs; shown in the table, not part of the fixed format."""

    def to_json(self) -> dict[str, Any]:
        """The row in the fixed list format, numbers rounded to four digits."""
        fields = dataclasses.asdict(self)
        del fields["note"]
        return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in fields.items()}


def speed(
    row: str,
    inputs: Callable[[int], Input],
    ours: Callable[[Input], Any],
    theirs: Callable[[Input], Any],
    *,
    equal: Callable[[Any, Any], bool],
    count: int,
    unit: str,
    peer: str,
    note: str = "",
    num_pairs: int = 9,
    num_warmups: int = 2,
) -> Row:
    """Rates of two functions over `num_pairs` interleaved pairs after `num_warmups` pairs that do not count.

    inputs: the input of pair i, i = 0 .. num_warmups + num_pairs - 1; give another one each time where a side may
    remember. count: how much work of `unit` one input holds. The ratio is their time over our time, pair by pair.
    """
    seconds: list[tuple[float, float]] = []
    is_equal = True
    for i in range(num_warmups + num_pairs):
        value = inputs(i)
        gc.collect()
        our_output, our_s = _timed(ours, value)
        their_output, their_s = _timed(theirs, value)
        is_equal &= equal(our_output, their_output)
        if i >= num_warmups:
            seconds.append((our_s, their_s))
    low, middle, high = statistics.quantiles([their_s / our_s for our_s, their_s in seconds], n=4, method="inclusive")
    return Row(
        row=row,
        ours=statistics.median(count / our_s for our_s, _ in seconds),
        theirs=statistics.median(count / their_s for _, their_s in seconds),
        unit=unit,
        ratio=middle,
        low=low,
        high=high,
        equal=is_equal,
        peer=peer,
        note=note,
    )


def _timed(function: Callable[[Any], Any], value: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    output = function(value)
    return output, time.perf_counter() - start
