"""The families whose published weights are read and written, by the config of their encoders.

A new family is one line here: the module of its key maps, which offers what `Published` says.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from eyesmith.models.eva02 import weights as eva02
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.models.keymap import Asked
from eyesmith.models.vitamin import weights as vitamin
from eyesmith.models.vitamin.model import ViTaminConfig

Tensors = Mapping[str, Tensor]


class Published(Protocol):
    """The `weights` module of a family. Configs: of its encoder, or of a pair or classifier on it."""

    def recognises(self, tensors: Tensors, /) -> bool:
        """Whether these are the family's, in others' names."""
        ...

    def read(self, tensors: Tensors, asked: Asked, /) -> tuple[Any, dict[str, Tensor], tuple[str, ...]]:
        """Config and our tensors out of others' names, and what was left out in words."""
        ...

    def own_config(self, tensors: Tensors, asked: Asked, /) -> Any:
        """The config of tensors in our names; None where it cannot be told."""
        ...

    def write(self, tensors: Tensors, config: Any, layout: str, /) -> dict[str, Tensor]:
        """Our tensors in others' names."""
        ...

    def wanted_size(self, config: Any, asked: Asked, /) -> tuple[int, int] | None:
        """The image size to run at, None for the stored one."""
        ...

    def resize_state(self, tensors: Tensors, old: Any, new: Any, /) -> dict[str, Tensor]:
        """Our encoder's tensors at another image size."""
        ...


WEIGHTS: dict[type, Published] = {Eva02Config: eva02, ViTaminConfig: vitamin}
