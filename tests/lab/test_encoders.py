"""The lab's encoders: matched by count, keeping the contract, training."""

from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from typing import Literal, get_args

import pytest
import torch

from eyesmith.config import from_dict, to_dict
from eyesmith.errors import ConfigError
from eyesmith.lab.encoders import ENCODER_NAMES, SIZES, Match, contender
from eyesmith.models.conformance import check_encoder
from eyesmith.models.cost import encoder_cost
from eyesmith.models.foreign.timm import TimmConfig
from eyesmith.models.vitamin.model import ViTaminConfig

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")

CELLS = [(name, size) for name in ENCODER_NAMES for size in SIZES]
FAMILIES = [name for name in ENCODER_NAMES if not name.startswith("ViTamin:")]


@cache
def num_parameters(name: str, size: str) -> int:
    with torch.device("meta"):
        encoder = contender(name, size).image.build()
    return sum(parameter.numel() for parameter in encoder.parameters())


@pytest.mark.parametrize("size", SIZES)
def test_families_have_equal_parameters(size: str) -> None:
    wanted = num_parameters("ViTamin", size)
    for name in FAMILIES:
        assert num_parameters(name, size) == pytest.approx(wanted, rel=0.03), name


@pytest.mark.parametrize("size", ["pico", pytest.param("nano", marks=pytest.mark.slow)])
def test_or_equal_multiply_adds(size: str) -> None:
    wanted = encoder_cost(contender("ViTamin", size).image).tower.macs
    for name in FAMILIES:
        cost = encoder_cost(contender(name, size, match="macs").image).tower
        assert cost.macs == pytest.approx(wanted, rel=0.05), name


@pytest.mark.parametrize("size", SIZES)
def test_an_ablation_is_nearly_as_large_as_its_base(size: str) -> None:
    wanted = num_parameters("ViTamin", size)
    for name in set(ENCODER_NAMES) - set(FAMILIES):
        rel = 0.07 if ":depths" in name else 0.02
        assert num_parameters(name, size) == pytest.approx(wanted, rel=rel), name


@pytest.mark.parametrize("name", ENCODER_NAMES)
def test_it_keeps_the_encoder_contract(name: str) -> None:
    torch.manual_seed(0)
    check_encoder(replace(contender(name, "pico").image, embed_dim=24).build())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "match"), [(name, match) for name in ENCODER_NAMES for match in get_args(Match)])
def test_nano_keeps_the_encoder_contract(name: str, match: Literal["parameters", "macs"]) -> None:
    torch.manual_seed(0)
    check_encoder(contender(name, "nano", match=match).image.build())


@pytest.mark.parametrize("name", ENCODER_NAMES)
def test_a_step_of_training_reaches_every_parameter_and_lowers_the_loss(name: str) -> None:
    torch.manual_seed(0)
    encoder = replace(contender(name, "pico").image, embed_dim=8, drop_path_prob=0.0).build().train()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    pixels, wanted = torch.randn(8, 3, 64, 64), torch.nn.functional.normalize(torch.randn(8, 8), dim=-1)

    def loss_of() -> torch.Tensor:
        return 1 - torch.nn.functional.cosine_similarity(encoder(pixels), wanted).mean()

    losses = []
    for _ in range(4):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        for parameter_name, parameter in encoder.named_parameters():
            assert parameter.grad is not None, parameter_name
            assert bool(parameter.grad.isfinite().all()), parameter_name
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_a_coatnet_of_two_by_two_cells_learns_where_cells_are() -> None:
    encoder = contender("CoAtNet", "pico").image.build().train()
    assert encoder.dense(torch.randn(2, 3, 64, 64)).shape == (2, 128, 2, 2)
    encoder(torch.randn(4, 3, 64, 64)).square().sum().backward()
    tables = {name: value for name, value in encoder.named_parameters() if "relative_position_bias_table" in name}
    # 2 and 4 heads of 32; 7 x 7 offsets in the third stage's grid of 4 x 4, 3 x 3 in the last one's of 2 x 2
    assert sorted(tuple(value.shape) for value in tables.values()) == [(9, 4)] * 2 + [(49, 2)] * 4
    assert all(value.grad is not None and bool(value.grad.any()) for value in tables.values())


@pytest.mark.parametrize(("name", "size"), CELLS)
def test_strides_and_names(name: str, size: str) -> None:
    found = contender(name, size)
    assert (found.encoder, found.size, found.image.embed_dim) == (name, size, 0)
    assert found.family in ("ViT", "ConvNeXt", "CoAtNet", "ViTamin", "TrV")
    assert found.image.image_size == (64, 64)
    assert from_dict(type(found.image), to_dict(found.image)) == found.image


def test_what_stands_for_which_model_of_the_paper() -> None:
    papers = {(name, size): contender(name, size).paper for name, size in CELLS}
    assert {key: paper for key, paper in papers.items() if paper} == {
        ("ViT/16", "pico"): "ViT-S/16",
        ("ViT/16", "nano"): "ViT-B/16",
        ("ViT/32", "pico"): "ViT-S/32",
        ("ViT/32", "nano"): "ViT-B/32",
        ("ConvNeXt", "pico"): "ConvNeXt-T",
        ("ConvNeXt", "nano"): "ConvNeXt-B",
        ("CoAtNet", "pico"): "CoAtNet-0",
        ("CoAtNet", "nano"): "CoAtNet-2",
        ("ViTamin", "pico"): "ViTamin-S",
        ("ViTamin", "nano"): "ViTamin-B",
    }


def test_an_ablation_changes_one_part() -> None:
    base = contender("ViTamin", "nano").image
    assert isinstance(base, ViTaminConfig)
    assert (base.widths, base.depths, base.num_heads) == ((32, 64, 192), (2, 4, 6), 3)
    changed = {"bn-se": "convolution", "mlp": "ffn", "depths-1-2": "depths", "stride8": "stride", "stride32": "stride"}
    for part, field in changed.items():
        other = contender(f"ViTamin:{part}", "nano").image
        assert isinstance(other, ViTaminConfig)
        assert getattr(other, field) != getattr(base, field)
        assert replace(other, **{field: getattr(base, field)}) == base


def test_any_timm_backbone_has_one_size() -> None:
    found = contender("timm:convnext_atto", "nano", image_px=96)
    assert (found.family, found.size, found.paper) == ("timm", "", "")
    assert isinstance(found.image, TimmConfig)
    assert (found.image.model_name, found.image.image_size) == ("convnext_atto", (96, 96))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ViTmin", "nano"), "did you mean .*ViTamin"),
        (("ViT16", "nano"), "did you mean .*ViT/16"),
        (("ViTamin", "nanno"), "did you mean nano"),
        (("ViTamin", "large"), "known: pico, nano"),
    ],
)
def test_unknown_names_are_refused(arguments: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        contender(*arguments)


def test_an_image_size_off_the_stride_is_refused() -> None:
    assert contender("ViTamin", "pico", image_px=48).image.image_size == (48, 48)
    with pytest.raises(ConfigError, match="CoAtNet needs a multiple of 32, got 48"):
        contender("CoAtNet", "pico", image_px=48)
