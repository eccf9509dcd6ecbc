"""A config and its tensors to a model, without drawing random weights first."""

from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor

from eyesmith.errors import ConfigError
from eyesmith.hub.weights import load_tensors
from eyesmith.models.classifier import ClassifierConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.encoder import Encoder
from eyesmith.models.families import EncoderConfig, ForeignConfig
from eyesmith.models.own import OwnEncoderConfig
from eyesmith.models.text.model import ClipTextConfig

ModelConfig = ClipConfig | ClassifierConfig | EncoderConfig


def build(
    config: ModelConfig, tensors: Mapping[str, Tensor], *, where: str, dtype: torch.dtype = torch.float32
) -> Clip | Encoder:
    """The model of `config` with these weights (our names), in evaluation mode on the CPU.

    where: the file, for messages. dtype: of the parameters. The tensors become the parameters where their type fits.
    Raises CheckpointError when names or shapes do not fit, ConfigError when sizes do not go together. torch's random
    state stays as it was.
    """
    try:
        if is_ours(config):
            with torch.device("meta"):
                model = config.build()
        else:  # other people's towers compute buffers when they are made, or read them from files
            with torch.random.fork_rng(devices=[]):
                model = config.build()
    except ConfigError as error:  # the sizes were told by the file, not by a user who sets fields
        raise type(error)(f"{where}: {error}") from error
    if isinstance(model, Clip) and "logit_bias" in tensors:  # of a model of the sigmoid loss
        model.logit_bias = torch.empty_like(tensors["logit_bias"], device=model.logit_scale.device)
    load_tensors(model, tensors, where=where, dtype=dtype)
    assert not any(value.is_meta for value in chain(model.parameters(), model.buffers()))
    return model.eval()


def is_ours(config: ModelConfig) -> bool:
    """Whether all towers are written here: their state dict is all they consist of."""
    if isinstance(config, ClipConfig):
        return is_ours(config.image) and isinstance(config.text, ClipTextConfig)
    if isinstance(config, ClassifierConfig):
        return is_ours(config.image)
    return not isinstance(config, ForeignConfig | OwnEncoderConfig)
