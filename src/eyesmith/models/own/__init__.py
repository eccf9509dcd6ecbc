"""Encoders of a user's own, read from one file each."""

from eyesmith.models.own.config import OwnEncoderConfig
from eyesmith.models.own.register import EncoderFile, own_config, own_encoders, register_encoder

__all__ = ["EncoderFile", "OwnEncoderConfig", "own_config", "own_encoders", "register_encoder"]
