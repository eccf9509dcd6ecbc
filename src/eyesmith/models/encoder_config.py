"""The config of any image encoder, whichever family it is of."""

from eyesmith.models.eva02.config import Eva02Config
from eyesmith.models.own.config import OwnEncoderConfig
from eyesmith.models.timm.config import TimmConfig
from eyesmith.models.vitamin.config import ViTaminConfig

EncoderConfig = ViTaminConfig | Eva02Config | TimmConfig | OwnEncoderConfig
