"""Other ways through the last block, against blocks written out, and blocks of every family against themselves."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.dense.sliding import SlidingEncoder
from eyesmith.dense.training_free.paths import (
    LastBlockEncoder,
    PatchSpaceWarning,
    dense_encoder,
    gaussian_of_distance,
    unit_map,
)
from eyesmith.errors import ConfigError
from eyesmith.models import create_encoder
from eyesmith.models.encoder import Encoder
from eyesmith.models.eva02 import Eva02Config
from eyesmith.models.foreign.timm import TimmConfig
from eyesmith.models.last_block import open_block
from eyesmith.models.vit.model import VitConfig
from eyesmith.models.vitamin import ViTaminConfig

CONFIGS = {
    "vitamin": ViTaminConfig(image_size=(48, 64), widths=(8, 16, 32), depths=(1, 1, 2), num_heads=2, embed_dim=16),
    "trv": Eva02Config(
        image_size=(24, 32), patch_px=8, width=32, depth=2, num_heads=2, hidden_dim=48, embed_dim=16, pooling="token"
    ),
    "post": Eva02Config(
        image_size=(24, 32),
        patch_px=8,
        width=32,
        depth=2,
        num_heads=2,
        hidden_dim=48,
        embed_dim=16,
        norm="post",
        ffn="mlp",
        relation="none",
        has_inner_norm=True,
        pooling="normed_mean",
    ),
    "vit": VitConfig(
        image_size=(48, 64), patch_px=16, width=32, depth=2, num_heads=2, hidden_dim=48, embed_dim=16
    ),  # CLIP's: pooled by its class token, which alone goes through the last block
    "timm": TimmConfig(
        model_name="vit_tiny_patch16_224", image_size=(48, 64), embed_dim=16, widths=(32,), depths=(2,), num_heads=2
    ),
}


def make(name: str) -> Encoder:
    torch.manual_seed(0)
    encoder = CONFIGS[name].build().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            drawn = torch.Generator().manual_seed(parameter.numel())
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=drawn))
    return encoder


def noise(encoder: Encoder, count: int = 2) -> Tensor:
    return torch.randn(count, 3, *encoder.image_size, generator=torch.Generator().manual_seed(1))


def last_input(encoder: Encoder, pixels: Tensor) -> tuple[Tensor, Any]:
    caught: list[Any] = []
    handle = encoder.blocks()[-1].register_forward_pre_hook(lambda _module, args: caught.append(args))
    with torch.no_grad():
        encoder(pixels)
    handle.remove()
    return caught[0][0], caught[0][1] if len(caught[0]) > 1 else None


@pytest.mark.parametrize("name", CONFIGS)
def test_a_block_taken_apart_and_put_together_is_the_block(name: str) -> None:
    encoder = make(name)
    x, places = last_input(encoder, noise(encoder))
    block = encoder.blocks()[-1]
    opened = open_block(block, x, places)
    assert opened is not None
    with torch.no_grad():
        own = block(x) if places is None else block(x, places)
    torch.testing.assert_close(opened.plain(), own, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("package", ["open_clip", "transformers"])
def test_blocks_of_other_packages_are_known(package: str) -> None:
    torch.manual_seed(0)
    if package == "open_clip":
        from eyesmith.models.foreign.torchvision import ensure_torchvision

        ensure_torchvision()
        transformer = pytest.importorskip("open_clip.transformer")
        block = transformer.ResidualAttentionBlock(32, 4, ls_init_value=0.5, batch_first=True).eval()
        own = lambda x: block(x)  # noqa: E731
    else:
        clip = pytest.importorskip("transformers.models.clip.modeling_clip")
        config = clip.CLIPVisionConfig(hidden_size=32, num_attention_heads=4, intermediate_size=48)
        config._attn_implementation = "eager"
        block = clip.CLIPEncoderLayer(config).eval()
        own = lambda x: block(x, None)  # noqa: E731
    x = torch.randn(2, 5, 32)
    opened = open_block(block, x)
    assert opened is not None
    with torch.no_grad():
        result = own(x)
        torch.testing.assert_close(opened.plain(), result[0] if isinstance(result, tuple) else result)


@torch.no_grad()
def written_out(encoder: Any, path: str, sigma: float) -> tuple[Tensor, Tensor]:
    """ViTamin's, ViT's or timm's last block for one picture, head by head and token by token: [T, C], and its input."""
    x, _ = last_input(encoder, noise(encoder, 1))
    x, block = x[0], encoder.blocks()[-1]
    ours = hasattr(block, "attention")
    attention = block.attention if ours else block.attn
    out = attention.out if ours else attention.proj
    tokens, width = x.shape
    heads, dim = attention.num_heads, width // attention.num_heads
    qkv = F.linear(block.norm1(x), attention.qkv.weight, attention.qkv.bias)
    k, v = qkv[:, width : 2 * width], qkv[:, 2 * width :]
    if path == "value":
        y = x + out(v)
        return y + block.mlp(block.norm2(y)), x
    before = tokens - (encoder.image_size[0] // 16) * (encoder.image_size[1] // 16)
    columns = encoder.image_size[1] // 16
    mixed = torch.zeros_like(v)
    for head in range(heads):
        part = slice(head * dim, (head + 1) * dim)
        for i in range(tokens):
            scores = []
            for j in range(tokens):
                score = float(k[i, part] @ k[j, part]) / math.sqrt(dim)
                if i >= before and j >= before:
                    (yi, xi), (yj, xj) = divmod(i - before, columns), divmod(j - before, columns)
                    score += math.exp(-((yi - yj) ** 2 + (xi - xj) ** 2) / (2 * sigma**2))
                scores.append(score)
            mixed[i, part] = torch.tensor(scores).softmax(0) @ v[:, part]
    return out(mixed), x


@pytest.mark.parametrize("path", ["value", "neighbour"])
@pytest.mark.parametrize("name", ["vitamin", "vit", "timm"])
def test_the_paths_equal_blocks_written_out(name: str, path: Any) -> None:
    encoder = make(name)
    pixels = noise(encoder, 1)
    before = encoder(pixels).detach()
    found = LastBlockEncoder(encoder, path, sigma=1.5)
    expected, x = written_out(encoder, path, 1.5)
    cells = found.tokens(pixels, -1)[0]
    torch.testing.assert_close(cells, expected[len(expected) - len(cells) :], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found.tokens(pixels, -2)[0], x[len(x) - len(cells) :], atol=1e-4, rtol=1e-3)
    assert not torch.allclose(found.dense(pixels), encoder.dense(pixels), atol=1e-2)
    with torch.no_grad():  # the encoder it was made of, and the pooled feature, are as before
        torch.testing.assert_close(encoder(pixels), before)
        torch.testing.assert_close(found(pixels), before)


def test_the_value_path_is_of_each_place_alone() -> None:
    encoder = make("trv")
    one, other = noise(encoder, 2)
    x, places = last_input(encoder, one[None])
    y = torch.cat((x[:, :5], last_input(encoder, other[None])[0][:, 5:]), dim=1)
    block = encoder.blocks()[-1]
    opened, changed = open_block(block, x, places), open_block(block, y, places)
    assert opened is not None
    assert changed is not None
    mine, theirs = (it.finish(it.join(it.values)) for it in (opened, changed))
    torch.testing.assert_close(mine[:, :5], theirs[:, :5])
    assert not torch.allclose(opened.plain()[:, :5], changed.plain()[:, :5], atol=1e-3)


def test_the_gaussian_falls_with_the_distance() -> None:
    found = gaussian_of_distance(3, 4, 2.0)
    for i in range(12):
        for j in range(12):
            (yi, xi), (yj, xj) = divmod(i, 4), divmod(j, 4)
            assert float(found[i, j]) == pytest.approx(math.exp(-((yi - yj) ** 2 + (xi - xj) ** 2) / 8))


def test_each_encoder_gets_a_path_whose_cells_are_in_text_space() -> None:
    vitamin, trv = make("vitamin"), make("trv")
    assert not isinstance(dense_encoder(vitamin), LastBlockEncoder)
    assert isinstance(dense_encoder(trv), LastBlockEncoder)
    assert isinstance(dense_encoder(make("vit")), LastBlockEncoder)
    with pytest.warns(PatchSpaceWarning, match="near chance"):
        dense_encoder(trv, "projection")
    pixels = noise(vitamin)
    found = unit_map(dense_encoder(vitamin), pixels)
    assert found.shape == (2, 3, 4, 16)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2, 3, 4))
    with torch.no_grad():
        cell = F.normalize(vitamin.project(vitamin.dense(pixels)[1, :, 2, 3]), dim=-1)
    torch.testing.assert_close(found[1, 2, 3], cell, atol=1e-5, rtol=1e-4)


