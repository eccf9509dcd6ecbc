"""Encoders made ready to run fast: number format, memory order of convolution weights, compilation by block.

Nothing here changes a parameter's name or, beyond rounding, a result.
"""

import itertools
import types
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

from eyesmith.errors import ConfigError
from eyesmith.models.encoder import Encoder
from eyesmith.models.linear import pack

Mode = Literal["default", "max-autotune-no-cudagraphs"]
"""torch.compile's modes that fit blocks sharing a graph; those with CUDA graphs bind a graph to one block's weights."""
Scope = Literal["none", "blocks", "whole"]

_numbers = itertools.count()  # of compiled functions in this process


def compile_blocks(
    encoder: Encoder, *, mode: Mode = "default", backend: str | Callable[..., Any] = "inductor"
) -> Encoder:
    """Let every residual unit (`encoder.blocks()`) run compiled, in place; returns the encoder.

    Equal blocks share one graph: a ViTamin of any depth compiles seven, at its first call. All methods gain, not only
    forward. Names of the state dict stay as they are; copies and pickles of the encoder are not compiled. A second call
    with the same settings does nothing. A first batch of another size compiles anew, with the batch size left open.
    backend: torch.compile's. Raises ConfigError for an unknown mode.

    In training, stochastic depth has another rate in each block, which torch 2.13 takes for another graph; above 8 of
    one kind it stops compiling. Set drop_path_prob=0 where that matters.
    """
    if mode not in get_args(Mode):
        raise ConfigError(f"mode: expected {' or '.join(get_args(Mode))}, got {mode!r}")
    graphs: dict[Hashable, Callable[..., Any]] = {}
    for block in encoder.blocks():
        settings = (mode, backend)
        if isinstance(block._compiled_call_impl, _Compiled) and block._compiled_call_impl.settings == settings:
            continue
        kind = _kind(block)
        if kind not in graphs:
            graphs[kind] = torch.compile(_fresh(_run, type(block).__name__), mode=mode, backend=backend)
        block._compiled_call_impl = _Compiled(graphs[kind], block, settings)
    return encoder


def prepare_for_inference(
    encoder: Encoder,
    *,
    dtype: torch.dtype = torch.float32,
    compile: Scope = "none",
    mode: Mode = "default",
    backend: str | Callable[..., Any] = "inductor",
) -> Encoder:
    """Make an encoder ready to embed many images, in place; returns it. Move it to its device first.

    Evaluation mode; parameters cast to `dtype` (float32, bfloat16 or float16) once, not at every call as autocast does;
    convolution weights in channels-last order, as the maps are, so that no kernel reorders them. compile: `blocks` as
    `compile_blocks`; `whole` is one graph of forward alone, which takes longer to compile and also joins what stands on
    both sides of a block's end. Uncompiled on a CPU, weights are also kept in the layout of its fused kernels. Raises
    ConfigError for another dtype, scope or mode.
    """
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ConfigError(f"dtype: expected torch.float32, torch.bfloat16 or torch.float16, got {dtype}")
    if compile not in get_args(Scope):
        raise ConfigError(f"compile: expected {', '.join(get_args(Scope))}, got {compile!r}")
    if mode not in get_args(Mode):
        raise ConfigError(f"mode: expected {' or '.join(get_args(Mode))}, got {mode!r}")
    encoder.eval().to(dtype)
    for parameter in encoder.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    if compile == "blocks":
        compile_blocks(encoder, mode=mode, backend=backend)
    elif compile == "whole":
        encoder.compile(mode=mode, backend=backend)
    else:
        pack(encoder)
    return encoder


@dataclass(frozen=True, slots=True)
class _Compiled:
    """What calling the block runs. nn.Module keeps it outside of the state dict and of copies."""

    graph: Callable[..., Any]
    block: nn.Module
    settings: tuple[str, str | Callable[..., Any]]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.graph(self.block, *args, **kwargs)


def _run(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return block._call_impl(*args, **kwargs)


def _fresh(function: types.FunctionType, name: str) -> types.FunctionType:
    """The same function with a code object and a name of its own.

    By the code object torch keeps graphs and their limit of 8, by its name the record of which sizes vary. Compiled
    through one function, or through the `forward` of their class, blocks of other widths and resolutions would count as
    one function of varying sizes: slower graphs and, after a few batch sizes or a second model, silently none.
    """
    name = f"{name}_{next(_numbers)}"
    return types.FunctionType(function.__code__.replace(co_name=name), function.__globals__, name)


def _kind(block: nn.Module) -> Hashable:
    """Equal for blocks that one graph serves: classes, shapes, settings; not fractions, which change no shape."""
    modules = tuple(
        (
            name,
            type(module),
            tuple(
                (key, repr(value))
                for key, value in sorted(vars(module).items())
                if isinstance(value, int | str | tuple) and key != "training"
            ),
        )
        for name, module in block.named_modules()
    )
    return modules, tuple((name, tuple(parameter.shape)) for name, parameter in block.named_parameters())
