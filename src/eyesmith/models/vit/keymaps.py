"""Where files of OpenAI, OpenCLIP, timm and Hugging Face have each tensor of a plain ViT and its text tower."""

from collections.abc import Collection
from dataclasses import replace
from typing import Literal

from eyesmith.models.keymap import LEAVES, Theirs, count_blocks, with_leaves, within

Layout = Literal["open_clip", "timm", "hugging_face"]
"""Whose names an image tower's tensors have; OpenAI's are open_clip's."""


def image_map(layout: Layout, prefix: str, ours: Collection[str], *, is_naflex: bool = False) -> dict[str, Theirs]:
    """By our names, within the image tower; ours: those that it has.

    is_naflex: Hugging Face's SigLIP 2, whose patches are rows of a matrix.
    """
    make = {"open_clip": _open_clip, "timm": _timm, "hugging_face": _hugging_face}[layout]
    found = make(count_blocks(ours, "layers."))
    if is_naflex:
        found["patch.weight"] = replace(found["patch.weight"], form="patches")
    keymap = within(found, "", prefix)
    if layout == "hugging_face":  # it lies beside the tower
        keymap["head.weight"] = found["head.weight"]
    return {name: place for name, place in keymap.items() if name in ours}


def text_map(layout: Layout, prefix: str, ours: Collection[str]) -> dict[str, Theirs]:
    """By our names, within the text tower; ours: those that it has, which are open_clip's."""
    if layout != "hugging_face":
        return {name: Theirs((prefix + name,)) for name in ours}
    modules = {"ln_final": "final_layer_norm", "text_projection": "head"}
    keymap: dict[str, Theirs] = {
        "token_embedding.weight": Theirs(("embeddings.token_embedding.weight",)),
        "positional_embedding": Theirs(("embeddings.position_embedding.weight",)),
    }
    for i in range(count_blocks(ours, "transformer.resblocks.")):
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
    found = within(keymap | with_leaves(modules), "", prefix)
    found["text_projection"] = Theirs(("text_projection.weight",), form="transposed")  # CLIP's, beside the tower
    return {name: place for name, place in found.items() if name in ours}


# of every part that a tower may have


def _open_clip(depth: int) -> dict[str, Theirs]:
    modules = {"norm": "ln_post", "pre_norm": "ln_pre"}
    keymap = {
        "class_token": Theirs(("class_embedding",), form="row"),
        "position": Theirs(("positional_embedding",), form="table"),
        "patch.weight": Theirs(("conv1.weight",)),
        "head.weight": Theirs(("proj",), form="transposed"),
    }
    for i in range(depth):
        own, their = f"layers.{i}.", f"transformer.resblocks.{i}."
        modules |= {
            own + "norm1": their + "ln_1",
            own + "attention.out": their + "attn.out_proj",
            own + "norm2": their + "ln_2",
            own + "mlp.enter": their + "mlp.c_fc",
            own + "mlp.out": their + "mlp.c_proj",
        }
        keymap |= {f"{own}attention.qkv.{leaf}": Theirs((f"{their}attn.in_proj_{leaf}",)) for leaf in LEAVES}
        keymap |= {f"{own}scale{k}.factor": Theirs((f"{their}ls_{k}.gamma",)) for k in (1, 2)}
    return keymap | with_leaves(modules)


def _timm(depth: int) -> dict[str, Theirs]:
    modules = {"norm": "norm", "pre_norm": "norm_pre", "patch": "patch_embed.proj"}
    modules |= {"attention_pool.out": "attn_pool.proj", "attention_pool.norm": "attn_pool.norm"}
    modules |= {"attention_pool.mlp.enter": "attn_pool.mlp.fc1", "attention_pool.mlp.out": "attn_pool.mlp.fc2"}
    keymap: dict[str, Theirs] = {
        "class_token": Theirs(("cls_token",)),
        "position": Theirs(("pos_embed",)),
        "attention_pool.query": Theirs(("attn_pool.latent",)),
        "head.weight": Theirs(("head.weight",)),
    }
    for leaf in LEAVES:
        parts = (f"attn_pool.q.{leaf}", f"attn_pool.kv.{leaf}")
        keymap[f"attention_pool.qkv.{leaf}"] = Theirs(parts, shares=(1, 2))
    for i in range(depth):
        own, their = f"layers.{i}.", f"blocks.{i}."
        modules |= {own + "norm1": their + "norm1", own + "norm2": their + "norm2"}
        modules |= {own + "attention.qkv": their + "attn.qkv", own + "attention.out": their + "attn.proj"}
        modules |= {own + "mlp.enter": their + "mlp.fc1", own + "mlp.out": their + "mlp.fc2"}
        keymap |= {f"{own}scale{k}.factor": Theirs((f"{their}ls{k}.gamma",)) for k in (1, 2)}
    return keymap | with_leaves(modules)


def _hugging_face(depth: int) -> dict[str, Theirs]:
    modules = {"norm": "post_layernorm", "pre_norm": "pre_layrnorm", "patch": "embeddings.patch_embedding"}
    modules |= {"attention_pool.out": "head.attention.out_proj", "attention_pool.norm": "head.layernorm"}
    modules |= {"attention_pool.mlp.enter": "head.mlp.fc1", "attention_pool.mlp.out": "head.mlp.fc2"}
    keymap = {
        "class_token": Theirs(("embeddings.class_embedding",), form="row"),
        "position": Theirs(("embeddings.position_embedding.weight",), form="table"),
        "attention_pool.query": Theirs(("head.probe",)),
        "head.weight": Theirs(("visual_projection.weight",)),
    }
    keymap |= {f"attention_pool.qkv.{leaf}": Theirs((f"head.attention.in_proj_{leaf}",)) for leaf in LEAVES}
    for i in range(depth):
        own, their = f"layers.{i}.", f"encoder.layers.{i}."
        modules |= {own + "norm1": their + "layer_norm1", own + "norm2": their + "layer_norm2"}
        modules |= {own + "attention.out": their + "self_attn.out_proj"}
        modules |= {own + "mlp.enter": their + "mlp.fc1", own + "mlp.out": their + "mlp.fc2"}
        for leaf in LEAVES:
            parts = tuple(f"{their}self_attn.{letter}_proj.{leaf}" for letter in "qkv")
            keymap[f"{own}attention.qkv.{leaf}"] = Theirs(parts)
    return keymap | with_leaves(modules)
