"""Which parameters train, and with what share of the rate and of the decay."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from eyesmith.config import closest
from eyesmith.errors import ConfigError
from eyesmith.models.encoder import Encoder
from eyesmith.models.foreign.timm_maps import TimmMaps
from eyesmith.models.foreign.transformers_text import TransformersText
from eyesmith.optim.config import LayerRule, OptimConfig

# the part that is in no tower: of an image-text model, of an encoder by itself, of a language model with an eye
TEMPERATURE, HEAD, PROJECTOR = "temperature", "head", "projector"


@dataclass(frozen=True, kw_only=True)
class TrainedRow:
    """One line of the table of what trains: some parameters of equal rate and decay.

    part: image, text or temperature (head in a model without text); layer: depth of the block they are in, 0 before the
    first, None where all layers are alike; lr_scale: factor on the rate, 0 for frozen ones; num_parameters: scalars in
    them.
    """

    part: str
    layer: int | None
    lr_scale: float
    weight_decay: float
    is_trained: bool
    num_tensors: int
    num_parameters: int


# where a tower's projection lies, ours and other packages'; some towers hold it themselves, before their blocks
_PROJECTIONS = ("head.", "text_projection", "tower.head.", "tower.text_projection", "tower.visual_projection.")
_MATRIX_SIDE = 16  # what is shorter is no matrix to Muon


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Take the gradient off every parameter whose name fits a pattern (`*` and `?` as in file names).

    Raises ConfigError for a pattern that fits no parameter, naming close names.
    """
    names = dict(model.named_parameters())
    for pattern in patterns:
        for name in matching(names, pattern, "optim.freeze"):
            names[name].requires_grad_(False)


def matching(names: Mapping[str, Any], pattern: str, field: str) -> list[str]:
    """The names that fit a pattern. Raises ConfigError when none does; `field` is where the pattern stands."""
    if found := [name for name in names if fnmatchcase(name, pattern)]:
        return found
    # a whole module is often meant by its name alone
    whole = f"{pattern}.*" if any(name.startswith(f"{pattern}.") for name in names) else ""
    hint = f"; did you mean {whole}?" if whole else closest(pattern, names)
    raise ConfigError(f"{field}: no parameter fits {pattern!r}{hint}")


