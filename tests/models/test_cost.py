"""Parameters and multiply-adds beside the published ones, in both conventions, and the README's table beside both."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eyesmith.models.vitamin
from eyesmith.models.cost import encoder_cost, encoder_rows, model_cost, model_rows, text_cost
from eyesmith.models.registry import CLIP, config, encoder_config, list_encoders, list_models
from eyesmith.models.vitamin.model import ViTaminConfig

# image and text parameters; GMACs of image and text in the paper's convention (its table 3, fvcore's counts);
# and with every product (torch's counter on open_clip's models)
PUBLISHED = {
    "ViTamin-S": ("22,025,152", "40,444,032", "5.50", "1.64", "5.89", "1.69"),
    "ViTamin-S-LTT": ("22,172,608", "123,650,304", "5.50", "6.55", "5.89", "6.65"),
    "ViTamin-B": ("87,525,248", "63,428,096", "21.85", "2.91", "22.62", "2.98"),
    "ViTamin-B-LTT": ("87,721,856", "123,650,304", "21.85", "6.55", "22.62", "6.65"),
    "ViTamin-L": ("333,318,048", "123,650,304", "72.61", "6.55", "74.92", "6.65"),
    "ViTamin-L-256": ("333,379,488", "123,650,304", "94.84", "6.55", "98.83", "6.65"),
    "ViTamin-L-336": ("333,568,928", "123,650,304", "163.37", "6.55", "175.44", "6.65"),
    "ViTamin-L-384": ("333,707,168", "123,650,304", "213.38", "6.55", "234.08", "6.65"),
    "ViTamin-L2": ("333,580,192", "354,032,640", "72.61", "23.27", "74.92", "23.55"),
    "ViTamin-L2-256": ("333,641,632", "354,032,640", "94.84", "23.27", "98.84", "23.55"),
    "ViTamin-L2-336": ("333,831,072", "354,032,640", "163.37", "23.27", "175.44", "23.55"),
    "ViTamin-L2-384": ("333,969,312", "354,032,640", "213.38", "23.27", "234.08", "23.55"),
    "ViTamin-XL-256": ("436,054,080", "488,722,176", "125.30", "33.13", "129.94", "33.48"),
    "ViTamin-XL-336": ("436,054,080", "488,722,176", "215.85", "33.13", "229.86", "33.48"),
    "ViTamin-XL-384": ("436,054,080", "488,722,176", "281.92", "33.13", "305.96", "33.48"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones_to_the_printed_digit(name: str) -> None:
    cost = model_cost(config(name))
    assert cost.image is not None
    assert cost.text is not None
    image, text = cost.image.tower, cost.text
    params = (f"{image.params:,}", f"{text.params:,}")
    macs = (image.macs_paper, text.macs_paper, image.macs, text.macs)
    assert (*params, *(f"{count / 1e9:.2f}" for count in macs)) == PUBLISHED[name]


def test_the_two_conventions_differ_by_attention_and_norms() -> None:
    """ViTamin-S by hand: 14 blocks over 196 tokens, and every LayerNorm's elements."""
    image = encoder_cost(encoder_config("vitamin_small_224")).tower
    attention = 14 * 2 * 196 * 196 * 384
    stem_and_stages = 112**2 * 64 + 112**2 * 64 + 56**2 * 64 + 56**2 * 64 + 3 * 28**2 * 128 + 28**2 * 128
    tokens = 14 * 3 * 196 * 384 + 384
    assert image.macs - attention + 5 * (stem_and_stages + tokens) == image.macs_paper
    text_config: Any = config("ViTamin-S").text
    text = text_cost(text_config)
    assert text.macs - 12 * 2 * 77 * 77 * 384 + 5 * 25 * 77 * 384 == text.macs_paper


