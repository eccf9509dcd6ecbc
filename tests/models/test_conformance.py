"""The conformance test passes for every family we have, and names each clause that an encoder breaks."""

import copy
from collections.abc import Sequence
from typing import Self

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.images import OPENAI_MEAN, OPENAI_STD
from eyesmith.models.conformance import ConformanceError, check_encoder, find_violations
from eyesmith.models.encoder import Encoder, Tap


class Toy(Encoder):
    """Two linear units on 4-px patches: the smallest thing that keeps the contract."""

    def __init__(self) -> None:
        super().__init__()
        self.image_size, self.mean, self.std = (8, 12), OPENAI_MEAN, OPENAI_STD
        self.stride, self.embed_dim, self.taps = 4, 5, {"map": Tap(4, 6)}
        self.patch = nn.Conv2d(3, 6, 4, stride=4)
        self.units = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.head = nn.Linear(6, 5)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.project(self.dense(pixels).mean((2, 3)))

    def pyramid(self, pixels: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        names = self.check_taps(taps)
        return {name: self.dense(pixels) for name in names}

    def dense(self, pixels: Tensor) -> Tensor:
        grid = self.image_size[0] // 4, self.image_size[1] // 4
        return self.tokens(pixels, -1).mT.unflatten(2, grid)

    def project(self, vectors: Tensor) -> Tensor:
        return self.head(vectors)

    def tokens(self, pixels: Tensor, layer: int = -2) -> Tensor:
        x = self.patch(self.prepare(pixels)).flatten(2).mT  # [B, N, C]
        for unit in self.units[: self.check_layer(layer, 2) + 1]:
            x = x + unit(x)
        return x

    def set_image_size(self, height: int, width: int) -> None:
        self.check_size(height, width)
        self.image_size = (height, width)

    def blocks(self) -> list[nn.Module]:
        return list(self.units)


class WrongWidth(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.embed_dim = 7


class LeaksAcrossTheBatch(Toy):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels) - super().forward(pixels).mean(0)


class PoolsAnotherWay(Toy):
    def forward(self, pixels: Tensor) -> Tensor:
        return self.project(self.dense(pixels).amax((2, 3)))


class TransposedDense(Toy):
    def dense(self, pixels: Tensor) -> Tensor:
        return super().dense(pixels).mT


class MissesATap(Toy):
    def pyramid(self, pixels: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        return {}


class HasAClassToken(Toy):
    def tokens(self, pixels: Tensor, layer: int = -2) -> Tensor:
        x = super().tokens(pixels, layer)
        return torch.cat((x[:, :1], x), dim=1)

    def dense(self, pixels: Tensor) -> Tensor:
        grid = self.image_size[0] // 4, self.image_size[1] // 4
        return self.tokens(pixels, -1)[:, 1:].mT.unflatten(2, grid)


class TakesAnySize(Toy):
    def set_image_size(self, height: int, width: int) -> None:
        self.image_size = (height, width)


class ScalesBytesItsOwnWay(Toy):
    def prepare(self, pixels: Tensor) -> Tensor:
        super().prepare(pixels)
        return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


class BlocksOutOfOrder(Toy):
    def blocks(self) -> list[nn.Module]:
        return list(self.units)[::-1]


class HalfIsTheEnd(Toy):
    half_tap = "map"


class HalfIsNowhere(Toy):
    half_tap = "middle"


class ResizesInPlace(Toy):
    """The table of a view is that of the encoder, and is written to."""

    def set_image_size(self, height: int, width: int) -> None:
        super().set_image_size(height, width)
        self.head.bias.data.add_(1)


class ViewsAreCopies(Toy):
    def at_size(self, height: int, width: int) -> Self:
        view = copy.deepcopy(self)
        view.set_image_size(height, width)
        return view


class ViewsOfViewsDrift(Toy):
    """A table that is resampled from what it was, and views that start from themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.randn(1, 1, 2, 1))

    def dense(self, pixels: Tensor) -> Tensor:
        return super().dense(pixels) + self.row

    def set_image_size(self, height: int, width: int) -> None:
        super().set_image_size(height, width)
        self.row = nn.Parameter(F.interpolate(self.row.data, (height // 4, 1)))

    def at_size(self, height: int, width: int) -> Self:
        view = super().at_size(height, width)
        view._native = None
        return view


def test_an_encoder_that_keeps_the_contract_passes_and_is_left_as_it_was() -> None:
    encoder = Toy()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    check_encoder(encoder)
    assert encoder.image_size == (8, 12)
    assert encoder.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("encoder", "clause"),
    [
        (WrongWidth, r"forward at 8 x 12: the result is \[2, 5\], expected \[2, 7\]"),
        (LeaksAcrossTheBatch, "depends on the rest of the batch"),
        (PoolsAnotherWay, r"project\(mean\(dense\)\) differs from forward"),
        (TransposedDense, r"dense is \[2, 6, 3, 2\], expected \[2, 6, 2, 3\]"),
        (MissesATap, r"pyramid gives \[\], taps declares \['map'\]"),
        (HasAClassToken, r"tokens\(layer=-2\) is \[2, 7, 6\], expected \[2, 6, 6\]"),
        (TakesAnySize, r"set_image_size\(13, 12\) must raise ShapeError"),
        (ScalesBytesItsOwnWay, "uint8 pixels differ from the same pixels normalised"),
        (BlocksOutOfOrder, r"runs them in the order \[1, 0\]"),
        (HalfIsTheEnd, r"half_tap map differs from tokens\(layer=0\)"),
        (HalfIsNowhere, "facts: half_tap is 'middle', taps has map"),
        (ResizesInPlace, "at_size: making a view changes the encoder"),
        (ViewsAreCopies, "at_size: the view has its own patch.weight"),
    ],
)
def test_each_broken_clause_is_named(encoder: type[Toy], clause: str) -> None:
    with pytest.raises(ConformanceError, match=clause):
        check_encoder(encoder())


def test_a_view_that_was_resampled_twice_is_found() -> None:
    assert not any("resampled" in line for line in find_violations(ViewsOfViewsDrift(), other_size=(16, 12)))
    assert any(
        "a resampled table was resampled" in line for line in find_violations(ViewsOfViewsDrift(), other_size=(4, 12))
    )


def test_all_violations_are_listed_together() -> None:
    class Both(WrongWidth, BlocksOutOfOrder):
        pass

    with pytest.raises(ConformanceError) as caught:
        check_encoder(Both())
    assert any("embed" in line or "expected [2, 7]" in line for line in caught.value.violations)
    assert any("order" in line for line in caught.value.violations)
