"""A GPU that is not there: `cuda` tensors have shapes, formats and a device, and no numbers; the CPU's are real.

What it finds: operations on tensors of two devices, and every place where the host waits for the device, by the line of
ours that does it. It needs torch's CUDA build, no driver and no device.
"""

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from types import MappingProxyType, SimpleNamespace
from typing import Any, Self
from unittest.mock import patch

import torch
import torch._subclasses.fake_tensor as fake_tensor
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from bench.fake_gpu.engine import apply, backward

ROOM = os.sep + os.path.join("src", "eyesmith") + os.sep
READINGS = "train/readings.py"
STEP = "train/loop.py:train"
_aten = torch.ops.aten
# results whose shape or value the host must know
_READS = {
    _aten._local_scalar_dense.default,
    _aten.nonzero.default,
    _aten.masked_select.default,
    _aten.equal.default,
    _aten._unique2.default,
    _aten.unique_consecutive.default,
    _aten.unique_dim.default,
    _aten.bincount.default,
    _aten.repeat_interleave.Tensor,
}


class FakeGpu:
    """Inside, CUDA seems to be there. An operation on a `cuda` tensor gives one without numbers.

    Copies to the CPU are real again, and random: what the host does with them runs, and its result means nothing.
    waits: how often the host waited for the device inside each place that `allowed` names, "room/file.py:function";
    unexpected: how often elsewhere, by operation and the lines of ours that led there, the innermost first. uploads:
    copies to the device of memory that is not pinned, in training steps, by the innermost line; those that
    `allowed_uploads` does not name are unexpected too.
    """

    def __init__(self, allowed: Mapping[str, str], allowed_uploads: Mapping[str, str] = MappingProxyType({})) -> None:
        """allowed: places where the host may wait, each with its reason; allowed_uploads: the same for uploads."""
        self._allowed, self._allowed_uploads = allowed, allowed_uploads
        self.waits: Counter[str] = Counter()
        self.unexpected: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()
        self._fake = _Mode(allow_non_fake_inputs=True)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        torch._C._ensureCUDADeviceGuardSet()
        for change in _changes(self._read_all):
            self._stack.enter_context(change)
        self._stack.enter_context(self._fake)
        self._stack.enter_context(_Calls(self.call))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """One operation: real on the CPU, without numbers on the device."""
        leaves = tree_leaves((args, kwargs))
        target = kwargs.get("device")
        is_fake = any(isinstance(one, fake_tensor.FakeTensor) for one in leaves)
        if not is_fake and not any(isinstance(one, torch.device) and one.type == "cuda" for one in leaves):
            with fake_tensor.unset_fake_temporarily():
                return func(*args, **kwargs)
        is_on_device = any(isinstance(one, Tensor) and one.device.type == "cuda" for one in leaves)
        if (func in _READS and is_on_device) or _selects_by_bool(func, args):
            return self._read(func, args, kwargs)
        if func is _aten._to_copy.default and target is not None:
            if target.type == "cpu" and is_on_device:
                self._wait(func)
                return self._invented(args[0], kwargs.get("dtype"))
            if target.type == "cuda" and not is_on_device and not getattr(args[0], "is_said_pinned", False):
                self._upload()
        if func is _aten.copy_.default and args[0].device.type == "cpu" and args[1].device.type == "cuda":
            self._wait(func)
            with fake_tensor.unset_fake_temporarily():
                return args[0].copy_(self._invented(args[1], args[0].dtype))
        with self._fake:
            return func(*args, **kwargs)

    def _upload(self) -> None:
        places = _place()
        if STEP not in places or any(place in self._allowed for place in places):
            return
        if places[0] in self._allowed_uploads:
            self.uploads[places[0]] += 1
        else:
            self.unexpected[f"an upload of memory that is not pinned in {' < '.join(places[:4])}"] += 1

    def _wait(self, func: Any) -> None:
        places = _place()
        known = next((place for place in places if place in self._allowed), None)
        if known is not None:
            self.waits[known] += 1
        else:
            self.unexpected[f"{func} in {' < '.join(places[:4])}"] += 1

    def _read(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What a read gives, from values that are invented."""
        self._wait(func)
        is_moved = lambda one: isinstance(one, Tensor) and one.device.type == "cuda"  # noqa: E731
        to_host = lambda one: self._invented(one, None) if is_moved(one) else one  # noqa: E731
        device = next(one.device for one in tree_leaves((args, kwargs)) if is_moved(one))
        args, kwargs = tree_map(to_host, (args, kwargs))
        with fake_tensor.unset_fake_temporarily():
            found = func(*args, **kwargs)
        with self._fake:
            there = lambda one: torch.empty(one.shape, dtype=one.dtype, device=device)  # noqa: E731
            return tree_map(lambda one: there(one) if isinstance(one, Tensor) else one, found)

    def _read_all(self, content: Any) -> Any:
        """`content` with real tensors in place of those on the device."""
        is_fake = lambda one: isinstance(one, fake_tensor.FakeTensor)  # noqa: E731
        if any(is_fake(one) for one in tree_leaves(content)):
            self._wait("torch.save")
        return tree_map(lambda one: self._invented(one, None) if is_fake(one) else one, content)

    def _invented(self, like: Tensor, dtype: torch.dtype | None) -> Tensor:
        """Real numbers of this shape: of 0..1, whole ones 1; of a step's readings 0, as then no gate is shut."""
        with fake_tensor.unset_fake_temporarily():
            dtype = dtype or like.dtype
            if dtype.is_floating_point and _place()[0].startswith(READINGS):
                return torch.zeros(like.shape, dtype=dtype)
            if dtype.is_floating_point:
                return torch.rand(like.shape, generator=_RNG).to(dtype)
            return torch.ones(like.shape, dtype=dtype)


class _Calls(TorchDispatchMode):
    def __init__(self, call: Callable[[Any, Any, Any], Any]) -> None:
        super().__init__()
        self._call = call

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # in inference mode they come whole
        has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
        if func.namespace == "aten" and has_kernel(func.name(), "CompositeImplicitAutograd"):
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        return self._call(func, args, kwargs)


_RNG = torch.Generator().manual_seed(0)


class _Mode(fake_tensor.FakeTensorMode):
    # what it decides by torch.cuda.is_available() otherwise, which says yes here
    avoid_device_init = property(lambda self: True)  # pyright: ignore[reportAssignmentType]


def _selects_by_bool(func: Any, args: Any) -> bool:
    """Whether an indexing takes rows by flags, of which the device alone knows how many are set."""
    if func not in (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default):
        return False
    is_read = func is _aten.index.Tensor  # written values need no count
    return is_read and any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1])


