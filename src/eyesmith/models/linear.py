"""A linear layer that, without gradient on a CPU, runs GELU, SiLU, product or sum in its matrix product's epilogue.

oneDNN has such kernels; torch reaches them through `torch.ops.mkldnn`, as its own compiler does. Measured on 2 cores
(AVX-512, AMX; torch 2.13), ViTamin-S stage 1, [12544, 64] x [64, 256] with GELU: 6.4 -> 4.1 ms in fp32, part of
it because the bias is no longer copied into the output first. The kernels also reorder the weight at every call, which
`pack` spares.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.models.activation import Activation, activate

# oneDNN's name, numbers and algorithm of an activation; it has none with another steepness, which QuickGELU needs
_NO_EPILOGUE = ("none", [], "none")
_EPILOGUES: dict[Activation | None, tuple[str, list[float], str]] = {
    None: _NO_EPILOGUE,
    "gelu": ("gelu", [], "none"),
    "gelu_tanh": ("gelu", [], "tanh"),
    "silu": ("swish", [], "none"),
}


@dataclass(frozen=True, slots=True)
class _Packed:
    """Row blocks of a weight in oneDNN's own layout, and the state of the weight they were made from."""

    parts: tuple[Tensor, ...]
    made_from: tuple[int, int, torch.dtype]


class Linear(nn.Linear):
    """nn.Linear with an epilogue: forward(x, act=, times=, plus=). Parameters and numbers are nn.Linear's.

    num_parts: equal blocks of output rows that may be asked for singly (forward's `part`).
    """

    def __init__(self, dim_in: int, dim_out: int, *, bias: bool = True, num_parts: int = 1) -> None:
        super().__init__(dim_in, dim_out, bias=bias)
        self.num_parts = num_parts
        self._packed: _Packed | None = None

    def forward(
        self,
        input: Tensor,
        *,
        act: Activation | None = None,
        times: Tensor | None = None,
        plus: Tensor | None = None,
        part: int | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """act(input @ weight.T + bias) * times + plus, of one block of output rows or of all.

        input: [..., dim_in]; times, plus: shaped as the result; at most one of act, times and plus. bias: [dim_out], in
        the place of the layer's own, which it must not have.
        """
        weight, bias = self.weight, self.bias if bias is None else bias
        if part is not None:
            rows = slice(part * self.out_features // self.num_parts, (part + 1) * self.out_features // self.num_parts)
            weight, bias = weight[rows], None if bias is None else bias[rows]
        if not can_fuse(input, weight):
            y = F.linear(input, weight, bias)
            y = y if act is None else activate(y, act)
            y = y if times is None else times * y
            return y if plus is None else plus + y
        if (packed := self._fresh()) is not None and (part is not None or self.num_parts == 1):
            weight = packed.parts[part or 0]
        other, name = (times, "mul") if times is not None else (plus, "add")
        if other is None:
            y = torch.ops.mkldnn._linear_pointwise(input, weight, bias, *_EPILOGUES.get(act, _NO_EPILOGUE))
            return activate(y, act) if act is not None and act not in _EPILOGUES else y
        return torch.ops.mkldnn._linear_pointwise.binary(input, other.contiguous(), weight, bias, name)

    def pack(self) -> None:
        """Keep a copy of the weight in oneDNN's layout beside it, for use without gradient on a CPU.

        The copy is dropped at the first call after the weight was replaced or changed in place. Does nothing where
        the kernels do not exist, and where the weight is made anew at each call (an adapter beside it).
        """
        self._packed = None
        if "weight" in self._parameters and can_fuse(self.weight, self.weight, is_grad_off=True):
            parts = self.weight.detach().chunk(self.num_parts)
            blocked = tuple(torch.ops.mkldnn._reorder_linear_weight(part, None) for part in parts)
            self._packed = _Packed(blocked, self._state())

    def _state(self) -> tuple[int, int, torch.dtype]:
        return self.weight.data_ptr(), self.weight._version, self.weight.dtype

    def _fresh(self) -> _Packed | None:
        if self._packed is not None and ("weight" not in self._parameters or self._packed.made_from != self._state()):
            self._packed = None
        return self._packed

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packed": None}  # oneDNN's tensors can neither be copied nor pickled


def can_fuse(x: Tensor, weight: Tensor, *, is_grad_off: bool = False) -> bool:
    """Whether oneDNN's fused kernels serve here: CPU, no gradient, no autocast, nothing traced, one of their dtypes."""
    dtype = x.dtype
    return (
        not torch.compiler.is_compiling()  # before any question to oneDNN, which a tracer cannot follow
        and (is_grad_off or not torch.is_grad_enabled())
        and x.is_cpu
        and weight.is_cpu
        and dtype == weight.dtype
        and (dtype is torch.float32 or (dtype is torch.bfloat16 and _has_bfloat16()))
        and type(x) in (Tensor, nn.Parameter)
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        and torch.backends.mkldnn.enabled
        and _has_mkldnn()
    )


@cache
def _has_mkldnn() -> bool:
    return torch.backends.mkldnn.is_available()


@cache
def _has_bfloat16() -> bool:
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def pack(module: nn.Module) -> None:
    """Pack every `Linear` inside a module."""
    for part in module.modules():
        if isinstance(part, Linear):
            part.pack()
