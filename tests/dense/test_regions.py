"""Boxes of maps and boxes cut out, against loops over cells and over Pillow's crops."""

import numpy as np
import pytest
import torch
from PIL import Image

from eyesmith.dense.regions import box_means, crop_boxes
from eyesmith.errors import ShapeError


def test_box_means_weigh_cells_by_the_share_inside():
    features = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor(
        [[3.0, 1.0, 30.0, 25.0], [8.0, 8.0, 16.0, 16.0], [0.0, 0.0, 40.0, 32.0], [33.5, 2.0, 39.0, 3.0]]
    )
    images = torch.tensor([1, 0, 1, 0])
    found = box_means(features, boxes, images, stride=8)
    for row, (box, image) in enumerate(zip(boxes.tolist(), images.tolist(), strict=True)):
        total, weight = torch.zeros(3), 0.0
        for y in range(4):
            for x in range(5):
                wide = max(0.0, min(box[2], 8 * x + 8) - max(box[0], 8 * x))
                high = max(0.0, min(box[3], 8 * y + 8) - max(box[1], 8 * y))
                total += wide * high * features[image, :, y, x]
                weight += wide * high
        torch.testing.assert_close(found[row], total / weight)
    torch.testing.assert_close(found[2], features[1].mean(dim=(1, 2)))


def test_box_means_carry_gradients_to_the_cells_inside_alone():
    features = torch.zeros(1, 2, 3, 3, requires_grad=True)
    box_means(features, torch.tensor([[8.0, 0.0, 16.0, 8.0]]), torch.tensor([0]), stride=8).sum().backward()
    wanted = torch.zeros(1, 2, 3, 3)
    wanted[:, :, 0, 1] = 1
    assert features.grad is not None
    torch.testing.assert_close(features.grad, wanted)


def test_boxes_that_do_not_fit_are_named():
    features = torch.zeros(1, 2, 3, 3)
    with pytest.raises(ShapeError, match="holds nothing of a map of 3 x 3"):
        box_means(features, torch.tensor([[30.0, 0.0, 40.0, 8.0]]), torch.tensor([0]), stride=8)
    with pytest.raises(ShapeError, match=r"expected \[R, 4\]"):
        box_means(features, torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), stride=8)
    with pytest.raises(ShapeError, match=r"expected \[R, 4\]"):
        crop_boxes(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, 4), torch.zeros(1), (8, 8))


def test_a_square_of_the_size_asked_for_is_cut_out_unchanged():
    pixels = torch.randint(0, 256, (2, 3, 32, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    boxes = torch.tensor([[4.0, 6.0, 20.0, 22.0], [20.0, 10.0, 36.0, 26.0]])
    found = crop_boxes(pixels, boxes, torch.tensor([1, 0]), (16, 16), context=1.0)
    assert torch.equal(found[0], pixels[1, :, 6:22, 4:20])
    assert torch.equal(found[1], pixels[0, :, 10:26, 20:36])


def test_a_crop_is_the_square_around_the_box_and_goes_on_at_the_edge():
    side = np.linspace(0, 255, 64).astype(np.uint8)
    image = np.stack([np.tile(side, (64, 1)), np.tile(side[:, None], (1, 64)), np.full((64, 64), 90, np.uint8)], -1)
    box = (10.0, 20.0, 50.0, 30.0)  # 40 wide, 10 high: a square of 44 about 30, 25
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())[None]
    found = crop_boxes(pixels, torch.tensor([box]), torch.tensor([0]), (16, 16), context=1.1)[0]
    wanted = Image.fromarray(image).resize((16, 16), Image.Resampling.BOX, box=(8, 3, 52, 47))
    assert np.abs(found.permute(1, 2, 0).numpy().astype(int) - np.asarray(wanted).astype(int)).max() <= 3
    outside = crop_boxes(pixels, torch.tensor([[0.0, 0.0, 8.0, 64.0]]), torch.tensor([0]), (8, 8), context=1.0)[0]
    assert outside[0, :, 0].tolist() == [0] * 8  # left of the picture its edge goes on
    assert crop_boxes(pixels, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), (8, 8)).shape == (0, 3, 8, 8)
