"""A fast copy of an image tower gives the tower's features and leaves the tower alone."""

import copy

import pytest
import torch
from torch import nn

from eyesmith.eval.features.fast_tower import with_fast_tower
from eyesmith.models import create
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.foreign.timm import TimmConfig
from eyesmith.models.text.model import ClipTextConfig

PIXELS = torch.randint(256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def clip_of(backbone: str) -> Clip:
    from eyesmith.images import PreprocessConfig

    torch.manual_seed(0)
    clip = ClipConfig(
        name="Small",
        image=TimmConfig(model_name=backbone, image_size=(64, 64), embed_dim=16),
        text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16),
        preprocess=PreprocessConfig(image_size=(64, 64)),
    ).build()
    for module in clip.modules():  # as after training: nothing is 0 or 1
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5)
    return clip


@pytest.mark.parametrize("backbone", ["regnetx_002", "resnet10t", "convnext_atto"])
def test_features_are_equal_and_the_tower_is_as_it_was(backbone: str) -> None:
    clip = clip_of(backbone).train()
    before = copy.deepcopy(clip.state_dict())
    strides = [parameter.stride() for parameter in clip.parameters()]
    fast = with_fast_tower(clip)
    assert fast is not clip
    torch.testing.assert_close(fast.encode_image(PIXELS), clip.encode_image(PIXELS), atol=1e-5, rtol=1e-4)
    if backbone != "convnext_atto":
        assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.image.modules())
    assert clip.training
    assert [parameter.stride() for parameter in clip.parameters()] == strides
    assert all(parameter.requires_grad for parameter in clip.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in clip.state_dict().items())
    assert fast.text is clip.text


def test_a_norm_whose_input_is_used_twice_stays() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.image_size = (4, 4)
            self.norm.running_mean = torch.ones(3)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            x = self.conv(pixels.float())
            return (x + self.norm(x)).mean((2, 3))

    from eyesmith.eval.features.fast_tower import _folded

    tower = Twice().eval()
    assert _folded(tower) is tower  # pyright: ignore[reportArgumentType]


def test_another_format_is_left_alone() -> None:
    clip = create("ViTamin-Nano").bfloat16()
    assert with_fast_tower(clip) is clip
