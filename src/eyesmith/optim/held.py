"""Updates that a flag on the device can hold back, so that nobody has to wait for its value.

torch's fused optimisers take such a flag as their attribute `found_inf`: [] fp32, 1 where a step shall change nothing.
Ours take the same. Values are held by whole-number arithmetic on their bits, as 0 times nan is nan: what is let through
stays the same to the bit.
"""

# pyright: reportPrivateImportUsage=false
# torch has no public names for operations on lists of tensors

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

_WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def parts_here(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this process holds of each: its part where processes hold parts (a DTensor), else the tensor itself."""
    return [cast(Any, one).to_local() if hasattr(one, "to_local") else one for one in tensors]


def shard_groups(part: Tensor) -> list[Any]:
    """The process groups over which the parts of a tensor lie; replicas of a part are in none of them."""
    spread: Any = part
    return [
        spread.device_mesh.get_group(dim) for dim, place in enumerate(spread.placements) if not place.is_replicate()
    ]


def zero_if(held: Tensor | None, tensors: Sequence[Tensor]) -> None:
    """Fill the tensors with zeros where the flag is 1, whatever they held; None leaves them alone."""
    if held is not None and tensors:
        torch._foreach_mul_(_bits(tensors), (1 - held).to(torch.int32))


def chosen(held: Tensor, new: Sequence[Tensor], old: Sequence[Tensor]) -> list[Tensor]:
    """Copies: of `old` where the flag is 1, else of `new`. Both finite or not, of the same shapes and dtypes."""
    if not new:
        return []
    is_held = held.to(torch.int32)
    picked = torch._foreach_mul(_bits(new), 1 - is_held)
    kept = torch._foreach_mul(_bits(old), is_held)
    torch._foreach_add_(picked, kept)
    return [bits.view(one.dtype) for bits, one in zip(picked, new, strict=True)]


def keep_or_restore(held: Tensor, values: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    """Put `values` back to what they were `before` where the flag is 1; else remember the new ones there. In place."""
    if values:
        torch._foreach_copy_(list(values), chosen(held, values, before))
        torch._foreach_copy_(list(before), list(values))


def factor(held: Tensor | None, value: float, like: Tensor) -> Tensor | float:
    """`value`, or where the flag is 1 a factor that changes nothing; [] of the format of `like`."""
    if held is None:
        return value
    one = torch.ones((), dtype=like.dtype, device=like.device)
    return torch.where(held > 0, one, torch.full_like(one, value))


def _bits(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [one.view(_WHOLE[one.element_size()]) for one in tensors]
