"""Adapters of low rank in a language model, by peft, and the plain model that they add up to."""

import importlib.util
from copy import deepcopy
from dataclasses import dataclass

from torch import nn

from eyesmith.errors import ConfigError, MissingDependencyError
from eyesmith.multimodal.model import ChatModel


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """LLaVA-1.5's LoRA by default."""

    rank: int = 128
    alpha: int = 256
    """The adapters' part is scaled by alpha / rank."""

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise ConfigError(f"lora: expected a rank of 1 or more and a positive alpha, got {self}")


def add_lora(language: nn.Module, config: LoraConfig) -> None:
    """Put adapters beside every linear layer but the last, in place; nothing but they trains in the language model.

    They begin at zero. Raises MissingDependencyError without peft.
    """
    if importlib.util.find_spec("peft") is None:
        raise MissingDependencyError("trains=lora needs peft: pip install 'eyesmith[chat]'")
    import peft

    settings = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    peft.inject_adapter_in_model(settings, language)
    for name, value in language.named_parameters():
        value.requires_grad_(".lora_" in name)


def merged(model: ChatModel) -> ChatModel:
    """The model with its adapters added to the weights, as a copy; itself where it has none."""
    if not any(".lora_" in name for name, _ in model.language.named_parameters()):
        return model
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = deepcopy(model)
    found = [(name, layer) for name, layer in model.language.named_modules() if isinstance(layer, BaseTunerLayer)]
    for name, layer in found:
        layer.merge()
        parent, _, own = name.rpartition(".")
        setattr(model.language.get_submodule(parent), own, layer.get_base_layer())
    return model