def test_one_and_two_blocks_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every multiply-add of a real forward, from the shapes that reach each kernel, with all blocks in place."""
    nano: Any = config("ViTamin-Nano").image
    cost = encoder_cost(nano).tower
    seen = {"macs": 0, "attention": 0, "norms": 0}

    def conv2d(x: Tensor, weight: Tensor, *args: Any, **options: Any) -> Tensor:
        y = convolve(x, weight, *args, **options)
        seen["macs"] += y.numel() * weight[0].numel()
        return y

    def attend(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        seen["attention"] += q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2] * (q.shape[3] + v.shape[3])
        return fused(q, k, v, **options)

    def count(module: nn.Module, args: tuple[Tensor], y: Tensor) -> None:
        if isinstance(module, nn.Linear):
            seen["macs"] += y.numel() * module.in_features
        else:
            seen["norms"] += args[0].numel()

    convolve, fused = F.conv2d, F.scaled_dot_product_attention
    monkeypatch.setattr(F, "conv2d", conv2d)
    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    with torch.device("meta"):
        tower = nano.build().eval()
    for module in tower.modules():
        if isinstance(module, nn.Linear | nn.LayerNorm):
            module.register_forward_hook(count)
    with torch.no_grad():
        tower(torch.empty(1, 3, 48, 48, device="meta"))
    assert cost.macs == seen["macs"] + seen["attention"]
    assert cost.macs_paper == seen["macs"] + 5 * seen["norms"]
    assert cost.params == sum(parameter.numel() for parameter in tower.parameters())


def test_rows_have_the_fields_that_other_programs_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyesmith.models.cost.list_models", lambda: ["ViTamin-XL-384", "ViT-Nano"])
    large, nano = model_rows()
    fields = ["name", "image_size", "embed_dim", "image_params", "text_params", "image_gmacs_paper"]
    last = ["stride", "tokens", "origin"]
    assert [*large] == [*nano] == [*fields, "text_gmacs_paper", "image_gmacs", "text_gmacs", *last]
    assert large["name"] == "ViTamin-XL-384"
    assert large["image_size"] == [384, 384]
    assert (large["embed_dim"], large["stride"], large["tokens"]) == (1152, 16, 576)
    assert large["text_gmacs"] == pytest.approx(33.48, abs=0.005)
    assert len(str(large["image_gmacs_paper"])) > 8
    assert (nano["stride"], nano["tokens"]) == (16, 9)
    assert nano["image_params"] > 0


def test_encoders_have_the_cost_of_their_models_image_tower(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["vitamin_large2_256", "vitamin_nano_48"]
    monkeypatch.setattr("eyesmith.models.cost.list_encoders", lambda: names)
    large, nano = encoder_rows()
    fields = ["name", "image_size", "embed_dim", "image_params", "image_gmacs_paper", "image_gmacs", "stride", "tokens"]
    assert [*large] == [*nano] == [*fields, "origin"]
    assert large["image_params"] == 333_641_632
    assert large["image_gmacs"] == pytest.approx(98.84, abs=0.005)


def test_what_needs_timm_is_left_open_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyesmith.models.cost.encoder_cost", encoder_cost.__wrapped__)  # whatever was counted before
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr("eyesmith.models.cost.list_models", lambda: ["ViT-Nano"])
    monkeypatch.setattr("eyesmith.models.cost.list_encoders", lambda: ["vit_nano_48"])
    (row,) = model_rows()
    assert row["image_params"] is row["image_gmacs"] is row["tokens"] is None
    assert row["text_params"] == 7_160_192
    (row,) = encoder_rows()
    assert (row["image_size"], row["image_params"], row["stride"]) == ([48, 48], None, None)


def test_the_readme_table_is_what_the_configs_give() -> None:
    page = Path(eyesmith.models.vitamin.__file__).with_name("README.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith(("| ViTamin-", "| ViT-"))]
    expected = []
    for name, pair in CLIP.items():
        if not isinstance(image := pair.image, ViTaminConfig):
            continue
        cost = model_cost(pair)
        assert cost.image is not None
        assert cost.text is not None
        towers = (cost.image.tower, cost.text)
        cells = (
            name,
            image.image_size[0],
            " / ".join(map(str, image.widths)),
            " / ".join(map(str, image.depths)),
            f"{image.num_heads} x {image.widths[2] // image.num_heads}",
            image.embed_dim,
            *(f"{tower.params:,}" for tower in towers),
            " + ".join(f"{tower.macs / 1e9:.2f}" for tower in towers),
            " + ".join(f"{tower.macs_paper / 1e9:.2f}" for tower in towers),
        )
        expected.append(f"| {' | '.join(map(str, cells))} |")
    assert rows == expected


def test_every_listed_name_has_a_config() -> None:
    assert all(config(name).name == name for name in list_models())
    bare = [name for name in list_encoders() if not encoder_config(name).embed_dim]
    assert all(name.startswith("eva02_") and "clip" not in name for name in bare)  # pre-trained without text
