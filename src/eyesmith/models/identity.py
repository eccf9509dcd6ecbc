"""What the numbers of a module depend on: its tensors, and how they are used."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, str, bytes, type(None))


def tensors_hash(tensors: Mapping[str, Tensor], kind: str = "") -> str:
    """SHA-256 of tensors by name: kind, names, types, shapes and values."""
    digest = hashlib.sha256(kind.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_hash(module: nn.Module) -> str:
    """Hexadecimal digest of a module's class and every tensor of its state."""
    return tensors_hash(module.state_dict(), type(module).__name__)[:24]


def module_hash(module: nn.Module) -> str:
    """Hexadecimal digest of all that a module's outputs depend on: its weights and its structure."""
    return hashlib.sha256(f"{weights_hash(module)} {structure_hash(module)}".encode()).hexdigest()[:24]


def structure_hash(module: nn.Module) -> str:
    """Hexadecimal digest of what a module computes beside its tensors: the classes of its parts and their settings
    (numbers, names, activation functions, configs), so that other heads or another activation are another model."""
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        digest.update(f"{name} {type(part).__module__}.{type(part).__qualname__}\n".encode())
        for key, value in sorted(vars(part).items()):
            # what may grow while a model is used (a list, a dict) is no setting
            if key[0] != "_" and key != "training" and not isinstance(value, list | dict):
                for line in _settings(value):
                    digest.update(f"{key} {line}\n".encode())
    return digest.hexdigest()[:24]


def _settings(value: Any) -> Iterator[str]:
    """What can be said of an attribute in words that are equal in every process; nothing of tensors and the like."""
    if isinstance(value, _PLAIN):
        yield repr(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield type(value).__qualname__
        for entry in dataclasses.fields(value):
            yield from (f"{entry.name} {line}" for line in _settings(getattr(value, entry.name)))
    elif isinstance(value, list | tuple):
        for place, one in enumerate(value):
            yield from (f"{place} {line}" for line in _settings(one))
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from (f"{key} {line}" for line in _settings(value[key]))
    elif isinstance(value, torch.dtype):
        yield str(value)
    elif isinstance(value, partial):
        for part in (value.func, value.args, value.keywords):
            yield from _settings(part)
    elif callable(value) and hasattr(value, "__qualname__"):
        yield f"{value.__module__}.{value.__qualname__}"