def parameter_groups(
    model: nn.Module, config: OptimConfig, *, extra: Mapping[str, Tensor] | None = None
) -> list[dict[str, Any]]:
    """Optimiser groups of what trains, each with `weight_decay`, `lr_scale`, and for tables `part` and `layer`.

    Decayed are tensors of two or more axes whose name fits no pattern of `no_decay`: matrices, position and token
    tables; biases, norms and the temperature are not. (open_clip's rule; its further rule by name, "bn", "ln" or "bias"
    in it, catches no matrix of these models.) A parameter that needs no gradient (a locked tower) is in no group.

    lr_scale of a parameter in block k of the L of its tower is the tower's scale times layer_decay ** (L + 1 - k),
    k = 1 .. L; what comes before the first block (class token, position and token tables) has k = 0, what comes after
    the last (norm, projection) k = L + 1; what stands between two blocks goes with the former. What is in no tower (the
    temperature, a head or mask token of a model without text), and `extra` parameters by name, have lr_scale 1 and are
    decayed by the same rule, in groups of their own.

    For muon the matrices of the towers, kernels included, are groups apart: `is_matrix` is set; where no tower trains,
    as under a detector's head, those of what does. Tables of tokens and positions are none.

    layer_decay_by: what counts as a block. "eva", the papers': every residual unit. "timm" and "open_clip": the
    transformer's blocks alone, so that a convolutional stem and its stages are one layer, 0; a norm before the pooling
    goes with the last block; a timm backbone is counted by its own group_matcher. "timm" leaves position tables and
    class tokens undecayed too, "open_clip" class tokens (a vector there, [1, 1, C] here).

    model: its image encoder is called `image`, its text tower, where it has one, `text`.
    Source: BEiT's layer-wise decay as EVA-02 uses it; timm's param_groups_layer_decay; the groups that open_clip's
    towers unlock by. Raises ConfigError for a pattern that fits nothing, and for a decay by layers of a tower that
    shows no blocks.
    """
    undecayed = {
        name
        for pattern in config.no_decay
        for name in matching(dict(model.named_parameters()), pattern, "optim.no_decay")
    }
    image, text = model.image, getattr(model, "text", None)
    assert isinstance(image, Encoder)
    towers = {"image": (image.blocks(), config.image_lr_scale, config.layer_decay)}
    if text is not None:
        towers["text"] = (text_blocks(text), config.text_lr_scale, config.text_layer_decay)
    other = parts_of(model)[-1]
    has_tower = any(value.requires_grad for part in towers for value in getattr(model, part).parameters())
    layers: dict[str, dict[str, int]] = {}
    last: dict[str, int] = {}
    for part, (blocks, _, _) in towers.items():
        layers[part], last[part] = layer_numbers(getattr(model, part), blocks, by=config.layer_decay_by)
    undecayed |= {f"{part}.{name}" for part in towers for name in _tables(getattr(model, part), config.layer_decay_by)}
    groups: dict[tuple[str, int | None, bool, bool], dict[str, Any]] = {}
    for name, parameter in (*model.named_parameters(), *(extra or {}).items()):
        if not parameter.requires_grad:
            continue
        part, _, inner = name.partition(".")
        layer, lr_scale = None, 1.0
        if part in towers:
            _, lr_scale, decay = towers[part]
            if decay != 1:
                if not towers[part][0]:
                    field = "layer_decay" if part == "image" else "text_layer_decay"
                    raise ConfigError(
                        f"optim.{field}: the {part} tower is a {type(getattr(model, part)).__name__}, whose blocks are "
                        "not known, so none can be slower than another; set it to 1"
                    )
                layer = layers[part][inner]
                lr_scale *= decay ** (last[part] - layer)
        else:
            part = other
        is_decayed = parameter.ndim >= 2 and name not in undecayed
        is_turned = config.name == "muon" and (part in towers or not has_tower)
        is_matrix = is_turned and not _is_table(name) and _is_matrix(parameter)
        group = groups.setdefault(
            (part, layer, is_decayed, is_matrix),
            {
                "params": [],
                "weight_decay": config.weight_decay if is_decayed else 0.0,
                "lr_scale": lr_scale,
                "part": part,
                "layer": layer,
                **({"is_matrix": True} if is_matrix else {}),
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def trained_table(model: nn.Module, groups: Sequence[Mapping[str, Any]]) -> list[TrainedRow]:
    """What trains and what does not, a row for each group of equal rate and decay, frozen parameters last."""
    frozen: dict[str, list[Tensor]] = {part: [] for part in parts_of(model)}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            frozen[part_of(name, model)].append(parameter)
    still = {"layer": None, "lr_scale": 0.0, "weight_decay": 0.0, "is_trained": False}
    untrained = [{"part": part, "params": params, **still} for part, params in frozen.items() if params]
    return [
        TrainedRow(
            part=group["part"],
            layer=group["layer"],
            lr_scale=group["lr_scale"],
            weight_decay=group["weight_decay"],
            is_trained=group.get("is_trained", True),
            num_tensors=len(group["params"]),
            num_parameters=sum(parameter.numel() for parameter in group["params"]),
        )
        for group in (*groups, *untrained)
    ]


def layer_numbers(tower: nn.Module, blocks: Sequence[nn.Module], *, by: LayerRule) -> tuple[dict[str, int], int]:
    """Depth of each parameter of a tower by name: 0 before the first block, k in or after block k, L + 1 at the end;
    and L + 1, which a tower without norm and projection does not reach.

    blocks: the tower's residual units in order. by: as in `parameter_groups`.
    """
    prefix, backbone = _timm_backbone(tower)
    if by != "eva" and hasattr(backbone, "group_matcher"):
        return _timm_layers(tower, prefix, backbone)
    if by != "eva":
        blocks = [block for block in blocks if hasattr(block, "attention") or hasattr(block, "attn")] or blocks
    numbers = {id(parameter): k for k, block in enumerate(blocks, 1) for parameter in block.parameters()}
    is_norm_apart = by == "eva" or bool(getattr(tower, "is_mean_pooled", False))
    layers: dict[str, int] = {}
    present = 0
    for name, parameter in tower.named_parameters():
        if id(parameter) in numbers:
            present = numbers[id(parameter)]
            layers[name] = present
        elif name == "tower.proj" or name.startswith((*_PROJECTIONS, "attention_pool.")):
            layers[name] = len(blocks) + 1
        else:
            layers[name] = len(blocks) + 1 if present == len(blocks) and is_norm_apart else present
    return layers, len(blocks) + 1


def _timm_backbone(tower: nn.Module) -> tuple[str, Any]:
    """The timm backbone of a tower that has one, and what its parameters' names begin with there; else ("", None)."""
    backbone = tower.timm() if isinstance(tower, TimmMaps) else getattr(tower, "backbone", None)
    if not isinstance(backbone, nn.Module):
        return "", None
    return next(f"{name}." for name, part in tower.named_modules() if part is backbone), backbone


def _timm_layers(tower: nn.Module, prefix: str, backbone: Any) -> tuple[dict[str, int], int]:
    from timm.models import group_parameters  # there is a timm backbone, so there is timm

    found: dict[int, list[str]] = group_parameters(backbone, backbone.group_matcher(coarse=False))
    layers = {f"{prefix}{name}": layer for layer, part in found.items() for name in part}
    # our head is timm's head: beside what the matcher leaves to the head too, else a layer of its own
    last = max(layers.values())
    if not any(name.startswith(("fc_norm.", "head.", "attn_pool.")) for name in found[last]):
        last += 1
    return layers | {name: last for name, _ in tower.named_parameters() if name not in layers}, last


def _tables(tower: nn.Module, by: LayerRule) -> list[str]:
    """Position tables and class tokens of a tower that a peer does not decay."""
    prefix, backbone = _timm_backbone(tower)
    if by == "timm" and hasattr(backbone, "no_weight_decay"):
        return [f"{prefix}{name}" for name in backbone.no_weight_decay()]
    kinds = {
        "eva": (),
        "timm": ("position", "positional_embedding", "pos_embed", "class_token", "cls_token"),
        "open_clip": ("class_token", "cls_token"),
    }[by]
    return [name for name, _ in tower.named_parameters() if name.rpartition(".")[2] in kinds]


def parts_of(model: nn.Module) -> tuple[str, ...]:
    """What tables call the parts of a model: its towers, and the rest."""
    if not hasattr(model, "text"):
        return ("image", HEAD)
    return ("image", "text", PROJECTOR if hasattr(model, "projector") else TEMPERATURE)


def part_of(name: str, model: nn.Module) -> str:
    """Which of `parts_of` a parameter, by its name, belongs to."""
    first = name.partition(".")[0]
    return first if first in ("image", "text") else parts_of(model)[-1]


def text_blocks(text: nn.Module) -> list[nn.Module]:
    """The residual units of a text tower in order; none for a tower that does not show them.

    A causal language model of transformers shows those of its decoder.
    """
    if hasattr(text, "get_decoder"):
        decoder: Any = text
        return list(decoder.get_decoder().layers)
    if isinstance(text, TransformersText):
        return text.blocks()
    transformer = getattr(text, "transformer", None)
    return list(getattr(transformer, "resblocks", ()))


def _is_matrix(parameter: Tensor) -> bool:
    """Whether it maps vectors to vectors: outputs and all the rest are both long, as no depthwise kernel is."""
    return parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) >= _MATRIX_SIDE


def _is_table(name: str) -> bool:
    return any(word in name for word in ("embedding", "position", "token", "queries"))
