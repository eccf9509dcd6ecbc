"""Names of the release, timm and open_clip: bit-exact both ways, computed tables ignored, clear about what is wrong."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.images import PreprocessConfig
from eyesmith.models import ClipConfig
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.models.eva02.weights import (
    Layout,
    find_tower,
    from_clip,
    from_published,
    meta_state,
    pair_config,
    recognises,
    resize_patch_kernel,
    to_clip,
    to_published,
    tower_config,
)
from eyesmith.models.registry import config as model_config
from eyesmith.models.registry import encoder_config, list_models
from eyesmith.models.text import ClipTextConfig, HuggingFaceTextConfig

TINY = Eva02Config(image_size=(56, 56), width=64, depth=2, num_heads=1, hidden_dim=40, embed_dim=12)
PARTS = {
    "packed": TINY,
    "separate": replace(TINY, norm="sub", is_packed=False),
    "clip": replace(TINY, norm="sub", is_packed=False, has_inner_norm=True, pooling="token"),
    "vit": replace(TINY, ffn="mlp", relation="none", pooling="token"),
    "headless": replace(TINY, embed_dim=0),
}
PAIR = ClipConfig(
    name="tiny",
    image=PARTS["clip"],
    text=ClipTextConfig(width=64, depth=2, heads=1, embed_dim=12, vocab_size=50),
    preprocess=PreprocessConfig(image_size=(56, 56)),
)


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


def random_state(config: Eva02Config) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(value.shape, generator=generator) for name, value in meta_state(config).items()}


@pytest.mark.parametrize("layout", ["reference", "timm", "open_clip"])
@pytest.mark.parametrize("parts", PARTS)
def test_every_layout_goes_there_and_back_bit_for_bit(parts: str, layout: Layout) -> None:
    config = PARTS[parts]
    ours = random_state(config)
    theirs = to_published(ours, config, layout=layout)
    assert recognises(theirs)
    assert not recognises(ours)
    assert same(from_published(theirs, config), ours)
    found = find_tower(theirs)
    if parts != "vit":  # a plain ViT has the same names in the release and in timm
        assert found.layout == layout
    told = tower_config(found)
    assert replace(told, initial="jax", resize="reference", pooling=config.pooling) == config
    assert told.resize == ("reference" if found.layout == "reference" else "timm")


def test_the_releases_names_of_a_packed_and_a_separate_block() -> None:
    names = {name for name in to_published(random_state(TINY), TINY, layout="reference") if name.startswith("blocks.1")}
    norms = {f"blocks.1.norm{i}.{leaf}" for i in (1, 2) for leaf in ("weight", "bias")}
    attention = {f"blocks.1.attn.{leaf}" for leaf in ("qkv.weight", "q_bias", "v_bias", "proj.weight", "proj.bias")}
    mlp = {f"blocks.1.mlp.{part}.{leaf}" for part in ("w12", "w3") for leaf in ("weight", "bias")}
    assert names == norms | attention | mlp
    clip = PARTS["clip"]
    state = random_state(clip)
    theirs = to_published(state, clip, layout="reference")
    attention = {f"{letter}_proj.weight" for letter in "qkv"} | {"q_bias", "v_bias", "proj.weight", "proj.bias"}
    attention |= {"inner_attn_ln.weight", "inner_attn_ln.bias"}
    assert {name.removeprefix("blocks.1.attn.") for name in theirs if name.startswith("blocks.1.attn.")} == attention
    assert torch.equal(theirs["blocks.1.mlp.w1.weight"], state["layers.1.mlp.enter.weight"][:40])  # gate first
    assert torch.equal(theirs["blocks.1.attn.k_proj.weight"], state["layers.1.attention.qkv.weight"][64:128])


def test_tables_of_rotary_positions_are_ignored_whatever_their_shape() -> None:
    ours = random_state(TINY)
    theirs = to_published(ours, TINY, layout="reference")
    for shape in ((16, 16, 64), (256, 64), (1024, 64)):
        tables = {f"{where}rope.freqs_{kind}": torch.zeros(shape) for kind in ("cos", "sin") for where in ("", INNER)}
        assert same(from_published(theirs | tables, TINY), ours)


INNER = "blocks.0.attn."


def test_a_pre_training_file_gives_the_encoder_and_its_norm() -> None:
    config = replace(PARTS["separate"], embed_dim=0, pooling="normed_mean")
    ours = random_state(config)
    extras = {"mask_token": torch.zeros(1, 1, 64), "lm_head.weight": torch.zeros(9, 64), "lm_head.bias": torch.zeros(9)}
    file = to_published(ours, config, layout="reference") | extras
    found = find_tower(file)
    assert found.extras.keys() == extras.keys()
    assert tower_config(found) == config  # the mean of normed tokens, as a feature extractor should
    assert same(from_published(file, config), ours)
    assert same(from_published(file, replace(config, pooling="mean")), ours)  # timm's way: the norm after the mean


def test_packed_attention_with_separate_gate_and_value_is_read_too() -> None:
    ours = random_state(TINY)
    file = to_published(ours, TINY, layout="reference")
    for leaf in ("weight", "bias"):
        for i in range(2):
            gate, value = file.pop(f"blocks.{i}.mlp.w12.{leaf}").chunk(2)
            file |= {f"blocks.{i}.mlp.w1.{leaf}": gate, f"blocks.{i}.mlp.w2.{leaf}": value}
    assert same(from_published(file, TINY), ours)


def test_a_backbone_without_last_norm_gets_one_that_changes_nothing() -> None:
    config = PARTS["headless"]
    file = to_published(random_state(config), config, layout="reference")
    file = {name: value for name, value in file.items() if not name.startswith("fc_norm")}
    ours = from_published(file, config)
    assert torch.equal(ours["norm.weight"], torch.ones(64))
    assert not ours["norm.bias"].any()


@pytest.mark.parametrize("layout", ["reference", "open_clip"])
def test_a_whole_clip_goes_there_and_back(layout: Layout) -> None:
    state = dict(PAIR.build().state_dict())
    theirs = to_clip(state, PAIR, layout=layout)
    assert ("visual.trunk.blocks.0.mlp.fc1_g.weight" in theirs) == (layout == "open_clip")
    assert ("visual.blocks.0.mlp.w1.weight" in theirs) == (layout == "reference")
    assert same(from_clip(theirs, PAIR), state)
    told = pair_config(find_tower(theirs), theirs)
    assert told.text == PAIR.text
    assert replace(told.image, initial="jax", resize="reference") == PAIR.image
    # an early file: the temperature inside the text tower, or text at the root
    early = {("text." + name if name == "logit_scale" else name): value for name, value in theirs.items()}
    assert same(from_clip(early, PAIR), state)
    at_root = {name.removeprefix("text."): value for name, value in theirs.items()}
    assert same(from_clip(at_root, PAIR), state)


@pytest.mark.parametrize("name", [name for name in list_models() if name.startswith("EVA")])
def test_published_clips_are_recognised_by_their_shapes(name: str) -> None:
    config = model_config(name)
    with torch.device("meta"):
        theirs = to_clip(config.build().state_dict(), config)
    told = pair_config(find_tower(theirs), theirs)
    assert told.name == name
    assert told.image == replace(config.image, resize="timm") if name.startswith("EVA02") else told.image
    assert told.text == config.text


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "eva02_base_patch14_448", "eva02_large_patch14_clip_336"])
def test_published_encoders_are_told_by_their_shapes(name: str) -> None:
    config = encoder_config(name)
    assert isinstance(config, Eva02Config)
    for layout in ("reference", "timm"):
        told = tower_config(find_tower(to_published(meta_state(config), config, layout=layout)))
        assert replace(told, initial=config.initial, resize="reference") == config


def test_a_table_is_resampled_by_the_rule_of_the_config() -> None:
    theirs = to_published(random_state(TINY), TINY, layout="reference")
    table = theirs["pos_embed"]
    big = replace(TINY, image_size=(84, 70))
    cells = table[:, 1:].view(1, 4, 4, 64).permute(0, 3, 1, 2)
    for rule, antialias in (("reference", False), ("timm", True)):
        expected = F.interpolate(cells, size=(6, 5), mode="bicubic", antialias=antialias).flatten(2).mT
        got = from_published(theirs, replace(big, resize=rule))["position"]
        torch.testing.assert_close(got[:, 1:], expected)
        assert torch.equal(got[:, 0], table[:, 0])
        encoder = replace(TINY, resize=rule).build()
        encoder.load_state_dict(from_published(theirs, TINY))
        encoder.set_image_size(84, 70)
        assert encoder.position is not None
        assert torch.equal(encoder.position, got)


def test_the_releases_patch_rule_has_no_gain_and_timms_keeps_the_answer() -> None:
    """14 to 16 px: the sum of a constant kernel grows with its area; timm's answers a resized patch as before."""
    constant = resize_patch_kernel(torch.ones(1, 3, 14, 14), 16, rule="reference")
    assert float(constant.sum() / (3 * 14 * 14)) == pytest.approx(1.3061, abs=1e-4)
    torch.manual_seed(0)
    kernel, patch = torch.randn(5, 3, 14, 14), torch.randn(2, 3, 14, 14)
    bigger = F.interpolate(patch, size=(16, 16), mode="bicubic", antialias=True)
    answer = torch.einsum("cxyz,bxyz->bc", resize_patch_kernel(kernel, 16, rule="timm"), bigger)
    torch.testing.assert_close(answer, torch.einsum("cxyz,bxyz->bc", kernel, patch), rtol=0, atol=1e-3)


