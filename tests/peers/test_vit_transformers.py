"""CLIP, SigLIP and SigLIP 2 beside transformers' own, from a folder that it wrote; pictures prepared by both."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from eyesmith.hub.convert import convert
from eyesmith.hub.load import load_clip, load_encoder
from eyesmith.hub.parity import sample_images
from eyesmith.images import evaluation_pixels, normalize
from eyesmith.models.foreign.torchvision import ensure_torchvision

ensure_torchvision()
transformers: Any = pytest.importorskip("transformers")

VISION = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION |= {"image_size": 32, "patch_size": 8}
TEXT = {"hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT |= {"vocab_size": 700, "max_position_embeddings": 16, "bos_token_id": 698, "eos_token_id": 699}


def clip(**text: Any) -> Any:
    config = transformers.CLIPConfig(vision_config=VISION, text_config={**TEXT, **text}, projection_dim=24)
    return transformers.CLIPModel(config)


def siglip(**vision: Any) -> Any:
    config = transformers.SiglipConfig(vision_config={**VISION, **vision}, text_config=TEXT)
    return transformers.SiglipModel(config)


def siglip2() -> Any:
    vision = {key: value for key, value in VISION.items() if key != "image_size"} | {"num_patches": 16}
    return transformers.Siglip2Model(transformers.Siglip2Config(vision_config=vision, text_config=TEXT))


KINDS = {
    "clip": (clip, 32),
    "clip gelu": (lambda: clip(hidden_act="gelu"), 32),
    "clip end token": (lambda: clip(eos_token_id=500), 32),
    "siglip": (siglip, 32),
    "siglip 38 px": (lambda: siglip(image_size=38), 38),
    "siglip2": (siglip2, 32),
}


def saved(kind: str, folder: Path) -> tuple[Any, int]:
    """The folder of a random model; off the start, where most biases are 0."""
    torch.manual_seed(0)
    make, side = KINDS[kind]
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    if kind.startswith("clip"):
        sizes = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
        transformers.CLIPImageProcessor(**sizes).save_pretrained(folder)
    elif kind != "siglip2":
        transformers.SiglipImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    return model, side


def image_features(model: Any, pixels: Tensor) -> Tensor:
    if isinstance(model, transformers.Siglip2Model):  # takes patches
        rows = pixels.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
        places = {"pixel_attention_mask": torch.ones(rows.shape[:2], dtype=torch.int32)}
        return model.get_image_features(
            pixel_values=rows, spatial_shapes=torch.tensor([[4, 4]] * len(rows)), **places
        ).pooler_output
    return model.get_image_features(pixel_values=pixels).pooler_output


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_both_towers(kind: str, tmp_path: Path) -> None:
    theirs, side = saved(kind, tmp_path)
    ours = load_clip(tmp_path)
    pixels, ids = torch.randn(2, 3, side, side), torch.randint(3, 400, (3, 16))
    for row, place in zip(ids, (4, 9, 15), strict=True):
        row[place], row[place + 1 :] = 500 if "end" in kind else 699, 0
    height, width = ours.image.image_size
    images = ours.image(pixels[..., :height, :width]), image_features(theirs, pixels)
    texts = ours.text(ids), theirs.get_text_features(input_ids=ids).pooler_output
    for left, right in (images, texts):
        assert right.std(0).max() > 1e-3
        torch.testing.assert_close(
            left / left.norm(dim=-1, keepdim=True), right / right.norm(dim=-1, keepdim=True), rtol=0, atol=1e-5
        )
    assert float(ours.logit_scale) == float(theirs.logit_scale)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip 38 px"])
def test_pictures_are_prepared_as_the_processor_does(kind: str, tmp_path: Path) -> None:
    _, side = saved(kind, tmp_path)
    ours = load_clip(tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    pictures: list[Image.Image] = [picture.convert("RGB") for picture in sample_images()[:4]]
    expected = processor(pictures, return_tensors="pt")["pixel_values"][..., : side // 8 * 8, : side // 8 * 8]
    pixels = torch.stack([evaluation_pixels(picture, ours.preprocess) for picture in pictures])
    found = normalize(pixels, ours.preprocess.mean, ours.preprocess.std)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_what_is_written_is_opened_and_agrees(kind: str, tmp_path: Path) -> None:
    saved(kind, tmp_path / "from")
    done = convert(tmp_path / "from", tmp_path / "to", to="hf")
    assert done.ok
    assert [row.peer for row in done.rows] == ["transformers", "transformers"]
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("from", "to"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_image_towers_alone(tmp_path: Path) -> None:
    for name, make in (("c", transformers.CLIPVisionModelWithProjection), ("s", transformers.SiglipVisionModel)):
        whole = (clip if name == "c" else siglip)().config.vision_config
        whole.projection_dim = 24
        theirs = make(whole).eval()
        theirs.save_pretrained(tmp_path / name)
        pixels = torch.randn(2, 3, 32, 32)
        output = theirs(pixel_values=pixels)
        expected = output.image_embeds if name == "c" else output.pooler_output
        torch.testing.assert_close(load_encoder(tmp_path / name)(pixels), expected, rtol=0, atol=2e-5)


def test_sizes_at_will_are_told(tmp_path: Path) -> None:
    saved("siglip2", tmp_path / "from")
    done = convert(tmp_path / "from", tmp_path / "to.safetensors", to="eyesmith", parity=False)
    assert any("NaFlex" in part for part in done.left_out)
