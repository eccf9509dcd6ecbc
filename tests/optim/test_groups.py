from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from eyesmith.errors import ConfigError
from eyesmith.hub.foreign import foreign_config
from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.foreign.timm import TimmConfig
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.registry import config as model
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.optim import OptimConfig, freeze, parameter_groups, trained_table

CONFIG = ClipConfig(
    name="tiny",
    image=ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 2), num_heads=2, embed_dim=16),
    text=ClipTextConfig(width=16, depth=3, heads=2, embed_dim=16, context_len=16),
    preprocess=PreprocessConfig(image_size=(32, 32)),
)


@pytest.fixture
def clip() -> Clip:
    return CONFIG.build()


def _facts(clip: Clip, **settings: object) -> dict[str, tuple[float, float]]:
    """(lr_scale, weight_decay) of every parameter that trains."""
    names = {id(value): name for name, value in clip.named_parameters()}
    groups = parameter_groups(clip, OptimConfig(weight_decay=0.2, **settings))  # pyright: ignore[reportArgumentType]
    found = [(names[id(value)], group) for group in groups for value in group["params"]]
    assert len(found) == len(dict(found))
    return {name: (group["lr_scale"], group["weight_decay"]) for name, group in found}


def test_matrices_are_decayed_and_the_rest_is_not(clip: Clip) -> None:
    facts = _facts(clip)
    assert facts.keys() == dict(clip.named_parameters()).keys()
    for name, value in clip.named_parameters():
        assert facts[name] == (1.0, 0.2 if value.ndim >= 2 else 0.0), name
    assert facts["image.position"] == facts["text.token_embedding.weight"] == (1.0, 0.2)


def test_names_can_be_taken_out_of_decay(clip: Clip) -> None:
    facts = _facts(clip, no_decay=("image.position", "text.*embedding*"))
    plain = [name for name, (_, decay) in facts.items() if decay == 0 and dict(clip.named_parameters())[name].ndim > 1]
    assert plain == ["image.position", "text.positional_embedding", "text.token_embedding.weight"]
    with pytest.raises(
        ConfigError, match=r"optim.no_decay: no parameter fits 'image.positon'; did you mean image.posi"
    ):
        _facts(clip, no_decay=("image.positon",))


def test_a_locked_parameter_is_in_no_group() -> None:
    facts = _facts(replace(CONFIG, lock_text=True).build())
    assert facts
    assert not any(name.startswith("text.") for name in facts)


def test_towers_have_rates_of_their_own_and_the_temperature_has_the_peak(clip: Clip) -> None:
    facts = _facts(clip, image_lr_scale=0.4, text_lr_scale=0.04)
    for name, (scale, _) in facts.items():
        assert scale == {"image": 0.4, "text": 0.04, "logit_scale": 1.0}[name.split(".")[0]]


def test_each_block_further_from_the_end_is_slower(clip: Clip) -> None:
    """EVA-02's rule, layer by layer: blocks of the image tower are stem, two MBConv, transition, two transformer's."""
    facts = _facts(clip, image_lr_scale=0.5, layer_decay=0.8, text_layer_decay=0.7)
    expected = {
        "image.position": 0.5 * 0.8**7,
        "image.stem.conv1.weight": 0.5 * 0.8**6,
        "image.stage1.0.expand.weight": 0.5 * 0.8**5,
        "image.stage2.0.reduce.bias": 0.5 * 0.8**4,
        "image.transition.conv.weight": 0.5 * 0.8**3,
        "image.stage3.0.norm1.weight": 0.5 * 0.8**2,
        "image.stage3.1.mlp.out.weight": 0.5 * 0.8,
        "image.norm.weight": 0.5,
        "image.head.weight": 0.5,
        "text.token_embedding.weight": 0.7**4,
        "text.positional_embedding": 0.7**4,
        "text.transformer.resblocks.0.attn.in_proj_weight": 0.7**3,
        "text.transformer.resblocks.2.ln_1.bias": 0.7,
        "text.ln_final.weight": 1.0,
        "text.text_projection": 1.0,
        "logit_scale": 1.0,
    }
    for name, scale in expected.items():
        assert facts[name][0] == pytest.approx(scale), name


