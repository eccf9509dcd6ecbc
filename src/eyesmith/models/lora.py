"""Adapters of low rank beside the matrices of any module, and the plain module that they add up to.

A matrix with an adapter is W + scale * up @ down wherever its module reads it, so the layer itself does not change: a
packed matrix of a text tower is adapted as a linear layer is.
"""

import math
from collections.abc import Iterable, Sequence, Set
from copy import deepcopy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from eyesmith.errors import ConfigError

MARK = ".lora_"  # in the name of every parameter of an adapter
_PACKED = "in_proj_weight"  # a matrix that is no linear layer's
Made = TypeVar("Made", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which matrices get an adapter, and of what size (LoRA, arXiv 2106.09685)."""

    rank: int = 0
    """0 has none: the weights themselves train."""
    alpha: int = 0
    """The adapters' part is scaled by alpha / rank; 0 is twice the rank."""
    layers: tuple[str, ...] = ("*",)
    """Patterns of the names of linear layers, as `image.*` or `*.qkv`; one that fits none is an error."""

    def __post_init__(self) -> None:
        if min(self.rank, self.alpha) < 0 or not self.layers:
            raise ConfigError(f"lora: expected rank and alpha of 0 or more and some layers, got {self}")

    @property
    def scale(self) -> float:
        """Factor on the product of the adapter's matrices."""
        return (self.alpha or 2 * self.rank) / self.rank


class Adapter(nn.Module):
    """matrix -> matrix + scale * up @ down. It begins at zero."""

    def __init__(self, matrix: Tensor, config: LoraConfig) -> None:
        super().__init__()
        made = {"device": matrix.device, "dtype": torch.float32}
        self.lora_down = nn.Parameter(torch.empty(config.rank, matrix.shape[1], **made))
        self.lora_up = nn.Parameter(torch.zeros(matrix.shape[0], config.rank, **made))
        self.scale = config.scale
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))

    def forward(self, matrix: Tensor) -> Tensor:
        """[o, i] in its own format, as exact under autocast as the merged weight."""
        with torch.autocast(matrix.device.type if matrix.device.type != "meta" else "cpu", enabled=False):
            return (matrix + self.scale * (self.lora_up @ self.lora_down)).to(matrix.dtype)


def linear_matrices(module: nn.Module) -> list[str]:
    """Names of the matrices that may be adapted: of linear layers, and packed ones of attention."""
    return [
        f"{name}.{own}" if name else own
        for name, part in module.named_modules()
        for own, value in part.named_parameters(recurse=False)
        if value.ndim == 2 and ((isinstance(part, nn.Linear) and own == "weight") or own == _PACKED)
    ]


def chosen_matrices(names: Sequence[str], config: LoraConfig) -> list[str]:
    """Those of `names` that fit a pattern of the config. Raises ConfigError for a pattern that fits none."""
    fits = {pattern: [name for name in names if _fits(name, pattern)] for pattern in config.layers}
    for pattern, found in fits.items():
        if not found:
            known = ", ".join(name.removesuffix(".weight") for name in names[:4])
            raise ConfigError(f"lora.layers: no layer fits {pattern!r}; there are {len(names)}, as {known}")
    return [name for name in names if any(name in found for found in fits.values())]


def add_adapters(module: nn.Module, names: Iterable[str], config: LoraConfig) -> None:
    """Put an adapter beside each named matrix of `module`, in place; what trains is not changed otherwise."""
    for name in names:
        owner, _, own = name.rpartition(".")
        part = module.get_submodule(owner)
        adapter = Adapter(cast(Tensor, getattr(part, own)), config)
        parametrize.register_parametrization(part, own, adapter)
        _adapted(part)[own].original.requires_grad_(False)


def adapt_blocks(
    model: nn.Module, blocks: Iterable[nn.Module], config: LoraConfig, *, locked: Set[nn.Parameter] = frozenset()
) -> None:
    """Put adapters beside the chosen matrices of blocks, but for `locked` ones; nothing else of the towers trains then.

    model: its towers are called `image` and `text`. Raises ConfigError for a pattern that fits no layer, and where no
    block has one.
    """
    own = {id(one) for block in blocks for one in block.parameters() if one not in locked}
    held = dict(model.named_parameters())
    names = [name for name in linear_matrices(model) if id(held[name]) in own]
    if not names:
        raise ConfigError("lora.rank: this run trains no block that adapters could stand beside; set it to 0")
    for part in ("image", "text"):
        if (tower := getattr(model, part, None)) is not None:
            tower.requires_grad_(False)
    add_adapters(model, chosen_matrices(names, config), config)


def add_adapters_like(module: nn.Module, other: nn.Module) -> None:
    """Put adapters where `other`, a module of the same kind, has them; their values are still to be given."""
    for name, part in list(other.named_modules()):
        if not parametrize.is_parametrized(part):
            continue
        for own, held in _adapted(part).items():
            adapter = deepcopy(held[0]).to_empty(device="cpu")
            parametrize.register_parametrization(module.get_submodule(name), own, adapter)


def merged(module: Made) -> Made:
    """A copy with its adapters added to the weights, of the same parameters as without; itself where it has none."""
    if not any(MARK in name for name, _ in module.named_parameters()):
        return module
    module = deepcopy(module)
    for part in list(module.modules()):
        if parametrize.is_parametrized(part):
            _own_class(part)
            for own in list(_adapted(part)):
                # torch's own way to keep the sum writes it into the matrix, which another module may share
                value = cast(Tensor, getattr(part, own)).detach().clone()
                parametrize.remove_parametrizations(part, own, leave_parametrized=False)
                setattr(part, own, nn.Parameter(value))
    return module


def _own_class(part: nn.Module) -> None:
    """Give a copied module a class of its own: torch takes the matrix's name off the class, which the first one has."""
    shared = type(part)
    content = {name: value for name, value in vars(shared).items() if name not in ("__dict__", "__weakref__")}
    part.__class__ = cast(Any, type(shared.__name__, shared.__bases__, content))


def _adapted(part: nn.Module) -> dict[str, Any]:
    held: Any = part.parametrizations
    return {own: held[own] for own in held if isinstance(held[own][0], Adapter)}


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name.removesuffix(".weight"), pattern) or fnmatchcase(name, pattern)
