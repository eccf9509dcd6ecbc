"""Where files of OpenAI, OpenCLIP, timm and Hugging Face have each tensor of a plain ViT and its text tower."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from eyesmith.models.keymap import LEAVES, Theirs, with_leaves, within
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vit.model import VitConfig

Layout = Literal["open_clip", "timm", "hugging_face"]
"""Whose names an image tower's tensors have; OpenAI's are open_clip's."""


def image_map(config: VitConfig, layout: Layout, prefix: str, *, is_naflex: bool = False) -> dict[str, Theirs]:
    """By our names, within the image tower. is_naflex: Hugging Face's SigLIP 2, whose patches are rows of a matrix."""
    make = {"open_clip": _open_clip, "timm": _timm, "hugging_face": _hugging_face}[layout]
    found = make(config)
    if is_naflex:
        found["patch.weight"] = Theirs(found["patch.weight"].parts, form="patches")
    keymap = within(found, "", prefix)
    if layout == "hugging_face" and "head.weight" in found:  # it lies beside the tower
        keymap["head.weight"] = found["head.weight"]
    return keymap


def text_map(config: ClipTextConfig, layout: Layout, prefix: str, ours: Mapping[str, Tensor]) -> dict[str, Theirs]:
    """By our names, within the text tower; ours: its tensors, whose names are open_clip's."""
    if layout != "hugging_face":
        return {name: Theirs((prefix + name,)) for name in ours}
    modules = {"ln_final": "final_layer_norm"}
    keymap: dict[str, Theirs] = {
        "token_embedding.weight": Theirs(("embeddings.token_embedding.weight",)),
        "positional_embedding": Theirs(("embeddings.position_embedding.weight",)),
    }
    for i in range(config.depth):
        own, their = f"transformer.resblocks.{i}.", f"encoder.layers.{i}."
        modules |= {
            own + "attn.out_proj": their + "self_attn.out_proj",
            own + "ln_1": their + "layer_norm1",
            own + "ln_2": their + "layer_norm2",
            own + "mlp.c_fc": their + "mlp.fc1",
            own + "mlp.c_proj": their + "mlp.fc2",
        }
        for leaf in LEAVES:
            parts = tuple(f"{their}self_attn.{letter}_proj.{leaf}" for letter in "qkv")
            keymap[f"{own}attn.in_proj_{leaf}"] = Theirs(parts)
    if config.projection == "biased":
        modules["text_projection"] = "head"
    keymap |= with_leaves(modules)
    found = within(keymap, "", prefix)
    if config.projection == "plain":
        found["text_projection"] = Theirs(("text_projection.weight",), form="transposed")
    return found


def _open_clip(config: VitConfig) -> dict[str, Theirs]:
    modules = {"norm": "ln_post"} | ({"pre_norm": "ln_pre"} if config.has_pre_norm else {})
    keymap = {
        "class_token": Theirs(("class_embedding",), form="row"),
        "position": Theirs(("positional_embedding",), form="table"),
        "patch.weight": Theirs(("conv1.weight",)),
    }
    for i in range(config.depth):
        own, their = f"layers.{i}.", f"transformer.resblocks.{i}."
        modules |= {
            own + "norm1": their + "ln_1",
            own + "attention.out": their + "attn.out_proj",
            own + "norm2": their + "ln_2",
            own + "mlp.enter": their + "mlp.c_fc",
            own + "mlp.out": their + "mlp.c_proj",
        }
        keymap |= {f"{own}attention.qkv.{leaf}": Theirs((f"{their}attn.in_proj_{leaf}",)) for leaf in LEAVES}
        if config.layer_scale:
            keymap |= {f"{own}scale{k}.factor": Theirs((f"{their}ls_{k}.gamma",)) for k in (1, 2)}
    if config.embed_dim:
        keymap["head.weight"] = Theirs(("proj",), form="transposed")
    return keymap | with_leaves(modules)


def _timm(config: VitConfig) -> dict[str, Theirs]:
    modules = {"norm": "norm"} | ({"pre_norm": "norm_pre"} if config.has_pre_norm else {})
    keymap: dict[str, Theirs] = {
        "position": Theirs(("pos_embed",)),
        "patch.weight": Theirs(("patch_embed.proj.weight",)),
    }
    if config.has_class_token:
        keymap["class_token"] = Theirs(("cls_token",))
    if config.has_patch_bias:
        keymap["patch.bias"] = Theirs(("patch_embed.proj.bias",))
    for i in range(config.depth):
        own, their = f"layers.{i}.", f"blocks.{i}."
        modules |= {own + "norm1": their + "norm1", own + "norm2": their + "norm2"}
        modules |= {own + "attention.qkv": their + "attn.qkv", own + "attention.out": their + "attn.proj"}
        modules |= {own + "mlp.enter": their + "mlp.fc1", own + "mlp.out": their + "mlp.fc2"}
        if config.layer_scale:
            keymap |= {f"{own}scale{k}.factor": Theirs((f"{their}ls{k}.gamma",)) for k in (1, 2)}
    if config.pooling == "map":
        own, their = "attention_pool.", "attn_pool."
        keymap[own + "query"] = Theirs((their + "latent",))
        for leaf in LEAVES:
            keymap[f"{own}qkv.{leaf}"] = Theirs((f"{their}q.{leaf}", f"{their}kv.{leaf}"), shares=(1, 2))
        modules |= {own + "out": their + "proj", own + "norm": their + "norm"}
        modules |= {own + "mlp.enter": their + "mlp.fc1", own + "mlp.out": their + "mlp.fc2"}
    elif config.embed_dim:
        keymap["head.weight"] = Theirs(("head.weight",))
    return keymap | with_leaves(modules)


def _hugging_face(config: VitConfig) -> dict[str, Theirs]:
    modules = {"norm": "post_layernorm"} | ({"pre_norm": "pre_layrnorm"} if config.has_pre_norm else {})
    keymap = {
        "position": Theirs(("embeddings.position_embedding.weight",), form="table"),
        "patch.weight": Theirs(("embeddings.patch_embedding.weight",)),
    }
    if config.has_class_token:
        keymap["class_token"] = Theirs(("embeddings.class_embedding",), form="row")
    if config.has_patch_bias:
        keymap["patch.bias"] = Theirs(("embeddings.patch_embedding.bias",))
    for i in range(config.depth):
        own, their = f"layers.{i}.", f"encoder.layers.{i}."
        modules |= {own + "norm1": their + "layer_norm1", own + "norm2": their + "layer_norm2"}
        modules |= {own + "attention.out": their + "self_attn.out_proj"}
        modules |= {own + "mlp.enter": their + "mlp.fc1", own + "mlp.out": their + "mlp.fc2"}
        for leaf in LEAVES:
            parts = tuple(f"{their}self_attn.{letter}_proj.{leaf}" for letter in "qkv")
            keymap[f"{own}attention.qkv.{leaf}"] = Theirs(parts)
    if config.pooling == "map":
        own, their = "attention_pool.", "head."
        keymap[own + "query"] = Theirs((their + "probe",))
        keymap |= {f"{own}qkv.{leaf}": Theirs((f"{their}attention.in_proj_{leaf}",)) for leaf in LEAVES}
        modules |= {own + "out": their + "attention.out_proj", own + "norm": their + "layernorm"}
        modules |= {own + "mlp.enter": their + "mlp.fc1", own + "mlp.out": their + "mlp.fc2"}
    elif config.embed_dim:
        keymap["head.weight"] = Theirs(("visual_projection.weight",))
    return keymap | with_leaves(modules)
