"""Forward values of tiny models, obtained once from the release's own modules in float64."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from eyesmith.models import position
from eyesmith.models.eva02.model import Eva02, Eva02Config
from eyesmith.models.eva02.weights import from_published, meta_state, to_published

SIZES: dict[str, Any] = {"width": 128, "depth": 2, "num_heads": 2, "hidden_dim": 341, "image_size": (56, 56)}


def filled(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Every tensor by the place of its name in sorted order: 0.1 sin(0.37 k + 1.3 (j + 1)), norms' weights 1 more."""
    state: dict[str, Tensor] = {}
    for j, name in enumerate(sorted(shapes)):
        count = torch.Size(shapes[name]).numel()
        value = 0.1 * torch.sin(0.37 * torch.arange(count, dtype=torch.float64) + 1.3 * (j + 1))
        if len(shapes[name]) == 1 and name.endswith("weight"):
            value += 1
        state[name] = value.view(shapes[name])
    return state


def waves(*shape: int) -> Tensor:
    count = torch.Size(shape).numel()
    return torch.cos(0.11 * torch.arange(count, dtype=torch.float64)).view(shape)


def golden(config: Eva02Config, **more: tuple[int, ...]) -> tuple[Eva02, dict[str, Tensor]]:
    """The encoder of the golden weights, and all of them by the release's names; more: tensors beside the encoder's."""
    plain = to_published(meta_state(config), config, layout="reference")
    state = filled({name: tuple(value.shape) for name, value in plain.items()} | more)
    encoder = config.build().double().eval()
    encoder.load_state_dict(from_published(state, config))
    return encoder, state


def check(values: Tensor, *, total: float, absolute: float | None, first: list[float], last: float | None) -> None:
    flat = values.flatten()
    assert float(flat.sum()) == pytest.approx(total, abs=2e-7)
    if absolute is not None:
        assert float(flat.abs().sum()) == pytest.approx(absolute, abs=2e-7)
    torch.testing.assert_close(flat[: len(first)], torch.tensor(first, dtype=torch.float64), rtol=0, atol=1e-8)
    if last is not None:
        assert float(flat[-1]) == pytest.approx(last, abs=1e-8)


def pooled(encoder: Eva02, pixels: Tensor) -> Tensor:
    return encoder.norm(encoder.encode(encoder.patches(pixels))[:, 1:].mean(dim=1))


@torch.no_grad()
def test_a_a_classifier_with_packed_matrices() -> None:
    encoder, _ = golden(Eva02Config(**SIZES, embed_dim=10))
    pixels = waves(2, 3, 56, 56)
    first = [-0.216569117, 0.171509480, 0.262077163, -0.341524026]
    check(encoder(pixels), total=-1.215530731, absolute=12.792975021, first=first, last=-1.085700513)
    check(pooled(encoder, pixels), total=-0.593566631, absolute=229.432931327, first=[-0.881178905], last=None)


@torch.no_grad()
def test_b_a_classifier_with_sub_ln_and_separate_matrices() -> None:
    encoder, _ = golden(Eva02Config(**SIZES, embed_dim=10, norm="sub", is_packed=False))
    pixels = waves(2, 3, 56, 56)
    first = [-0.570028077, 0.079243048, 0.035034423, -0.503579976]
    check(encoder(pixels), total=-2.173809802, absolute=15.454868799, first=first, last=-1.188833000)
    check(pooled(encoder, pixels), total=-0.877697690, absolute=None, first=[-1.490842311], last=None)


@torch.no_grad()
def test_c_masked_image_modelling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The student: mask tokens in the place of patches, through all blocks, normed, masked ones projected."""
    monkeypatch.setattr(position, "REFERENCE_GRID", 4)
    config = Eva02Config(**SIZES, embed_dim=0, norm="sub", is_packed=False, pooling="normed_mean")
    lm_head: dict[str, tuple[int, ...]] = {
        "lm_head.weight": (16, 128),
        "lm_head.bias": (16,),
        "mask_token": (1, 1, 128),
    }
    encoder, state = golden(config, **lm_head)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, ::3] = True
    mask[1, 1::2] = True
    patches = torch.where(mask[..., None], state["mask_token"], encoder.patches(waves(2, 3, 56, 56)))
    tokens = encoder.norm(encoder.encode(patches))[:, 1:]
    out = tokens[mask] @ state["lm_head.weight"].mT + state["lm_head.bias"]
    first = [-0.678540497, 0.900232475, -0.744032376, 0.782215801]
    assert out.shape == (14, 16)
    check(out, total=-12.580582640, absolute=133.061128559, first=first, last=-0.670491188)
    loss = -torch.cosine_similarity(out.float(), waves(14, 16).float(), dim=-1).mean()
    assert float(loss) == pytest.approx(0.000854891, abs=1e-7)


@torch.no_grad()
def test_d_the_tower_of_a_clip() -> None:
    sizes = SIZES | {"image_size": (64, 64), "patch_px": 16}
    encoder, _ = golden(
        Eva02Config(**sizes, embed_dim=8, norm="sub", has_inner_norm=True, is_packed=False, pooling="token")
    )
    first = [0.485524443, -0.315089543, 0.452017800, -0.189065001]
    check(encoder(waves(2, 3, 64, 64)), total=1.577468779, absolute=3.800194714, first=first, last=0.079118013)
