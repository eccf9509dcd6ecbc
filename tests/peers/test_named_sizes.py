"""The named models beside open_clip, transformers and timm: the same random weights, both towers, within 1e-5 in fp32.

Two blocks of the real width with few words by default, the whole models when slow. Weights go into the peer by our
writers and come back from what the peer itself saved, bit for bit.
"""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from eyesmith.hub.load import load_clip
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.foreign.timm import TimmConfig
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vit.configs import to_hugging_face, to_open_clip
from eyesmith.models.vit.model import VitConfig
from eyesmith.models.vit.sizes import PAIRS
from eyesmith.models.vit.weights import write

BOUND = 1e-5  # of an element of a unit feature

ensure_torchvision()

CASES = [
    ("ViT-B-32-quickgelu", "open_clip"),
    ("ViT-B-32-quickgelu", "transformers"),
    ("ViT-B-16", "open_clip"),
    ("ViT-B-16", "transformers"),
    ("ViT-L-14", "open_clip"),
    ("ViT-L-14", "transformers"),
    ("ViT-L-14-CLIPA", "open_clip"),
    ("ViT-B-16-SigLIP", "transformers"),
    ("ViT-B-16-SigLIP2", "transformers"),
]


def made(name: str, depth: int | None) -> Clip:
    image, text, preprocess = PAIRS[name]
    if depth is not None:
        image, text = replace(image, depth=depth), replace(text, depth=depth, vocab_size=600)
    torch.manual_seed(0)
    clip = ClipConfig(name=name, image=image, text=text, preprocess=preprocess).build().eval()
    with torch.no_grad():  # at their start most biases and norms are exactly 0 or 1
        for parameter in clip.parameters():
            if parameter.ndim <= 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    if "SigLIP" in name:
        clip.logit_bias = torch.tensor(-10.0)
    return clip


def peer_of(clip: Clip, peer: str) -> Any:
    image, text, preprocess = clip.config.image, clip.config.text, clip.config.preprocess
    assert isinstance(image, VitConfig)
    assert isinstance(text, ClipTextConfig)
    state = {name: value.clone() for name, value in clip.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if peer == "open_clip":
            content = to_open_clip(image, text, preprocess, None)["model_cfg"]
            known = {k: v for k, v in content["text_cfg"].items() if k not in ("hf_tokenizer_name", "tokenizer_kwargs")}
            build: Any = pytest.importorskip("open_clip").CLIP
            theirs = build(**(content | {"text_cfg": known})).eval()
            theirs.load_state_dict(write(state, clip.config, "open_clip"))
            return theirs
        transformers: Any = pytest.importorskip("transformers")
        whole, _ = to_hugging_face(image, text, preprocess)
        kind = whole["architectures"][0].removesuffix("Model")
        theirs = getattr(transformers, kind + "Model")(getattr(transformers, kind + "Config")(**whole)).eval()
        theirs.load_state_dict(write(state, clip.config, "hf"), strict=False)  # position ids are no weights
        return theirs


def ids_for(text: ClipTextConfig) -> Tensor:
    """Rows with the end token at different places, padded with zeros."""
    ids = torch.randint(3, min(400, text.vocab_size - 1), (3, text.context_len))
    for row, place in zip(ids, (4, 9, text.context_len - 1), strict=True):
        row[place], row[place + 1 :] = text.vocab_size - 1, 0
    return ids


@torch.no_grad()
def check(clip: Clip, theirs: Any, peer: str) -> None:
    text = clip.text.config
    assert isinstance(text, ClipTextConfig)
    pixels, ids = torch.randn(2, 3, *clip.image.image_size), ids_for(text)
    if peer == "open_clip":
        expected = theirs.encode_image(pixels), theirs.encode_text(ids)
    else:
        expected = (
            theirs.get_image_features(pixel_values=pixels).pooler_output,
            theirs.get_text_features(input_ids=ids).pooler_output,
        )
    for found, right in zip((clip.image(pixels), clip.text(ids)), expected, strict=True):
        right = F.normalize(right, dim=-1)
        assert right.std(0).max() > 1e-3  # it depends on the input
        torch.testing.assert_close(F.normalize(found, dim=-1), right, rtol=0, atol=BOUND)


def back(theirs: Any, clip: Clip, tmp_path: Path) -> None:
    """From the peer's own state to ours: every tensor has its bits."""
    file = tmp_path / "weights.safetensors"
    save_file({name: value.clone().contiguous() for name, value in theirs.state_dict().items()}, file)
    again = load_clip(file, name=clip.config.name)
    expected = clip.state_dict()
    assert again.state_dict().keys() == expected.keys()
    for name, value in again.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(("name", "peer"), CASES)
def test_two_blocks_of_the_real_width(name: str, peer: str) -> None:
    clip = made(name, 2)
    check(clip, peer_of(clip, peer), peer)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "peer"), CASES)
def test_whole_models(name: str, peer: str, tmp_path: Path) -> None:
    clip = made(name, None)
    theirs = peer_of(clip, peer)
    check(clip, theirs, peer)
    back(theirs, clip, tmp_path)


@pytest.mark.parametrize("name", ["convnext_atto", pytest.param("convnext_base", marks=pytest.mark.slow)])
@torch.no_grad()
def test_a_convnext_of_open_clip(name: str) -> None:
    """OpenCLIP's ConvNeXts are timm's trunk and a linear head; ours takes the weights of both by their names."""
    kind: Any = pytest.importorskip("open_clip").timm_model
    torch.manual_seed(0)
    ours = TimmConfig(model_name=name, image_size=(64, 64), embed_dim=64).build().eval()
    for parameter in ours.parameters():
        if parameter.ndim <= 1:
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs = kind.TimmModel(name, 64, image_size=None, proj="linear", pool="", pretrained=False).eval()
    state = {f"trunk.{name}": value for name, value in ours.backbone.state_dict().items()}
    theirs.load_state_dict(state | {"head.proj.weight": ours.head.weight})
    pixels = torch.randn(2, 3, 64, 64)
    found, expected = (F.normalize(encoder(pixels), dim=-1) for encoder in (ours, theirs))
    assert expected.std(0).max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=BOUND)
