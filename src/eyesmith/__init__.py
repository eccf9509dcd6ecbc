"""eyesmith: design, train and measure the image encoders of vision-language models.

The names below are found on first use, so that `import eyesmith` costs nothing until a model is wanted.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eyesmith.dense.detect.run_folder import load_detector
    from eyesmith.dense.segment.run_folder import load_segmenter
    from eyesmith.hub.load import load, load_clip, load_encoder
    from eyesmith.models.clip import Clip, ClipConfig
    from eyesmith.models.conformance import check_encoder
    from eyesmith.models.encoder import Encoder, Tap
    from eyesmith.models.registry import create, create_encoder, list_encoders, list_models, register, register_encoder
    from eyesmith.multimodal.chat import load_chat

__version__ = "0.1.0.dev0"

__all__ = [
    "Clip",
    "ClipConfig",
    "Encoder",
    "Tap",
    "check_encoder",
    "create",
    "create_encoder",
    "list_encoders",
    "list_models",
    "load",
    "load_chat",
    "load_clip",
    "load_detector",
    "load_encoder",
    "load_segmenter",
    "register",
    "register_encoder",
]

_HOMES = {
    "Clip": "eyesmith.models.clip",
    "ClipConfig": "eyesmith.models.clip",
    "Encoder": "eyesmith.models.encoder",
    "Tap": "eyesmith.models.encoder",
    "check_encoder": "eyesmith.models.conformance",
    "create": "eyesmith.models.registry",
    "create_encoder": "eyesmith.models.registry",
    "list_encoders": "eyesmith.models.registry",
    "list_models": "eyesmith.models.registry",
    "load": "eyesmith.hub.load",
    "load_chat": "eyesmith.multimodal.chat",
    "load_clip": "eyesmith.hub.load",
    "load_detector": "eyesmith.dense.detect.run_folder",
    "load_encoder": "eyesmith.hub.load",
    "load_segmenter": "eyesmith.dense.segment.run_folder",
    "register": "eyesmith.models.registry",
    "register_encoder": "eyesmith.models.registry",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'eyesmith' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
