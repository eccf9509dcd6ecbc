import colorsys
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from eyesmith.errors import ConfigError, ShapeError
from eyesmith.images.augment import AugmentConfig, _low_bits, augment_batch, color_matrices, view_matrices

_EVERYTHING = AugmentConfig(
    scale=(0.4, 1.2),
    ratio=(0.75, 4 / 3),
    rotation_degrees=20,
    shear_degrees=10,
    translate_frac=0.1,
    horizontal_flip_prob=0.5,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    grayscale_prob=0.2,
    erase_prob=0.3,
    outline_prob=0.5,
    fill="white",
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _batch(natural, num: int, height: int, width: int) -> Tensor:
    pictures = [np.asarray(natural(height, width, seed)) for seed in range(num)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def test_without_changes_it_is_an_antialiased_resize_of_the_middle(natural) -> None:
    batch = _batch(natural, 2, 60, 90)
    views = augment_batch(batch, AugmentConfig(), (40, 40), _generator())
    assert views.dtype == torch.uint8
    for view, picture in zip(views, batch, strict=True):
        image = Image.fromarray(picture.permute(1, 2, 0).numpy()).crop((15, 0, 75, 60))
        expected = torch.from_numpy(np.array(image.resize((40, 40), Image.Resampling.BICUBIC))).permute(2, 0, 1)
        assert (view.int() - expected.int()).abs().max() <= 1


def test_without_changes_and_at_the_same_size_pixels_are_untouched(natural) -> None:
    batch = _batch(natural, 2, 24, 32)
    assert torch.equal(augment_batch(batch, AugmentConfig(), (24, 32), _generator()), batch)
    moved = AugmentConfig(translate_frac=1e-9)  # through the grid, which then lies on the pixels
    assert torch.equal(augment_batch(batch, moved, (24, 32), _generator()), batch)


def test_equal_generators_give_equal_views(natural) -> None:
    batch = _batch(natural, 3, 72, 72)
    first = augment_batch(batch, _EVERYTHING, (48, 48), _generator(3))
    assert first.shape == (3, 3, 48, 48)
    assert torch.equal(first, augment_batch(batch, _EVERYTHING, (48, 48), _generator(3)))
    channels_last = batch.contiguous(memory_format=torch.channels_last)
    assert torch.equal(first, augment_batch(channels_last, _EVERYTHING, (48, 48), _generator(3)))
    assert not torch.equal(first, augment_batch(batch, _EVERYTHING, (48, 48), _generator(4)))
    one_by_one = _generator(3)
    for i in range(3):  # a sample's draws do not depend on its neighbours
        alone = augment_batch(batch[i : i + 1], _EVERYTHING, (48, 48), one_by_one)
        assert (alone[0].int() - first[i].int()).abs().max() <= 1


def test_every_config_takes_the_same_draws(natural) -> None:
    batch = _batch(natural, 2, 16, 16)
    after = []
    for config in (AugmentConfig(), _EVERYTHING, AugmentConfig(hue=0.2)):
        generator = _generator()
        augment_batch(batch, config, (8, 8), generator)
        after.append(torch.rand(1, generator=generator).item())
    assert after[0] == after[1] == after[2]


def test_the_callers_pixels_are_not_written(natural) -> None:
    batch = _batch(natural, 2, 48, 48)
    before = batch.clone()
    augment_batch(batch, _EVERYTHING, (48, 48), _generator())
    augment_batch(batch, AugmentConfig(brightness=0.5, erase_prob=1.0), (48, 48), _generator())
    assert torch.equal(batch, before)


def test_a_flip_mirrors(natural) -> None:
    batch = _batch(natural, 2, 32, 32)
    views = augment_batch(batch, AugmentConfig(horizontal_flip_prob=1.0), (32, 32), _generator())
    assert torch.equal(views, batch.flip(-1))


def test_a_crop_is_the_part_its_matrix_names(natural) -> None:
    config, generator = AugmentConfig(scale=(0.25, 0.25)), _generator()
    batch = _batch(natural, 6, 64, 64)
    views = augment_batch(batch, config, (32, 32), generator)
    matrices = view_matrices(torch.rand(6, 18, generator=_generator())[:, :8], config, (64, 64), (32, 32))
    for view, picture, matrix in zip(views, batch, matrices, strict=True):
        torch.testing.assert_close(matrix[:, :2], torch.eye(2), atol=1e-6, rtol=0)  # 32 of 64 px as 32 px
        x, y = (matrix[:, 2] + 16).tolist()
        assert 0 <= min(x, y) <= max(x, y) <= 32
        box = (x, y, x + 32, y + 32)
        image = Image.fromarray(picture.permute(1, 2, 0).numpy())
        shifted = image.transform((32, 32), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
        inside = (view.permute(1, 2, 0).int() - torch.from_numpy(np.array(shifted)).int())[1:-1, 1:-1].abs()
        assert inside.max() <= 2


def test_matrices_rotate_scale_and_shear_in_pixels() -> None:
    middle = torch.full((1, 8), 0.5)
    for in_size, out_size, step in (((80, 80), (40, 40), 2), ((80, 120), (40, 40), 2), ((30, 60), (40, 80), 0.75)):
        plain = view_matrices(middle, AugmentConfig(), in_size, out_size)
        torch.testing.assert_close(plain, torch.tensor([[[step, 0, 0], [0, step, 0.0]]]))
    draws = middle.clone()
    draws[0, 2] = 1.0
    turned = view_matrices(draws, AugmentConfig(rotation_degrees=90), (40, 80), (40, 80))[0]
    torch.testing.assert_close(turned[:, :2] @ torch.tensor([3.0, 1.0]), torch.tensor([-1.0, 3.0]))
    draws = middle.clone()
    draws[0, 3] = 1.0
    sheared = view_matrices(draws, AugmentConfig(shear_degrees=45), (40, 40), (40, 40))[0]
    torch.testing.assert_close(sheared[:, :2] @ torch.tensor([3.0, 1.0]), torch.tensor([4.0, 1.0]))
    draws = torch.zeros(1, 8)
    cropped = view_matrices(draws, AugmentConfig(scale=(0.25, 1)), (40, 40), (40, 40))[0]
    torch.testing.assert_close(cropped, torch.tensor([[0.5, 0, -10], [0, 0.5, -10]]))


def test_what_lies_outside_is_filled() -> None:
    black = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    for fill, level in (("white", 255), ("border", 0)):
        config = AugmentConfig(scale=(4.0, 4.0), fill=fill)
        views = augment_batch(black, config, (32, 32), _generator())
        assert (views == level).float().mean() >= 0.7
        assert (views == 0).float().mean() >= 0.2


@pytest.mark.parametrize(("in_px", "bound_db"), [(72, 30), (96, 28), (130, 27), (300, 27)])
def test_shrinking_does_not_alias(natural, in_px: int, bound_db: float) -> None:
    batch = _batch(natural, 3, in_px, in_px)
    views = augment_batch(batch, AugmentConfig(translate_frac=1e-9), (48, 48), _generator())
    smooth = augment_batch(batch, AugmentConfig(), (48, 48), _generator())
    error = (views.float() - smooth.float()).square().mean()
    assert 10 * math.log10(255**2 / error) > bound_db


def test_color_matrices_are_brightness_contrast_saturation() -> None:
    luma = torch.tensor([0.299, 0.587, 0.114])
    color, mean = torch.tensor([[200.0, 50.0, 10.0]]), torch.tensor([90.0])
    draws = torch.tensor([[1.0, 0.0, 1.0, 0.5, 1.0]])
    config = AugmentConfig(brightness=0.2, contrast=0.5, saturation=0.3)
    matrix, offset = color_matrices(draws, config, mean)
    expected = color * 1.2
    expected = 0.5 * expected + 0.5 * 1.2 * mean
    gray = (expected @ luma)[:, None]
    expected = 1.3 * expected - 0.3 * gray
    torch.testing.assert_close((matrix @ color[..., None])[..., 0] + offset[:, None], expected)


def test_hue_turns_the_color_and_keeps_luma_and_grey() -> None:
    draws = torch.tensor([[0.5, 0.5, 0.5, 1.0, 1.0]])
    matrix, _ = color_matrices(draws, AugmentConfig(hue=1 / 3), torch.zeros(1))
    luma = torch.tensor([0.299, 0.587, 0.114])
    torch.testing.assert_close(luma @ matrix[0], luma, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(matrix[0] @ torch.ones(3), torch.ones(3), atol=1e-4, rtol=0)
    red = torch.tensor([150.0, 90.0, 90.0])
    before, after = (colorsys.rgb_to_hsv(*color.tolist())[0] for color in (red, matrix[0] @ red))
    assert abs((after - before) % 1 - 1 / 3) < 0.06 or abs((before - after) % 1 - 1 / 3) < 0.06


def test_grayscale_and_neutral_colors(natural) -> None:
    batch = _batch(natural, 4, 24, 24)
    gray = augment_batch(batch, AugmentConfig(grayscale_prob=1.0, hue=0.3), (24, 24), _generator())
    assert (gray - gray[:, :1]).int().abs().max() == 0
    luma = (batch.float() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1)
    assert (gray[:, 0].float() - luma).abs().max() <= 0.6
    assert torch.equal(augment_batch(batch, AugmentConfig(hue=1e-6), (24, 24), _generator()), batch)


def test_erasing_covers_the_stated_share() -> None:
    white = torch.full((400, 3, 40, 50), 255, dtype=torch.uint8)
    views = augment_batch(white, AugmentConfig(erase_prob=0.5, erase_scale=(0.1, 0.3)), (40, 50), _generator())
    shares = (views != 255).all(1).float().mean((1, 2))
    hit = shares > 0
    assert 0.4 < hit.float().mean() < 0.6
    assert shares[hit].min() > 0.08
    assert shares[hit].max() < 0.32
    erased = views.permute(0, 2, 3, 1)[(views != 255).all(1)]
    assert erased.unique(dim=0).tolist() == [[123, 117, 104]]


def test_an_outline_darkens_where_colours_lie_apart(natural) -> None:
    batch = _batch(natural, 40, 20, 24)
    batch[:, :, :, 12:] = torch.tensor([200, 180, 40], dtype=torch.uint8).view(1, 3, 1, 1)  # flat: nothing to outline
    views = augment_batch(batch, AugmentConfig(outline_prob=0.5), (20, 24), _generator())
    hit = whole = 0
    for view, picture in zip(views.numpy().astype(float), batch.numpy().astype(float), strict=True):
        edge = np.zeros((20, 24))
        for y in range(20):
            for x in range(24):
                near = picture[:, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                edge[y, x] = max(channel.max() - channel.min() for channel in near)
        assert np.array_equal(view[:, :, 13:], picture[:, :, 13:])
        assert np.array_equal(view[:, edge < 30], picture[:, edge < 30])
        if np.array_equal(view, picture):
            continue
        hit += 1
        full = (edge > 160) & (picture.min(0) > 20)  # above every threshold: all of the line's darkness
        if full.any():
            whole += 1
            left = (view[:, full] / picture[:, full]).ravel()
            assert left.max() <= 0.53
            assert np.ptp(left) < 0.06  # of one picture the same everywhere, but for rounding
    assert 10 < hit < 30
    assert whole > 3


def test_an_outline_leaves_all_other_draws_as_they_were(natural) -> None:
    flat = torch.full((60, 3, 24, 24), 255, dtype=torch.uint8)
    erased = AugmentConfig(erase_prob=0.5)
    views = augment_batch(flat, erased, (24, 24), _generator())
    assert torch.equal(augment_batch(flat, replace(erased, outline_prob=1.0), (24, 24), _generator()), views)
    draws = torch.rand(100_000, 2, generator=_generator())
    low = _low_bits(draws)
    assert abs(low.mean() - 0.5) < 0.01
    assert torch.corrcoef(torch.cat((draws, low), dim=1).T).fill_diagonal_(0).abs().max() < 0.02


def test_an_empty_batch_gives_an_empty_batch() -> None:
    empty = torch.zeros(0, 3, 8, 8, dtype=torch.uint8)
    assert augment_batch(empty, _EVERYTHING, (4, 5), _generator()).shape == (0, 3, 4, 5)


def test_one_pixel_pictures_are_augmented() -> None:
    white = torch.full((3, 3, 1, 1), 255, dtype=torch.uint8)
    assert (augment_batch(white, AugmentConfig(scale=(0.5, 1.0)), (16, 8), _generator()) == 255).all()
    assert (augment_batch(white, AugmentConfig(), (16, 8), _generator()) == 255).all()


def test_other_pixels_and_sizes_are_refused() -> None:
    for shape, dtype in (((3, 8, 8), torch.uint8), ((1, 4, 8, 8), torch.uint8), ((1, 3, 8, 8), torch.float32)):
        with pytest.raises(ShapeError, match="pixels"):
            augment_batch(torch.zeros(shape, dtype=dtype), AugmentConfig(), (8, 8), _generator())
    with pytest.raises(ShapeError, match="out_size"):
        augment_batch(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), AugmentConfig(), (0, 8), _generator())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scale", (0.0, 1.0)),
        ("ratio", (2.0, 1.0)),
        ("erase_scale", (0.1, 1.5)),
        ("erase_prob", 1.5),
        ("outline_prob", -0.1),
        ("brightness", -0.1),
        ("hue", 0.6),
        ("shear_degrees", 75.0),
        ("fill", "black"),
    ],
)
def test_a_config_without_sense_is_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        AugmentConfig(**{field: value})


@pytest.mark.gpu
def test_a_gpu_gives_the_same_views(natural) -> None:
    batch = _batch(natural, 4, 72, 72)
    here = augment_batch(batch, _EVERYTHING, (48, 48), _generator())
    there = augment_batch(batch.cuda(), _EVERYTHING, (48, 48), _generator()).cpu()
    assert (here.int() - there.int()).abs().float().mean() < 0.1
