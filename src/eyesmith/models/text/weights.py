"""Text weights from and to OpenCLIP's layouts. Inside the tower the names are the same, only the prefix differs."""

from collections.abc import Mapping

from torch import Tensor

PREFIX = "text."  # of the text tower in OpenCLIP's CustomTextCLIP (all ViTamin and EVA models)
_BUFFERS = ("attn_mask",)  # stored by old checkpoints, computed here
_OWN = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")


def from_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text tower's tensors out of a whole OpenCLIP state dict, named as ClipText names them.

    Reads CustomTextCLIP (`text.` before every name) and the older CLIP class (no prefix); other tensors are left out.
    Empty when the state holds no text tower.
    """
    prefix = PREFIX if any(key.startswith(PREFIX) for key in state) else ""
    inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return {key: value for key, value in inner.items() if key.startswith(_OWN) and key not in _BUFFERS}


def to_open_clip(state: Mapping[str, Tensor], *, prefix: str = PREFIX) -> dict[str, Tensor]:
    """The tower's state dict with OpenCLIP's names: `text.` for CustomTextCLIP, an empty prefix for the CLIP class."""
    return {prefix + key: value for key, value in state.items()}