def test_a_path_slides_and_changes_size() -> None:
    encoder = make("trv")
    path = LastBlockEncoder(encoder, "value")
    sliding = SlidingEncoder(path, (48, 32), stride=(24, 32))
    pixels = torch.randn(1, 3, 48, 32, generator=torch.Generator().manual_seed(2))
    found = sliding.dense(pixels)
    for top in (0, 24):
        torch.testing.assert_close(
            found[:, :, top // 8 : top // 8 + 3], path.dense(pixels[:, :, top : top + 24]), atol=1e-5, rtol=1e-4
        )
    large = path.at_size(48, 32)
    assert large.dense(pixels).shape == (1, 32, 6, 4)
    assert not torch.allclose(large.dense(pixels), encoder.at_size(48, 32).dense(pixels), atol=1e-3)
    assert path.identity() != LastBlockEncoder(encoder, "neighbour").identity()


def test_encoders_without_such_a_block_are_refused() -> None:
    encoder = create_encoder("vit_nano_48")  # any; its last block becomes one of another kind

    class Other(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flip(-1)

    encoder.backbone.blocks[-1] = Other()  # pyright: ignore
    with pytest.raises(ConfigError, match=r"\(Other\) is none that 'value' knows"):
        LastBlockEncoder(encoder, "value")
    with pytest.warns(PatchSpaceWarning):
        assert not isinstance(dense_encoder(encoder, "auto"), LastBlockEncoder)
    relative = CONFIGS["trv"]
    assert isinstance(relative, Eva02Config)
    with pytest.raises(ConfigError, match="path: expected"):
        LastBlockEncoder(make("trv"), "projection")