def test_open_clip_and_timm_count_the_transformers_blocks_alone(clip: Clip) -> None:
    """Two blocks here: stem, stages and position are layer 0, the mean-pooled norm stands with the head."""
    facts = _facts(clip, layer_decay=0.5, text_layer_decay=0.5, layer_decay_by="timm")
    expected = {
        "image.position": (0.125, 0.0),
        "image.stem.conv1.weight": (0.125, 0.2),
        "image.transition.conv.weight": (0.125, 0.2),
        "image.stage3.0.norm1.weight": (0.25, 0.0),
        "image.stage3.1.mlp.out.weight": (0.5, 0.2),
        "image.norm.weight": (1.0, 0.0),
        "image.head.weight": (1.0, 0.2),
        "text.token_embedding.weight": (0.0625, 0.2),
        "text.positional_embedding": (0.0625, 0.0),
        "text.transformer.resblocks.2.ln_1.bias": (0.5, 0.0),
        "text.ln_final.weight": (0.5, 0.0),  # with the last block, as open_clip's towers unlock
        "text.text_projection": (1.0, 0.2),
        "logit_scale": (1.0, 0.0),
    }
    assert {name: facts[name] for name in expected} == expected
    decays = _facts(clip, layer_decay=0.5, text_layer_decay=0.5, layer_decay_by="open_clip")
    assert decays["image.position"] == (0.125, 0.2)
    assert {name: scale for name, (scale, _) in decays.items()} == {name: scale for name, (scale, _) in facts.items()}


NAMES = {  # timm's: ours; enough of ViTamin's to tell every layer
    "pos_embed": "position",
    "patch_embed.backbone.stem.conv1.weight": "stem.conv1.weight",
    "patch_embed.backbone.pool.proj.weight": "transition.conv.weight",
    **{f"blocks.{k}.norm1.weight": f"stage3.{k}.norm1.weight" for k in range(14)},
    "fc_norm.weight": "norm.weight",
}


def test_vitamin_has_timms_sixteen_rates() -> None:
    timm = _timm()
    with torch.device("meta"):
        theirs = timm.create_model("vitamin_small_224", num_classes=0)
        ours = model("ViTamin-S").build()
    facts = _facts(ours, layer_decay=0.75, layer_decay_by="timm")
    expected = _timm_facts(theirs)
    assert {ours: expected[name] for name, ours in NAMES.items()} == {
        name: facts[f"image.{name}"] for name in NAMES.values()
    }
    assert len({scale for name, (scale, _) in facts.items() if name.startswith("image.")}) == 16


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "vit_base_patch16_siglip_224",
        "eva02_tiny_patch14_224",
        "convnext_atto",
        "coatnet_nano_rw_224",
    ],
)
def test_a_timm_backbone_has_timms_own_rates(name: str) -> None:
    timm = _timm()
    size = (224, 224)
    with torch.device("meta"):
        theirs = timm.create_model(name, num_classes=16)
    image = TimmConfig(model_name=name, image_size=size, embed_dim=16)
    pair = replace(CONFIG, image=image, preprocess=PreprocessConfig(image_size=size))
    facts = _facts(pair.build(), layer_decay=0.75, layer_decay_by="timm")
    expected = _timm_facts(theirs)
    found = {key.removeprefix("image.backbone."): value for key, value in facts.items() if "image.backbone." in key}
    assert found == {key: expected[key] for key in found}
    assert len(found) > 50
    assert facts["image.head.weight"][0] == 1.0


def _timm() -> Any:
    ensure_torchvision()
    return pytest.importorskip("timm")


def _timm_facts(model: nn.Module) -> dict[str, tuple[float, float]]:
    from timm.optim import param_groups_layer_decay  # pyright: ignore[reportPrivateImportUsage]

    undecayed = getattr(model, "no_weight_decay", set)()  # ConvNeXt has none
    groups = param_groups_layer_decay(model, weight_decay=0.2, no_weight_decay_list=undecayed, layer_decay=0.75)
    names = {id(value): name for name, value in model.named_parameters()}
    return {
        names[id(value)]: (group["lr_scale"], group["weight_decay"]) for group in groups for value in group["params"]
    }


