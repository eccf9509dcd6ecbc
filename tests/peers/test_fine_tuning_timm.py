"""RandAugment's pixels, smoothed losses, erasing and Lion beside timm's."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from eyesmith.images.randaugment import FILL, OPS, change
from eyesmith.losses.class_labels import class_losses
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.optim.optimizers import Lion

THEIR_NAMES = [
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "PosterizeIncreasing",
    "SolarizeIncreasing",
    "SolarizeAdd",
    "ColorIncreasing",
    "ContrastIncreasing",
    "BrightnessIncreasing",
    "SharpnessIncreasing",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
]


@pytest.fixture(scope="module")
def auto_augment() -> Any:
    ensure_torchvision()
    return pytest.importorskip("timm.data.auto_augment")


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    rng = np.random.default_rng(5)
    smooth = rng.normal(size=(64, 48, 3)).cumsum(0).cumsum(1)
    return Image.fromarray(((smooth - smooth.min()) / np.ptp(smooth) * 200 + 20).astype(np.uint8))


def test_the_fifteen_changes_are_theirs_in_order(auto_augment: Any) -> None:
    made = auto_augment.rand_augment_transform("rand-m9-mstd0.5-inc1", {"img_mean": FILL})
    assert [op.name for op in made.ops] == THEIR_NAMES
    assert len(OPS) == len(THEIR_NAMES)
    first = made.ops[0]
    assert (made.num_layers, first.prob, first.magnitude, first.magnitude_std) == (2, 0.5, 9, 0.5)


@pytest.mark.parametrize("magnitude", [0.0, 3.3, 9.0, 9.7])
@pytest.mark.parametrize("place", range(15))
def test_each_change_gives_their_pixels(
    auto_augment: Any, picture: Image.Image, monkeypatch: pytest.MonkeyPatch, place: int, magnitude: float
) -> None:
    hparams = {"img_mean": FILL, "interpolation": Image.Resampling.BICUBIC}
    theirs = auto_augment.AugmentOp(THEIR_NAMES[place], prob=1.0, magnitude=magnitude, hparams=hparams)
    for is_negative in (False, True):
        monkeypatch.setattr(auto_augment.random, "random", lambda is_negative=is_negative: 0.9 if is_negative else 0.1)
        wanted = theirs(picture)
        found = change(picture, list(OPS)[place], magnitude, is_negative=is_negative)
        assert np.array_equal(np.asarray(found), np.asarray(wanted))


def test_smoothed_and_mixed_losses_are_theirs() -> None:
    ensure_torchvision()
    cross_entropy = pytest.importorskip("timm.loss.cross_entropy")
    mixup = pytest.importorskip("timm.data.mixup")
    draw = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(6, 9, generator=draw), torch.randint(9, (6,), generator=draw)
    wanted = cross_entropy.LabelSmoothingCrossEntropy(0.1)(logits, labels)
    torch.testing.assert_close(class_losses(logits, labels, smoothing=0.1).mean(), wanted)
    soft = mixup.mixup_target(labels, 9, lam=0.3, smoothing=0.1)
    wanted = cross_entropy.SoftTargetCrossEntropy()(logits, soft)
    found = class_losses(logits, labels, smoothing=0.1, partners=labels.flip(0), share=torch.full((6,), 0.3))
    torch.testing.assert_close(found.mean(), wanted)


def test_lion_is_theirs() -> None:
    ensure_torchvision()
    lion = pytest.importorskip("timm.optim.lion")
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4)) for _ in range(2))
    pair = (Lion([ours], lr=0.02, weight_decay=0.1), lion.Lion([theirs], lr=0.02, weight_decay=0.1))
    draw = torch.Generator().manual_seed(1)
    for _ in range(5):
        grad = torch.randn(3, 4, generator=draw)
        for weight, optimizer in zip((ours, theirs), pair, strict=True):
            weight.grad = grad.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_erased_boxes_have_their_statistics() -> None:
    """Areas and shapes of 300 boxes of each, on the same rule."""
    ensure_torchvision()
    random_erasing = pytest.importorskip("timm.data.random_erasing")
    from eyesmith.images.erase import EraseConfig, erase_box

    random.seed(0)
    make = random_erasing.RandomErasing(probability=1.0, device="cpu")
    theirs, ours = [], []
    for number in range(300):
        hit = make(torch.ones(1, 3, 64, 64))[0, 0] == 0
        theirs.append(hit.sum().item())
        box = erase_box((64, 64), EraseConfig(prob=1.0), random.Random(number))
        assert box is not None
        ours.append(box.height * box.width)
    assert abs(np.mean(ours) - np.mean(theirs)) < 0.08 * np.mean(theirs)
    assert abs(np.std(ours) - np.std(theirs)) < 0.12 * np.std(theirs)
