"""Plain ViTs beside open_clip's own: the same random weights, both towers, small here and the named sizes when slow."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from eyesmith.hub.load import load_clip
from eyesmith.models.clip import Clip
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vit.configs import to_open_clip
from eyesmith.models.vit.model import VitConfig
from eyesmith.models.vit.sizes import PAIRS

BOUND = 1e-5  # of an element of a unit feature

ensure_torchvision()
open_clip: Any = pytest.importorskip("open_clip")


def off_the_start(model: nn.Module) -> None:
    """At their start most biases and norms are exactly 0 or 1."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim <= 1:
                parameter.add_(0.1 * torch.randn_like(parameter))


def ids_for(text: ClipTextConfig) -> Tensor:
    """Rows with the end token at different places, padded with zeros."""
    ids = torch.randint(3, min(400, text.vocab_size - 1), (3, text.context_len))
    end = text.end_id if text.pooling == "end" else text.vocab_size - 1
    for row, place in zip(ids, (4, 9, text.context_len - 1), strict=True):
        row[row == end] = 0
        row[place], row[place + 1 :] = end, 0
    return ids


@torch.no_grad()
def differences(ours: Clip, theirs: Any) -> tuple[float, float]:
    text = ours.text.config
    assert isinstance(text, ClipTextConfig)
    height, width = ours.image.image_size
    over = ours.preprocess.overhang_px
    pixels, ids = torch.randn(2, 3, height + over, width + over), ids_for(text)
    pairs = (
        (ours.image(pixels[..., :height, :width]), theirs.encode_image(pixels)),
        (
            ours.text(ids),
            theirs.encode_text(ids),
        ),
    )
    found = []
    for left, right in pairs:
        assert F.normalize(right, dim=-1).std(0).max() > 1e-3  # it depends on the input
        found.append(float((F.normalize(left, dim=-1) - F.normalize(right, dim=-1)).abs().max()))
    return found[0], found[1]


VISION = {"image_size": 32, "layers": 2, "width": 128, "head_width": 32, "patch_size": 8}
TEXT = {"context_length": 16, "vocab_size": 500, "width": 64, "heads": 2, "layers": 2}
SMALL: dict[str, dict[str, Any]] = {
    "gelu": {},
    "quick": {"quick_gelu": True},
    "clipa": {
        "vision_cfg": {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
        "text_cfg": {"pool_type": "last", "no_causal_mask": True, "hf_tokenizer_name": "bert-base-uncased"},
    },
    "worldwide": {"text_cfg": {"pool_type": "eos", "eos_id": 2, "hf_tokenizer_name": "google/mt5-base"}},
    "scaled": {"vision_cfg": {"ls_init_value": 0.3, "mlp_ratio": 2.5}, "text_cfg": {"mlp_ratio": 3.7362}},
    "mean of normed": {"vision_cfg": {"pool_type": "avg", "image_size": [32, 48]}},
}


@pytest.mark.parametrize("name", SMALL)
def test_small_ones_of_every_kind(name: str, tmp_path: Path) -> None:
    """Loaded from a folder as open_clip publishes one."""
    extra = dict(SMALL[name])
    towers = {part: {**base, **extra.pop(part, {})} for part, base in (("vision_cfg", VISION), ("text_cfg", TEXT))}
    content = {"embed_dim": 48, **towers, **extra}
    known = {key: value for key, value in towers["text_cfg"].items() if key != "hf_tokenizer_name"}
    theirs = open_clip.CLIP(48, towers["vision_cfg"], known, quick_gelu=bool(extra.get("quick_gelu"))).eval()
    off_the_start(theirs)
    save_file(
        {key: value.clone() for key, value in theirs.state_dict().items()}, tmp_path / "open_clip_model.safetensors"
    )
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": content}), "utf-8")
    assert max(differences(load_clip(tmp_path), theirs)) < BOUND


NAMES = ["ViT-B-32", "ViT-B-32-quickgelu", "ViT-B-16", "ViT-M-16-alt", "ViT-B-16-SigLIP", "ViT-B-16-SigLIP2"]
NAMES += ["ViT-L-14", "ViT-L-14-CLIPA", "ViT-SO400M-14-SigLIP-384"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_named_sizes(name: str, tmp_path: Path) -> None:
    image, text, preprocess = PAIRS[name]
    theirs = open_clip.create_model(name).eval()
    off_the_start(theirs)
    file = tmp_path / "weights.safetensors"
    save_file({key: value.clone() for key, value in theirs.state_dict().items()}, file)
    found = load_clip(file, name=name)
    assert max(differences(found, theirs)) < BOUND
    assert (found.config.image, found.config.text, found.preprocess) == (image, text, preprocess)


def test_siglip_as_timm_builds_it(tmp_path: Path) -> None:
    """Two blocks of the real width: timm's image tower, open_clip's text tower, their files."""
    image, text, preprocess = PAIRS["ViT-B-16-SigLIP2"]
    text = replace(text, depth=1, vocab_size=600)
    trunk: Any = pytest.importorskip("timm").create_model("vit_base_patch16_siglip_224", num_classes=0, depth=2).eval()
    tower = open_clip.transformer.TextTransformer(
        context_length=64,
        vocab_size=600,
        width=768,
        heads=12,
        layers=1,
        output_dim=768,
        no_causal_mask=True,
        pool_type="last",
        proj_bias=True,
        act_layer=lambda: nn.GELU(approximate="tanh"),
        norm_layer=lambda width: open_clip.transformer.LayerNorm(width, eps=1e-6),
    ).eval()
    for part in (trunk, tower):
        off_the_start(part)
    state = {f"visual.trunk.{key}": value for key, value in trunk.state_dict().items()}
    state |= {f"text.{key}": value for key, value in tower.state_dict().items()}
    state |= {"logit_scale": torch.tensor(4.0), "logit_bias": torch.tensor(-10.0)}
    made = replace(image, depth=2)
    content = to_open_clip(image, text, preprocess, -10.0)
    content["model_cfg"]["vision_cfg"]["timm_model_name"] = "vit_base_patch16_siglip_224"
    assert isinstance(made, VitConfig)
    from eyesmith.config import to_dict
    from eyesmith.models.clip import ClipConfig

    config = ClipConfig(name="ViT", image=made, text=text, preprocess=preprocess)
    said = {"eyesmith.config": json.dumps(to_dict(config))}
    save_file(
        {key: value.clone().contiguous() for key, value in state.items()}, tmp_path / "a.safetensors", metadata=said
    )
    ours = load_clip(tmp_path / "a.safetensors")

    class Theirs:
        encode_image, encode_text = staticmethod(trunk), staticmethod(tower)

    assert max(differences(ours, Theirs)) < BOUND
    assert ours.logit_bias is not None
    assert float(ours.logit_bias) == -10