def test_patterns_freeze_and_a_pattern_that_fits_nothing_is_an_error(clip: Clip) -> None:
    freeze(clip, ("image.stem.*", "*.bias"))
    frozen = {name for name, value in clip.named_parameters() if not value.requires_grad}
    assert frozen == {name for name in dict(clip.named_parameters()) if "image.stem." in name or name.endswith(".bias")}
    with pytest.raises(
        ConfigError, match=r"optim.freeze: no parameter fits 'image.stem'; did you mean image.stem.\*\?"
    ):
        freeze(clip, ("image.stem",))
    with pytest.raises(ConfigError, match=r"optim.freeze: no parameter fits 'logit_scal'; did you mean logit_scale"):
        freeze(clip, ("logit_scal",))


def test_the_table_shows_what_trains_and_what_does_not(clip: Clip) -> None:
    freeze(clip, ("image.stem.*", "logit_scale"))
    rows = trained_table(clip, parameter_groups(clip, OptimConfig(weight_decay=0.2, text_lr_scale=0.1)))
    assert [(row.part, row.is_trained, row.lr_scale, row.weight_decay) for row in rows] == [
        ("image", True, 1.0, 0.2),
        ("image", True, 1.0, 0.0),
        ("text", True, 0.1, 0.2),
        ("text", True, 0.1, 0.0),
        ("image", False, 0.0, 0.0),
        ("temperature", False, 0.0, 0.0),
    ]
    assert sum(row.num_parameters for row in rows) == sum(value.numel() for value in clip.parameters())
    assert rows[4].num_parameters == sum(value.numel() for value in clip.image.get_submodule("stem").parameters())


def test_projections_of_other_packages_come_after_the_last_block() -> None:
    """open_clip's towers hold theirs themselves, so that it comes before the blocks by name."""
    ensure_torchvision()
    pytest.importorskip("open_clip")
    found = foreign_config("open_clip:ViT-S-32")
    with torch.device("meta"):
        pair = found.build()
    assert isinstance(pair, Clip)
    facts = _facts(pair, layer_decay=0.5, text_layer_decay=0.5)
    for part, name in (("image", "proj"), ("text", "text_projection")):
        assert facts[f"{part}.tower.{name}"][0] == 1.0
        assert facts[f"{part}.tower.positional_embedding"][0] == 0.5**13
        assert facts[f"{part}.tower.transformer.resblocks.11.ln_1.weight"][0] == 0.5
    facts = _facts(pair, layer_decay=0.5, text_layer_decay=0.5, layer_decay_by="open_clip")
    assert (facts["image.tower.proj"][0], facts["image.tower.ln_post.weight"][0]) == (1.0, 0.5)
    assert (facts["text.tower.text_projection"][0], facts["text.tower.ln_final.weight"][0]) == (1.0, 0.5)


def test_a_decay_by_layers_of_a_tower_without_blocks_is_an_error(clip: Clip) -> None:
    clip.text = nn.Linear(4, 16)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConfigError, match=r"optim\.text_layer_decay: the text tower is a Linear, whose blocks are not"):
        parameter_groups(clip, OptimConfig(text_layer_decay=0.5))
    parameter_groups(clip, OptimConfig())
    clip.text.requires_grad_(False)
    parameter_groups(clip, OptimConfig(text_layer_decay=0.5))


def test_siglips_pooling_stands_with_the_head_as_in_timm() -> None:
    """Our own tower, and open_clip's around timm's backbone."""
    timm = _timm()
    pytest.importorskip("open_clip")
    with torch.device("meta"):
        theirs = timm.create_model("vit_base_patch16_siglip_224", num_classes=0)
        ours, other = model("ViT-B-16-SigLIP").build(), foreign_config("open_clip:ViT-B-16-SigLIP").build()
    expected = _timm_facts(theirs)
    names = {
        "attn_pool.latent": "attention_pool.query",
        "attn_pool.proj.weight": "attention_pool.out.weight",
        "norm.weight": "norm.weight",
        "pos_embed": "position",
    }
    facts = _facts(ours, layer_decay=0.75, layer_decay_by="timm")
    assert {name: facts[f"image.{own}"][0] for name, own in names.items()} == {
        name: expected[name][0] for name in names
    }
    assert isinstance(other, Clip)
    facts = _facts(other, layer_decay=0.75, layer_decay_by="timm")
    prefix = "image.tower.trunk."
    found = {name.removeprefix(prefix): value for name, value in facts.items() if name.startswith(prefix)}
    assert found == expected
