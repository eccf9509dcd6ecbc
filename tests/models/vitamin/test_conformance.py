"""The encoder contract for the published shapes: every ViTamin, every kind of size, with and without a table."""

from dataclasses import replace

import pytest
import torch

from eyesmith.errors import ShapeError
from eyesmith.models.conformance import check_encoder
from eyesmith.models.encoder import Encoder
from eyesmith.models.registry import encoder_config, list_encoders
from eyesmith.models.vitamin.model import VITAMIN, ViTamin, ViTaminConfig

# XL's shape and parts, with two of its 32 transformer blocks
SHORT_XL = replace(VITAMIN["xlarge"], depths=(2, 4, 2), image_size=(64, 64))


def away_from_its_start(encoder: ViTamin) -> ViTamin:
    """Every tensor off the zeros and ones it begins with, so that nothing in the contract holds by accident."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return encoder


@pytest.mark.parametrize(
    ("config", "other_size"),
    [
        (VITAMIN["nano"], (32, 80)),
        (VITAMIN["nano"], (96, 48)),
        (SHORT_XL, (32, 80)),
        (replace(VITAMIN["base"], depths=(2, 4, 2), image_size=(64, 64)), (96, 32)),
        (replace(VITAMIN["large"], depths=(2, 4, 2), image_size=(64, 64)), (32, 64)),
    ],
    ids=["nano wide", "nano tall", "xlarge", "base", "large"],
)
def test_every_size_of_the_family_keeps_the_contract(config: ViTaminConfig, other_size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    check_encoder(away_from_its_start(config.build()), other_size=other_size, batch=1)


def test_small_keeps_the_contract_at_224_and_at_a_size_that_is_not_square() -> None:
    torch.manual_seed(0)
    check_encoder(away_from_its_start(VITAMIN["small"].build()), other_size=(96, 160), batch=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vitamin_base_224", "vitamin_large_256", "vitamin_xlarge_256"])
def test_the_whole_of_every_larger_one_keeps_the_contract(name: str) -> None:
    config = encoder_config(name)
    assert isinstance(config, ViTaminConfig)
    torch.manual_seed(0)
    check_encoder(away_from_its_start(config.build()), other_size=(96, 160), batch=1)


@pytest.mark.parametrize("name", [name for name in list_encoders() if name.startswith("vitamin_")])
def test_maps_and_tokens_of_every_encoder_have_the_declared_shapes(name: str) -> None:
    """On tensors without numbers, at its own size and at 96 x 160."""
    config = encoder_config(name)
    assert isinstance(config, ViTaminConfig)
    with torch.device("meta"):
        encoder = replace(config, depths=(*config.depths[:2], 2)).build()
        for height, width in (config.image_size, (96, 160)):
            encoder.set_image_size(height, width)
            pixels = torch.empty(1, 3, height, width)
            maps = encoder.pyramid(pixels)
            shapes = [tuple(maps[f"stage{index + 1}"].shape) for index in range(3)]
            strides, (c1, c2, c) = (4, 8, 16), config.widths
            assert shapes == [
                (1, channels, height // stride, width // stride)
                for channels, stride in zip((c1, c2, c), strides, strict=True)
            ]
            assert encoder.dense(pixels).shape == maps["stage3"].shape
            assert encoder.tokens(pixels).shape == (1, (height // 16) * (width // 16), c)
            assert encoder.project(maps["stage3"].flatten(2).mT).shape[-1] == config.embed_dim


def test_a_size_there_and_back_keeps_the_grid_and_nearly_the_table() -> None:
    """Resampling loses little of a smooth table; the encoder itself is the one it was, its features almost."""
    torch.manual_seed(0)
    encoder = VITAMIN["nano"].build().eval()
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 3), torch.linspace(-1, 1, 3), indexing="ij")
    smooth = torch.randn(2, 192)
    with torch.no_grad():
        assert encoder.position is not None
        encoder.position.copy_((torch.stack((rows, columns), dim=-1).view(9, 2) @ smooth)[None])
        pixels = torch.randn(2, 3, 48, 48)
        before, table = encoder(pixels), encoder.position.clone()
        encoder.set_image_size(96, 160)
        assert encoder.position.shape == (1, 60, 192)
        encoder.set_image_size(48, 48)
        assert encoder.image_size == encoder.config.image_size == (48, 48)
        torch.testing.assert_close(encoder.position, table, rtol=0, atol=0.35)
        assert torch.cosine_similarity(encoder(pixels), before).min() > 0.99


@pytest.mark.parametrize("size", [(16, 16), (16, 48), (80, 32), (112, 64)])
def test_without_a_table_every_multiple_of_16_is_the_same_network(size: tuple[int, int]) -> None:
    """Nothing is resampled: the encoder at another size equals one built for it with the same tensors."""
    torch.manual_seed(0)
    config = replace(SHORT_XL, widths=(24, 48, 144), num_heads=2)  # heads of 72, as XL's
    encoder = away_from_its_start(config.build()).eval()
    built = replace(config, image_size=size).build().eval()
    built.load_state_dict(encoder.state_dict())
    encoder.set_image_size(*size)
    pixels = torch.randn(1, 3, *size)
    with torch.no_grad():
        assert torch.equal(encoder(pixels), built(pixels))


@pytest.mark.parametrize("size", [(100, 96), (96, 8), (0, 16), (-16, 16)])
def test_other_sizes_are_refused_and_nothing_changes(size: tuple[int, int]) -> None:
    encoder: Encoder = VITAMIN["nano"].build()
    with pytest.raises(ShapeError, match="16"):
        encoder.set_image_size(*size)
    assert encoder.image_size == (48, 48)
