"""Image encoders, text towers, and the pairs of both."""

from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.conformance import ConformanceError, check_encoder, find_violations
from eyesmith.models.encoder import Encoder, Tap
from eyesmith.models.registry import (
    config,
    create,
    create_encoder,
    encoder_config,
    list_encoders,
    list_models,
    register,
    register_encoder,
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
    "find_violations",
    "list_encoders",
    "list_models",
    "register",
    "register_encoder",
]