def test_stored_types_stay() -> None:
    theirs = {name: value.half() for name, value in to_published(random_state(TINY), TINY, layout="timm").items()}
    assert {value.dtype for value in from_published(theirs, TINY).values()} == {torch.float16}


def test_what_does_not_fit_is_named() -> None:
    theirs = to_published(random_state(TINY), TINY, layout="reference")
    theirs["blocks.0.mlp.w9.weight"] = theirs.pop("blocks.0.mlp.w3.bias")
    theirs["head.weight"] = torch.zeros(13, 64)
    with pytest.raises(CheckpointError) as caught:
        from_published(theirs, TINY)
    message = str(caught.value)
    assert "'head.weight' is [13, 64], this EVA-02 needs [12, 64]" in message
    assert "1 missing: 'blocks.0.mlp.w3.bias'" in message
    assert "1 with no place: 'blocks.0.mlp.w9.weight'" in message
    with pytest.raises(CheckpointError, match="these are no EVA-02 weights"):
        find_tower({"conv.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="'logit_scale'"):
        from_clip({}, PAIR)
    with pytest.raises(CheckpointError, match="15 cells, which is for no square image"):
        tower_config(find_tower(theirs | {"pos_embed": torch.zeros(1, 16, 64)}))
    with pytest.raises(ConfigError, match="HuggingFaceTextConfig"):
        from_clip({}, replace(PAIR, text=HuggingFaceTextConfig()))
    relative = replace(TINY, relation="bias")
    with pytest.raises(ConfigError, match="no relative bias"):
        to_published(random_state(relative), relative, layout="timm")
