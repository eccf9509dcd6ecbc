"""Image encoders, text towers, and the pairs of both."""

from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.encoder import ConformanceError, Encoder, Tap, check_encoder
from eyesmith.models.registry import (
    config,
    create,
    create_encoder,
    encoder_config,
    list_encoders,
    list_models,
    register,
)

__all__ = [
    "Clip",
    "ClipConfig",
    "ConformanceError",
    "Encoder",
    "Tap",
    "check_encoder",
    "config",
    "create",
    "create_encoder",
    "encoder_config",
    "list_encoders",
    "list_models",
    "register",
]
