"""Blocks that ViTamin's replaced, and the fields that choose them."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

from eyesmith.config import from_dict, to_dict
from eyesmith.errors import ConfigError
from eyesmith.hub.peers import timm_name
from eyesmith.models.conformance import check_encoder
from eyesmith.models.vitamin.blocks import MBConvBnSe, Mlp
from eyesmith.models.vitamin.model import VITAMIN, ViTaminConfig
from eyesmith.models.vitamin.weights import from_timm, to_timm

BASE = ViTaminConfig(image_size=(64, 64), widths=(8, 16, 24), depths=(1, 2, 2), num_heads=2, embed_dim=12)
CHANGES = {
    "bn_se": {"convolution": "bn_se"},
    "mlp": {"ffn": "mlp"},
    "stride 8": {"stride": 8},
    "stride 32": {"stride": 32},
    "all": {"convolution": "bn_se", "ffn": "mlp", "stride": 8},
}
_OURS_TO_TIMM = {
    "norm": "pre_norm",
    "expand": "conv1_1x1",
    "expand_norm": "norm1",
    "depthwise": "conv2_kxk",
    "depthwise_norm": "norm2",
    "excite.squeeze": "se.fc1",
    "excite.excite": "se.fc2",
    "reduce": "conv3_1x1",
    "shortcut": "shortcut.expand",
}


@pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")
@pytest.mark.parametrize(("dim_in", "dim_out", "stride"), [(8, 8, 1), (8, 8, 2), (8, 16, 2)])
@pytest.mark.parametrize("is_training", [True, False])
def test_mbconv_bn_se_equals_timms_on_the_same_weights(
    dim_in: int, dim_out: int, stride: int, is_training: bool
) -> None:
    from eyesmith.models.foreign.torchvision import ensure_torchvision

    ensure_torchvision()
    from timm.models.maxxvit import MaxxVitConvCfg, MbConvBlock

    torch.manual_seed(0)
    ours = MBConvBnSe(dim_in, dim_out, stride).double()
    theirs = MbConvBlock(dim_in, dim_out, stride=stride, cfg=MaxxVitConvCfg(pool_type="avg")).double()
    with torch.no_grad():
        for value in ours.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.1 if value.ndim == 1 else torch.randn_like(value))
    state = ours.state_dict()
    renamed = {
        f"{_OURS_TO_TIMM[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": value for name, value in state.items()
    }
    theirs.load_state_dict(renamed, strict=True)
    ours.train(is_training)
    theirs.train(is_training)
    x = torch.randn(3, dim_in, 6, 10, dtype=torch.float64)
    torch.testing.assert_close(ours(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), theirs(x))
    torch.testing.assert_close(ours.depthwise_norm.running_var, theirs.norm2.running_var)


def test_the_mlp_is_as_large_as_geglu_and_does_what_it_says() -> None:
    torch.manual_seed(0)
    mlp = Mlp(12)
    x = torch.randn(2, 5, 12)
    hidden = F.gelu(F.layer_norm(x, (12,), eps=1e-6) @ mlp.expand.weight.T + mlp.expand.bias)
    torch.testing.assert_close(mlp(x), hidden @ mlp.out.weight.T + mlp.out.bias)
    with torch.no_grad():
        torch.testing.assert_close(mlp(x, plus=x), x + hidden @ mlp.out.weight.T + mlp.out.bias)
    weights = {
        ffn: sum(value.numel() for value in replace(BASE, ffn=ffn).build().parameters() if value.ndim == 2)
        for ffn in ("geglu", "mlp")
    }
    assert weights["geglu"] == weights["mlp"]


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_every_change_keeps_the_contract(changes: dict[str, object]) -> None:
    torch.manual_seed(0)
    check_encoder(replace(BASE, **changes).build())


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_config_survives_json(changes: dict[str, object]) -> None:
    config = replace(BASE, **changes)
    assert from_dict(ViTaminConfig, to_dict(config)) == config
    assert config.build().load_state_dict(config.build().state_dict())


def test_a_config_written_before_there_were_other_parts_is_the_released_model() -> None:
    old = {name: value for name, value in to_dict(BASE).items() if name not in ("convolution", "ffn", "stride")}
    found = from_dict(ViTaminConfig, old)
    assert found == BASE
    assert found.has_released_parts
    assert all(config.has_released_parts for config in VITAMIN.values())


def test_strides_change_the_number_of_tokens_and_no_other_shape() -> None:
    shapes = {
        stride: {name: tuple(value.shape) for name, value in replace(BASE, stride=stride).build().state_dict().items()}
        for stride in (8, 16, 32)
    }
    assert {stride: shapes[stride].pop("position") for stride in shapes} == {
        8: (1, 64, 24),
        16: (1, 16, 24),
        32: (1, 4, 24),
    }
    assert shapes[8] == shapes[16] == shapes[32]


def test_cells_of_stride_32_are_means_of_four_of_stride_16() -> None:
    torch.manual_seed(0)
    fine, coarse = (replace(BASE, stride=stride, has_position=False).build().eval() for stride in (16, 32))
    coarse.load_state_dict(fine.state_dict())
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        cells, means = (encoder._convolve(pixels)["grid"] for encoder in (fine, coarse))
    assert (cells.shape, means.shape) == ((1, 4, 4, 24), (1, 2, 2, 24))
    torch.testing.assert_close(means[0, 1, 0], cells[0, 2:, :2].mean((0, 1)))


def test_batch_norms_see_the_whole_batch_also_without_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forward pass without gradient works through a batch in parts, unless its norms are the batch's."""
    monkeypatch.setattr("eyesmith.models.vitamin.model.CACHED_BYTES", 1)
    torch.manual_seed(0)
    encoder = replace(BASE, convolution="bn_se", drop_path_prob=0.0).build().train()
    pixels = torch.randn(4, 3, 64, 64)
    wanted = encoder(pixels)
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels), wanted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"convolution": "bn"}, "convolution: expected ln or bn_se, got 'bn'"),
        ({"ffn": "glu"}, "ffn: expected geglu or mlp"),
        ({"stride": 12}, "stride: expected 8, 16 or 32, got 12"),
        ({"stride": 32, "image_size": (48, 64)}, "expected multiples of 32"),
    ],
)
def test_wrong_fields_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(BASE, **changes)


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_no_file_of_timm_or_open_clip_pretends_to_hold_another_part(changes: dict[str, object]) -> None:
    config = replace(BASE, **changes)
    state = config.build().state_dict()
    with pytest.raises(ConfigError, match="released parts only"):
        to_timm(state, config)
    with pytest.raises(ConfigError, match="released parts only"):
        from_timm(state, config)
    with pytest.raises(ConfigError, match="timm and open_clip have no ViTamin"):
        timm_name(replace(VITAMIN["small"], **({"image_size": (224, 224)} | changes)), at_its_size=False)
