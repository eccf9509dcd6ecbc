"""How much memory a computation needs at once, counted by the tensors that are alive: equal on every machine."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(compute: Callable[[], object]) -> int:
    """The largest total of the tensors that `compute` makes and that are alive at the same time, in bytes, without
    gradient. What is there before (weights, inputs) is not counted, nor what an operator needs inside itself.
    """
    with torch.no_grad(), _Counter() as counter:
        compute()
    return counter.peak


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        old = {one.untyped_storage()._cdata for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        for one in tree_leaves(found):
            if isinstance(one, Tensor):
                self._see(one, old)
        return found

    def _see(self, tensor: Tensor, old: set[int]) -> None:
        storage = tensor.untyped_storage()
        place = storage._cdata
        if place in old or place in self._alive:  # a view, or written in place
            return
        self._alive[place] = storage.nbytes()
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._gone, place)

    def _gone(self, place: int) -> None:
        self._now -= self._alive.pop(place, 0)
