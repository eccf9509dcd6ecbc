"""Models that transformers builds, out of settings alone: which kinds, what of a config is read, which half is built.

A config file may name Python files, kernels and other paths, and the library's own readers follow it there. So the
sizes alone are read here, as JSON that stands in our config, and the library is given values.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.models.foreign.packages import first_line, import_transformers, quiet

DISTRIBUTION = "transformers"
Part = Literal["image", "text"]

PAIRS: dict[str, tuple[str, bool]] = {
    # padding of texts to the longest of a batch or to all positions; whether the tower is told what is padding
    "altclip": ("longest", True),
    "chinese_clip": ("longest", True),
    "clip": ("longest", False),  # causal: what stands behind the end changes nothing
    "metaclip_2": ("longest", False),
    "siglip": ("max_length", False),
}
"""Kinds with an image and a text tower, and how their processors pad."""

IMAGES = ("deit", "dinov2", "dinov2_with_registers", "dinov3_vit", "vit")
"""Kinds of image encoders without a text tower."""

_PARTS: dict[Part, tuple[str, ...]] = {"image": ("vision", "visual", "image"), "text": ("text",)}


def known_kinds() -> str:
    """All kinds, for messages."""
    return ", ".join(sorted((*PAIRS, *IMAGES)))


def read_settings(content: Mapping[str, Any], where: str) -> str:
    """The sizes in a config.json of transformers, as the JSON that our configs hold.

    Raises CheckpointError for a kind that is not known, and for one that wants Python of its own or is quantised.
    """
    if "auto_map" in content:
        raise CheckpointError(f"{where}: refused: it asks for Python files of its own (auto_map), which are never run")
    kind = content.get("model_type")
    if kind not in PAIRS and kind not in IMAGES:
        raise CheckpointError(f"{where}: expected a model_type of {known_kinds()}; it is {kind!r}")
    if "quantization_config" in content:
        raise CheckpointError(f"{where}: expected weights as they are, these are quantised")
    transformers = import_transformers(f"{where}, a {kind},")
    config_class = transformers.CONFIG_MAPPING[kind]
    found = _own_fields(transformers, config_class, content)
    for part, part_class in getattr(config_class, "sub_configs", {}).items():
        if isinstance(content.get(part), Mapping):
            found[part] = _own_fields(transformers, part_class, content[part])
    return json.dumps({"model_type": kind} | found, sort_keys=True)


def make_config(settings: str, name: str) -> Any:
    """The library's config out of our settings. Raises ConfigError where they make no sense."""
    try:
        content = json.loads(settings)
        kind = content.pop("model_type")
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        raise ConfigError(f"settings: {name} has settings that are no JSON object with a model_type") from None
    if kind not in PAIRS and kind not in IMAGES:
        raise ConfigError(f"settings: {name} is a {kind!r}, expected one of {known_kinds()}")
    transformers = import_transformers(name)
    try:
        with quiet(transformers):
            return transformers.CONFIG_MAPPING[kind](**content)
    except Exception as error:  # sizes that make no sense reach any kind of error
        raise ConfigError(f"settings: {name} cannot be built: {first_line(error)}") from None


def make_module(settings: str, name: str, part: Part) -> nn.Module:
    """The half of a model with the library's random weights, under the names of its files. A model without a text tower
    is whole.
    """
    config = make_config(settings, name)
    transformers = import_transformers(name)
    try:
        with quiet(transformers):
            module: nn.Module = transformers.AutoModel.from_config(
                config, attn_implementation="sdpa", trust_remote_code=False, dtype=torch.float32
            )
    except Exception as error:
        raise ConfigError(f"settings: {name} cannot be built: {first_line(error)}") from None
    if config.model_type in PAIRS:
        for child in [one for one, _ in module.named_children() if not one.startswith(_PARTS[part])]:
            delattr(module, child)
        for scalar in [one for one, _ in module.named_parameters(recurse=False)]:
            delattr(module, scalar)  # temperature and bias, which belong to the pair
    return module


def named_tensors(settings: str, name: str, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The tensors of a model's file under the names that the library of today has for them, position ids left out.

    Raises CheckpointError where some are missing, have another shape or, for a pair, are of something else.
    """
    config = make_config(settings, name)
    transformers = import_transformers(name)
    found = transformers.MODEL_MAPPING[type(config)]
    model_class = found[0] if isinstance(found, tuple) else found
    try:
        with quiet(transformers), torch.random.fork_rng(devices=[]):
            model, report = model_class.from_pretrained(
                None,
                config=config,
                state_dict=dict(tensors),
                attn_implementation="sdpa",
                trust_remote_code=False,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:
        raise CheckpointError(f"{where}: these are no weights of {name}: {first_line(error)}") from None
    missing = sorted(key for key in report["missing_keys"] if not key.endswith("position_ids"))
    odd = sorted(str(key) for key in report["unexpected_keys"] if not str(key).endswith("position_ids"))
    if missing:
        raise CheckpointError(f"{where}: weights are missing for {', '.join(missing[:3])} ({len(missing)} tensors)")
    if odd and config.model_type in PAIRS:
        raise CheckpointError(f"{where}: {odd[0]!r} has no place in transformers' {config.model_type}")
    return {key: value for key, value in model.state_dict().items() if not key.endswith("position_ids")}


def is_of(name: str, part: Part) -> bool:
    """Whether a tensor of a model's file belongs to a half of it."""
    return name.startswith(_PARTS[part])


def _own_fields(transformers: Any, config_class: Any, content: Mapping[str, Any]) -> dict[str, Any]:
    own = config_class().to_dict().keys() - transformers.PreTrainedConfig().to_dict().keys()
    own |= set(getattr(config_class, "attribute_map", {}))
    own -= set(getattr(config_class, "sub_configs", {}))
    fields = {name: value for name, value in content.items() if name in own and name != "model_type"}
    # of a text tower these decide where a text ends
    ends = {name: content[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id") if name in content}
    return fields | ends


def longest_list(root: nn.Module) -> str:
    """Name of a tower's list of blocks: the longest one. Raises ConfigError where it has none."""
    lists = {name: len(part) for name, part in root.named_modules() if isinstance(part, nn.ModuleList)}
    if not lists:
        raise ConfigError(f"settings: {type(root).__name__} has no list of blocks")
    return max(lists, key=lambda name: lists[name])
