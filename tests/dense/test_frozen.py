"""A frozen encoder against the encoder it was made of, and against all that could wake it."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from eyesmith.dense.frozen import FrozenEncoder
from eyesmith.errors import ConfigError, ShapeError
from eyesmith.models import create_encoder
from eyesmith.models.encoder import Encoder


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return create_encoder("vitamin_nano_48", drop_path_prob=0.9).train()


@pytest.fixture
def pixels() -> Tensor:
    return torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_its_maps_are_those_of_the_encoder_in_evaluation_mode(encoder: Encoder, pixels: Tensor) -> None:
    frozen = FrozenEncoder(encoder)
    awake = encoder(pixels)
    encoder.eval()
    with torch.no_grad():
        assert torch.equal(frozen(pixels), encoder(pixels))
        assert not torch.allclose(awake, encoder(pixels))  # drop path of a training encoder
        assert torch.equal(frozen.dense(pixels), encoder.dense(pixels))
        assert torch.equal(frozen.tokens(pixels), encoder.tokens(pixels))
        vectors = torch.randn(5, frozen.taps["stage3"].channels)
        assert torch.equal(frozen.project(vectors), encoder.project(vectors))
        for name, found in encoder.pyramid(pixels).items():
            assert torch.equal(frozen.pyramid(pixels)[name], found)
    for fact in ("image_size", "mean", "std", "stride", "embed_dim", "taps", "half_tap", "is_mean_pooled"):
        assert getattr(frozen, fact) == getattr(encoder, fact)


def test_nothing_of_a_training_model_around_it_wakes_it(encoder: Encoder, pixels: Tensor) -> None:
    frozen = FrozenEncoder(encoder)
    before, state = frozen(pixels), {name: value.clone() for name, value in encoder.state_dict().items()}
    model = nn.ModuleDict({"encoder": frozen, "head": nn.Linear(frozen.embed_dim, 3)})
    model.train().requires_grad_(True)
    encoder.train()  # nor the one it was made of
    assert not frozen.training
    assert not any(part.training for part in frozen.inner.modules())
    names = [name for name, _ in model.named_parameters()]
    assert names == ["head.weight", "head.bias"]
    assert list(model.state_dict()) == names

    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=0.5)
    for _ in range(2):
        model["head"](frozen(pixels)).square().sum().backward()
        optimizer.step()
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(torch.equal(encoder.state_dict()[name], value) for name, value in state.items())
    assert torch.equal(frozen(pixels), before)
    assert not frozen.pyramid(pixels)["stage1"].requires_grad


def test_it_moves_and_copies_and_is_stored_with_its_model(encoder: Encoder, pixels: Tensor) -> None:
    model = nn.Sequential(FrozenEncoder(encoder), nn.Linear(encoder.embed_dim, 3))
    frozen = model[0]
    assert isinstance(frozen, FrozenEncoder)
    before = frozen(pixels)
    twin = copy.deepcopy(model)[0]
    assert isinstance(twin, FrozenEncoder)
    assert torch.equal(twin(pixels), before)
    stored = io.BytesIO()
    torch.save(model.state_dict(), stored)
    model.double()
    assert frozen(pixels).dtype == torch.float64
    assert frozen.device.type == "cpu"
    torch.testing.assert_close(frozen(pixels).float(), before, atol=1e-4, rtol=1e-4)
    assert twin(pixels).dtype == torch.float32
    assert stored.tell() < 10_000  # the head alone


def test_another_size_is_a_view_and_never_a_change(encoder: Encoder) -> None:
    frozen = FrozenEncoder(encoder)
    large = frozen.at_size(96, 64)
    assert large.image_size == (96, 64)
    assert frozen.image_size == tuple(encoder.image_size) == (48, 48)
    assert large.dense(torch.zeros(1, 3, 96, 64)).shape[2:] == (6, 4)
    again = large.at_size(48, 48)
    assert torch.equal(again(torch.ones(1, 3, 48, 48)), frozen(torch.ones(1, 3, 48, 48)))
    frozen.set_image_size(48, 48)
    with pytest.raises(ConfigError, match=r"at_size\(96, 96\)"):
        frozen.set_image_size(96, 96)
    with pytest.raises(ShapeError, match="96, 64"):
        large.dense(torch.zeros(1, 3, 48, 48))


def test_its_identity_tells_weights_and_size(encoder: Encoder) -> None:
    frozen = FrozenEncoder(encoder)
    first = frozen.identity()
    assert FrozenEncoder(frozen).identity() == FrozenEncoder(copy.deepcopy(encoder)).identity() == first
    assert frozen.at_size(96, 96).identity() != first
    with torch.no_grad():
        next(encoder.parameters()).add_(1e-3)
    assert frozen.identity() != first  # the weights are shared


@pytest.mark.parametrize(("name", "passes"), [("vitamin_nano_48", 1), ("vit_nano_48", 2)])
def test_maps_for_a_detector_take_one_pass_where_they_can(name: str, passes: int, pixels: Tensor) -> None:
    torch.manual_seed(0)
    frozen = FrozenEncoder(create_encoder(name))
    names = list(frozen.taps)[:2]
    frozen.pyramid_and_dense(pixels)  # finds out whether the last tap is the dense map
    ran: list[int] = []
    frozen.blocks()[0].register_forward_hook(lambda *_: ran.append(1))
    maps, dense = frozen.pyramid_and_dense(pixels, names)
    assert len(ran) == passes
    assert list(maps) == names
    assert torch.equal(dense, frozen.dense(pixels))
    assert all(torch.equal(maps[one], frozen.pyramid(pixels)[one]) for one in names)
