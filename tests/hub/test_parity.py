import math

import torch

from eyesmith.hub.parity import TEXTS, compare, sample_images


def test_the_pictures_are_real_and_of_several_modes() -> None:
    images = sample_images()
    assert len(images) >= 7
    assert {image.mode for image in images} >= {"RGB", "RGBA"}
    assert max(image.width for image in images) > 500  # the photo
    assert len(set(TEXTS)) == len(TEXTS)


def test_the_largest_difference_of_unit_rows() -> None:
    left = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    row = compare(left, torch.tensor([[6.0, 8.0], [0.0, 2.0]]), peer="p", part="image", bound=0.5)
    assert row.difference == 1.0
    assert not row.ok
    assert row.cells() == ("p", "image", "2", "1.0e+00", "5e-01", "NO")
    assert compare(left, left * 7, peer="p", part="image", bound=1e-6).ok


def test_nothing_to_compare_and_numbers_that_are_none_are_never_ok() -> None:
    rows = torch.tensor([[1.0, math.nan]])
    for left, right in ((rows, rows), (torch.ones(1, 2), torch.ones(2, 2)), (torch.ones(0, 2), torch.ones(0, 2))):
        row = compare(left, right, peer="p", part="text", bound=None)
        assert not row.ok
        assert row.as_dict()["difference"] is None
