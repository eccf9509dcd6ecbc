"""Image encoders, text towers, and the pairs of both."""

from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.encoder import ConformanceError, Encoder, Tap, check_encoder
from eyesmith.models.registry import config, create, list_models, register

__all__ = [
    "Clip",
    "ClipConfig",
    "ConformanceError",
    "Encoder",
    "Tap",
    "check_encoder",
    "config",
    "create",
    "list_models",
    "register",
]
