"""Sliding windows against a slow loop of one window at a time, and against the published geometry."""

import pytest
import torch
from torch import Tensor

from eyesmith.dense.sliding import PositionMaps, SlidingEncoder, pad_pixels, valid_cells, window_starts
from eyesmith.errors import ConfigError, ShapeError
from eyesmith.models import create_encoder
from eyesmith.models.encoder import Encoder
from eyesmith.models.vitamin import ViTaminConfig

TINY = ViTaminConfig(image_size=(48, 48), widths=(8, 16, 32), depths=(1, 1, 2), num_heads=2, embed_dim=16)


def make(name: str = "") -> Encoder:
    torch.manual_seed(0)
    encoder = (create_encoder(name) if name else TINY.build()).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():  # tables that start at nearly zero would hide a wrong place
            drawn = torch.Generator().manual_seed(parameter.numel())
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=drawn))
    return encoder


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def slow(encoder: Encoder, pixels: Tensor, stride: int) -> dict[str, Tensor]:
    """One window of one picture at a time, pasted by floor division, sum and count maps in float64."""
    (wh, ww), (height, width) = encoder.image_size, pixels.shape[2:]
    found = {}
    for name, tap in encoder.taps.items():
        cells = (height // tap.stride, width // tap.stride)
        total = torch.zeros(len(pixels), tap.channels, *cells, dtype=torch.float64)
        count = torch.zeros(cells, dtype=torch.float64)
        ys = list(range(0, height - wh + 1, stride))
        xs = list(range(0, width - ww + 1, stride))
        ys += [height - wh] if ys[-1] + wh < height else []
        xs += [width - ww] if xs[-1] + ww < width else []
        for y in ys:
            for x in xs:
                place = (
                    slice(y // tap.stride, y // tap.stride + wh // tap.stride),
                    slice(x // tap.stride, x // tap.stride + ww // tap.stride),
                )
                count[place] += 1
                for i in range(len(pixels)):
                    one = encoder.pyramid(pixels[i : i + 1, :, y : y + wh, x : x + ww])[name][0]
                    total[i, :, place[0], place[1]] += one
        found[name] = total / count.clamp_min(1)
    return found


@pytest.mark.parametrize(
    ("size", "stride", "at_once"), [((80, 112), 16, 7), ((96, 96), 32, 32), ((64, 80), 48, 1), ((96, 80), 40, 3)]
)
def test_maps_equal_a_slow_loop(size: tuple[int, int], stride: int, at_once: int) -> None:
    encoder = make()
    sliding = SlidingEncoder(encoder, size, stride=stride, windows_at_once=at_once, off_grid=stride % 16 != 0)
    pixels = noise(2, 3, *size)
    expected, found = slow(encoder, pixels, stride), sliding.pyramid(pixels)
    assert list(found) == list(encoder.taps)
    for name in encoder.taps:
        torch.testing.assert_close(found[name].double(), expected[name], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(sliding.dense(pixels), found["stage3"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(sliding(pixels), encoder.project(found["stage3"].mean((2, 3))), atol=1e-4, rtol=1e-4)
    tokens = sliding.tokens(pixels, -1)
    torch.testing.assert_close(tokens, found["stage3"].flatten(2).mT, atol=1e-5, rtol=1e-4)


def test_one_window_is_the_encoder_and_a_constant_picture_gives_one_window_repeated() -> None:
    encoder = make()
    pixels = noise(2, 3, 48, 48)
    sliding = SlidingEncoder(encoder, (48, 48))
    assert sliding.num_windows == 1
    with torch.no_grad():
        assert torch.equal(sliding.dense(pixels), encoder.dense(pixels))
        torch.testing.assert_close(sliding(pixels), encoder(pixels), atol=1e-5, rtol=1e-4)
        tiled = SlidingEncoder(encoder, (96, 144), stride=48)
        grey = torch.full((1, 3, 96, 144), 90, dtype=torch.uint8)
        one = encoder.pyramid(grey[..., :48, :48])
        for name, found in tiled.pyramid(grey).items():
            torch.testing.assert_close(found, one[name].repeat(1, 1, 2, 3), atol=1e-5, rtol=1e-4)


def test_windows_of_the_published_systems() -> None:
    def count(size: int, window: int, stride: int) -> int:
        return len(window_starts(size, window, stride)) ** 2

    assert window_starts(896, 336, 168) == [0, 168, 336, 504, 560]
    assert [count(896, 336, stride) for stride in (168, 160, 176)] == [25, 25, 25]
    assert count(896, 384, 192) == 16
    assert count(1344, 336, 336) == 16
    assert count(1344, 336, 112) == 100
    for stride in (160, 176):
        assert all(start % 16 == 0 for start in window_starts(896, 336, stride))
    assert [start for start in window_starts(896, 336, 168) if start % 16] == [168, 504]


def test_half_a_cell_off_the_grid_is_the_references_and_must_be_asked_for() -> None:
    encoder = make()
    with pytest.raises(ConfigError, match=r"no multiple of the encoder's 16.*take 16 or 32, or off_grid=True"):
        SlidingEncoder(encoder, (96, 96), stride=24)
    off = SlidingEncoder(encoder, (96, 96), stride=24, off_grid=True)
    on = SlidingEncoder(encoder, (96, 96), stride=16)
    pixels = noise(1, 3, 96, 96)
    torch.testing.assert_close(off.dense(pixels).double(), slow(encoder, pixels, 24)["stage3"], atol=2e-5, rtol=1e-4)
    assert not torch.allclose(off.dense(pixels), on.dense(pixels), atol=1e-2)
    assert on.identity() != off.identity() != SlidingEncoder(encoder, (96, 112), stride=24, off_grid=True).identity()


def test_the_default_is_half_a_window_on_the_grid_and_other_windows_resample_the_native_table() -> None:
    encoder = make()
    assert SlidingEncoder(encoder, (96, 96)).window_stride == (16, 16)  # half is 24, which is off
    wide = SlidingEncoder(encoder, (96, 96), window=(64, 96))
    assert wide.window_stride == (32, 48)
    assert wide.starts == [(0, 0), (32, 0)]
    pixels = noise(1, 3, 96, 96)
    torch.testing.assert_close(
        wide.dense(pixels).double(), slow(encoder.at_size(64, 96), pixels, 32)["stage3"], atol=2e-5, rtol=1e-4
    )
    larger = SlidingEncoder(encoder, (96, 96)).at_size(112, 96)
    assert (larger.image_size, larger.window) == ((112, 96), (48, 48))
    assert SlidingEncoder(larger, (64, 64)).window == (48, 48)


def test_a_class_token_encoder_is_pooled_over_its_windows() -> None:
    encoder = make("trv_nano_48")
    sliding = SlidingEncoder(encoder, (48, 72), stride=24, windows_at_once=2)
    pixels = noise(3, 3, 48, 72)
    with torch.no_grad():
        windows = [encoder(pixels[..., x : x + 48]) for x in (0, 24)]
    torch.testing.assert_close(sliding(pixels), torch.stack(windows).mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        sliding.pyramid(pixels, ["block3"])["block3"].double(),
        slow(encoder, pixels, 24)["block3"],
        atol=2e-5,
        rtol=1e-4,
    )


def test_pictures_are_padded_with_the_mean_colour_and_the_valid_part_is_told() -> None:
    pixels = noise(3, 40, 50)
    padded = pad_pixels(pixels, (48, 64), (0.5, 0.25, 0.0))
    assert padded.shape == (3, 48, 64)
    assert torch.equal(padded[:, :40, :50], pixels)
    assert padded[:, 40:].flatten(1).unique(dim=1).tolist() == [[127], [63], [0]]
    assert padded[:, :, 50:].flatten(1).unique(dim=1).tolist() == [[127], [63], [0]]
    assert bool((pad_pixels(pixels.float(), (48, 64), (0.5, 0.5, 0.5))[:, 40:] == 0).all())
    with pytest.raises(ShapeError, match="do not fit"):
        pad_pixels(pixels, (48, 48), (0.5, 0.5, 0.5))
    cells = valid_cells((40, 50), (48, 64), 16)
    assert cells.tolist() == [[True] * 4, [True] * 4, [True] * 4]
    assert valid_cells((32, 33), (48, 64), 16).tolist() == [[True] * 3 + [False]] * 2 + [[False] * 4]


def test_position_maps_start_at_nothing_stretch_to_any_size_and_learn() -> None:
    encoder = make()
    sliding = SlidingEncoder(encoder, (96, 96), stride=48)
    positions = PositionMaps(sliding.taps, grid=(4, 4))
    maps = sliding.pyramid(noise(1, 3, 96, 96))
    for name, found in positions(maps).items():
        assert torch.equal(found, maps[name])
    sum(found.sum() for found in positions(maps).values()).backward()
    for parameter in positions.parameters():
        assert parameter.grad is not None
        assert bool((parameter.grad != 0).all())
    with torch.no_grad():
        positions.maps["stage3"].copy_(torch.arange(16.0).view(1, 1, 4, 4))
    placed = positions(maps)["stage3"].detach() - maps["stage3"]
    assert placed.shape[-2:] == (6, 6)
    assert float(placed[0, 0, 0, 0]) < float(placed[0, 0, 0, 5]) < float(placed[0, 0, 5, 5])
    assert sum(p.numel() for p in positions.parameters()) == 16 * sum(tap.channels for tap in sliding.taps.values())


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        ((40, 96), {}, "height of at least the window's 48 px"),
        ((96, 100), {}, "width .* in multiples of 16, got 100"),
        ((96, 96), {"stride": 64}, "windows would leave gaps"),
        ((96, 96), {"stride": 0}, "expected 1 to the window's 48"),
        ((96, 96), {"windows_at_once": 0}, "windows_at_once"),
    ],
)
def test_what_does_not_fit_is_refused(size: tuple[int, int], options: dict, message: str) -> None:
    with pytest.raises((ShapeError, ConfigError), match=message):
        SlidingEncoder(make(), size, **options)


def test_pixels_of_another_size_are_refused() -> None:
    sliding = SlidingEncoder(make(), (96, 96))
    with pytest.raises(ShapeError, match=r"expected \[B, 3, 96, 96\], got \[1, 3, 48, 48\]"):
        sliding.dense(noise(1, 3, 48, 48))
