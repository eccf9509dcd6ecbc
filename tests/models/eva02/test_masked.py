from dataclasses import replace

import pytest
import torch

from eyesmith.errors import ConfigError, ShapeError
from eyesmith.losses.patch_regression import masked_cosine
from eyesmith.models.eva02.masked import MaskedEva02
from eyesmith.models.eva02.model import EVA02, Eva02Config

TINY = Eva02Config(image_size=(32, 48), patch_px=8, width=32, depth=2, num_heads=2, hidden_dim=64, embed_dim=0)


@pytest.fixture
def student() -> MaskedEva02:
    torch.manual_seed(0)
    return MaskedEva02(TINY, 12)


def _inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 3, 32, 48, generator=generator), torch.rand(3, 24, generator=generator) < 0.4


def test_hidden_patches_are_predicted_from_the_others(student: MaskedEva02) -> None:
    pixels, mask = _inputs()
    found = student(pixels, mask)
    assert found.shape == (int(mask.sum()), 12)
    changed = pixels.clone().unfold(2, 8, 8).unfold(3, 8, 8)  # [3, 3, 4, 6, 8, 8]
    changed[mask.view(3, 4, 6)[:, None].expand(-1, 3, -1, -1)] += 5.0
    whole = changed.permute(0, 1, 2, 4, 3, 5).reshape(pixels.shape)
    torch.testing.assert_close(student(whole, mask), found)  # what is hidden is not seen
    assert not torch.allclose(student(pixels + 0.5, mask), found)


def test_it_is_the_encoder_with_a_token_put_in(student: MaskedEva02) -> None:
    """Image by image and patch by patch."""
    pixels, mask = _inputs()
    rows = []
    for image, hidden in zip(pixels, mask, strict=True):
        patches = student.image.patches(image[None])[0].clone()
        for place in range(24):
            if hidden[place]:
                patches[place] = student.mask_token[0, 0]
        tokens = student.image.encode(patches[None])[0, 1:]
        rows += [student.predict(student.image.norm(tokens[place])) for place in range(24) if hidden[place]]
    torch.testing.assert_close(student(pixels, mask), torch.stack(rows))


def test_the_patch_embedding_gets_a_tenth_of_its_gradient(student: MaskedEva02) -> None:
    pixels, mask = _inputs()
    grads = []
    for scale in (0.1, 1.0):
        student.patch_grad_scale = scale
        student.zero_grad()
        student(pixels, mask).square().sum().backward()
        assert student.image.patch.weight.grad is not None
        assert student.mask_token.grad is not None
        grads.append((student.image.patch.weight.grad.clone(), student.mask_token.grad.clone()))
    torch.testing.assert_close(grads[0][0], 0.1 * grads[1][0])
    torch.testing.assert_close(grads[0][1], grads[1][1], rtol=1e-4, atol=1e-4)


def test_parameters_are_those_of_the_release() -> None:
    for size, total in (("tiny", 5_699_968), ("small", 22_015_744), ("base", 86_546_944), ("large", 304_319_424)):
        with torch.device("meta"):
            made = MaskedEva02(EVA02[size], 1024)
        assert sum(parameter.numel() for parameter in made.parameters()) == total


def test_golden_values_of_the_release() -> None:
    """Case C of the facts: two sub-LN blocks of width 128 on a grid of 4, whose positions are whole numbers there.

    The reference builds its rotary table for a grid of 4 there; TrV stretches positions to 16, so the table is put in.
    """
    from eyesmith.models import position

    config = Eva02Config(
        image_size=(56, 56), width=128, depth=2, num_heads=2, hidden_dim=341, embed_dim=0, norm="sub", is_packed=False
    )
    student = MaskedEva02(config, 16).double().eval()
    _fill(student)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(position, "REFERENCE_GRID", 4)
        student.image._places = position.rope_table((4, 4), 64)
    pixels = torch.cos(0.11 * torch.arange(2 * 3 * 56 * 56, dtype=torch.float64)).view(2, 3, 56, 56)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, ::3], mask[1, 1::2] = True, True
    with torch.no_grad():
        found = student(pixels, mask)
    assert found.shape == (14, 16)
    assert found.sum().item() == pytest.approx(-12.580582640, abs=1e-6)
    assert found.abs().sum().item() == pytest.approx(133.061128559, abs=1e-6)
    assert found.flatten()[:4].tolist() == pytest.approx([-0.678540497, 0.900232475, -0.744032376, 0.782215801])
    assert found.flatten()[-1].item() == pytest.approx(-0.670491188)
    target = torch.cos(0.11 * torch.arange(found.numel(), dtype=torch.float64)).view(found.shape)
    assert masked_cosine(found, target).mean().item() == pytest.approx(0.000854891, abs=1e-7)


def _fill(student: MaskedEva02) -> None:
    """The facts' fill: parameters in the order of their reference names."""
    parts: dict[str, torch.Tensor] = {}
    image = student.image
    for i, block in enumerate(image.layers):
        attention, mlp = block.attention, block.mlp
        q, k, v = attention.qkv.weight.data.chunk(3)
        (w1, w2), (b1, b2) = mlp.enter.weight.data.chunk(2), mlp.enter.bias.data.chunk(2)
        inner = {
            "attn.q_proj.weight": q,
            "attn.k_proj.weight": k,
            "attn.v_proj.weight": v,
            "attn.q_bias": attention.q_bias,
            "attn.v_bias": attention.v_bias,
            "attn.proj.weight": attention.out.weight,
            "attn.proj.bias": attention.out.bias,
            "mlp.w1.weight": w1,
            "mlp.w1.bias": b1,
            "mlp.w2.weight": w2,
            "mlp.w2.bias": b2,
            "mlp.w3.weight": mlp.out.weight,
            "mlp.w3.bias": mlp.out.bias,
            "mlp.ffn_ln.weight": mlp.norm.weight,
            "mlp.ffn_ln.bias": mlp.norm.bias,
            "norm1.weight": block.norm1.weight,
            "norm1.bias": block.norm1.bias,
            "norm2.weight": block.norm2.weight,
            "norm2.bias": block.norm2.bias,
        }
        parts |= {f"blocks.{i}.{name}": value for name, value in inner.items()}
    parts |= {
        "cls_token": image.class_token,
        "pos_embed": image.position,
        "mask_token": student.mask_token,
        "patch_embed.proj.weight": image.patch.weight,
        "patch_embed.proj.bias": image.patch.bias,
        "norm.weight": image.norm.weight,
        "norm.bias": image.norm.bias,
        "lm_head.weight": student.predict.weight,
        "lm_head.bias": student.predict.bias,
    }
    assert sum(value.numel() for value in parts.values()) == sum(value.numel() for value in student.parameters())
    for number, name in enumerate(sorted(parts)):
        value = parts[name].data
        drawn = 0.1 * torch.sin(0.37 * torch.arange(value.numel(), dtype=torch.float64) + 1.3 * (number + 1))
        drawn += 1.0 if value.ndim == 1 and name.endswith("weight") else 0.0
        value.copy_(drawn.view(value.shape))


def test_what_does_not_fit_is_said(student: MaskedEva02) -> None:
    pixels, mask = _inputs()
    with pytest.raises(ShapeError, match=r"mask: expected bool \[3, 24\]"):
        student(pixels, mask[:, :5])
    with pytest.raises(ConfigError, match="trains no projection"):
        MaskedEva02(replace(TINY, embed_dim=8), 4)