def _place() -> list[str]:
    """The lines of ours that are running, innermost first, as far as the training loop: `room/file.py:function`."""
    found: list[str] = []
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if ROOM in name or os.sep + "examples" + os.sep in name:
            place = f"{name.rpartition(ROOM)[2] or name}:{frame.f_code.co_name}"
            if not found or found[-1] != place:
                found.append(place)
            if place == STEP:  # what the loop was called from says nothing of a step
                break
        frame = frame.f_back
    return found or ["elsewhere"]


class _Stream:
    """A CUDA stream's and an event's methods, of which nothing is seen here."""

    device = torch.device("cuda", 0)

    def __init__(self, *given: Any, **options: Any) -> None: ...

    def __getattr__(self, name: str) -> Callable[..., "_Stream"]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *given, **options: self


def _changes(read_all: Callable[[Any], Any]) -> Iterator[contextlib.AbstractContextManager[Any]]:
    """What else must seem to be there, or go on without a driver."""
    from eyesmith.data.loader import SideStream

    memory = lambda *given, **options: 0  # noqa: E731
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "is_bf16_supported": lambda *given, **options: True,
        "current_device": lambda: 0,
        "device_count": lambda: 1,
        "get_device_name": lambda *given: "NVIDIA H100 80GB HBM3",
        "get_device_capability": lambda *given: (9, 0),
        "get_device_properties": lambda *given: SimpleNamespace(
            name="NVIDIA H100 80GB HBM3", total_memory=80 << 30, major=9, minor=0, multi_processor_count=132
        ),
        "synchronize": memory,
        "empty_cache": memory,
        "is_current_stream_capturing": lambda: False,
        "memory_allocated": memory,
        "max_memory_allocated": memory,
        "max_memory_reserved": memory,
        "reset_peak_memory_stats": memory,
        "manual_seed": memory,
        "manual_seed_all": memory,
        "Stream": _Stream,
        "Event": _Stream,
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": lambda *given: _Stream(),
        "get_rng_state": lambda *given: torch.zeros(16, dtype=torch.uint8),
        "get_rng_state_all": lambda: [torch.zeros(16, dtype=torch.uint8)],
        "set_rng_state": memory,
        "set_rng_state_all": memory,
    }
    for name, answer in answers.items():
        yield patch.object(torch.cuda, name, answer)
    yield patch.object(fake_tensor, "init_gpu_context", memory)
    save, load = torch.save, torch.load

    def loaded(*given: Any, **options: Any) -> Any:
        with fake_tensor.unset_fake_temporarily():
            return load(*given, **options)

    yield patch.object(torch, "load", loaded)
    yield patch.object(torch, "save", lambda content, *given, **options: save(read_all(content), *given, **options))
    yield patch.object(nn.Module, "_apply", _apply)
    yield patch.object(Tensor, "pin_memory", _pinned)
    yield patch.object(Tensor, "record_stream", memory)
    yield patch.object(Tensor, "backward", lambda loss, gradient=None, **options: backward([loss], [gradient]))
    yield patch.object(torch.autograd, "backward", backward)
    yield patch.object(torch.autograd.Function, "apply", apply)
    # the mode is of one thread: a batch is sent when it is asked for
    send, receive = SideStream.send, SideStream.receive
    yield patch.object(SideStream, "send", lambda self, batch: batch)
    yield patch.object(SideStream, "receive", lambda self, batch: receive(self, send(self, batch)))


def _pinned(value: Tensor) -> Tensor:
    value = value.view_as(value)
    value.is_said_pinned = True  # pyright: ignore[reportAttributeAccessIssue]
    return value


def _apply(self: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """torch's own gives a parameter new memory, which one without memory cannot take: it is replaced."""
    for child in self.children() if recurse else ():
        child._apply(fn)
    with torch.no_grad():
        for name, value in self._parameters.items():
            if value is not None and (moved := fn(value)) is not value:
                self._parameters[name] = nn.Parameter(moved, value.requires_grad)
        for name, value in self._buffers.items():
            if value is not None:
                self._buffers[name] = fn(value)
    return self
