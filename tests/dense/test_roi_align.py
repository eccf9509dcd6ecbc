"""Pooling over boxes against a loop over samples, written from the published definition."""

import importlib
import math
from typing import Any

import pytest
import torch

from eyesmith.dense import roi_align as module
from eyesmith.dense.roi_align import plane_means, roi_align
from eyesmith.errors import ShapeError


def one_sample(plane: torch.Tensor, y: float, x: float) -> torch.Tensor:
    """plane: [C, H, W]."""
    height, width = plane.shape[1:]
    if y < -1 or y > height or x < -1 or x > width:
        return torch.zeros(plane.shape[0])
    y, x = max(y, 0.0), max(x, 0.0)
    y0, x0 = min(int(y), height - 1), min(int(x), width - 1)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    fy, fx = (0.0 if y0 == height - 1 else y - y0), (0.0 if x0 == width - 1 else x - x0)
    top = plane[:, y0, x0] * (1 - fx) + plane[:, y0, x1] * fx
    return top * (1 - fy) + (plane[:, y1, x0] * (1 - fx) + plane[:, y1, x1] * fx) * fy


def by_loop(features, boxes, images, output, stride, samples=0):
    found = torch.zeros(len(boxes), features.shape[1], *output)
    for roi, (box, image) in enumerate(zip(boxes.tolist(), images.tolist(), strict=True)):
        x0, y0, x1, y1 = (value / stride - 0.5 for value in box)
        bin_h, bin_w = (y1 - y0) / output[0], (x1 - x0) / output[1]
        rows, columns = samples or math.ceil(bin_h), samples or math.ceil(bin_w)
        for i in range(output[0]):
            for j in range(output[1]):
                total = torch.zeros(features.shape[1])
                for a in range(rows):
                    for b in range(columns):
                        y = y0 + (i + (a + 0.5) / rows) * bin_h
                        x = x0 + (j + (b + 0.5) / columns) * bin_w
                        total = total + one_sample(features[image], y, x)
                found[roi, :, i, j] = total / max(rows * columns, 1)
    return found


BOXES = torch.tensor(
    [
        [3.0, 5.0, 40.5, 61.0],
        [0.0, 0.0, 80.0, 96.0],  # all of it
        [-20.0, -9.0, 30.0, 20.0],  # beyond two edges
        [60.0, 70.0, 130.0, 140.0],  # beyond the others
        [10.2, 11.3, 11.2, 12.3],  # a pixel
        [70.0, 90.0, 80.0, 96.0],  # the last cells
        [20.0, 20.0, 20.0, 50.0],  # no width
        [200.0, 200.0, 230.0, 230.0],  # outside
        [17.0, 3.0, 18.5, 90.0],  # thin
    ]
)
IMAGES = torch.tensor([0, 1, 1, 0, 0, 1, 0, 1, 0])


@pytest.mark.parametrize("output", [(7, 7), (1, 1), (14, 14), (2, 5)])
@pytest.mark.parametrize("samples", [0, 2])
def test_it_is_the_loop(output: tuple[int, int], samples: int) -> None:
    features = torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    found = roi_align(features, BOXES, IMAGES, output, stride=8.0, samples=samples)
    expected = by_loop(features, BOXES, IMAGES, output, 8.0, samples)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")  # of torchvision, as it is imported
def test_inside_a_map_it_is_torchvisions() -> None:
    """Its version in Python, which runs beside any torch; outside a map it goes on with the border, ours with 0."""
    from eyesmith.models.foreign.torchvision import ensure_torchvision

    ensure_torchvision()
    theirs: Any = importlib.import_module("torchvision.ops.roi_align")._roi_align
    features = torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    inside = (BOXES[:, :2] >= 0).all(1) & (BOXES[:, 2] <= 80) & (BOXES[:, 3] <= 96)
    boxes, images = BOXES[inside], IMAGES[inside]
    assert len(boxes) > 4
    rois = torch.cat([images[:, None].float(), boxes], 1)
    for size in ((7, 7), (1, 1)):
        with torch.compiler.set_stance("force_eager"):  # it would be compiled for each size, for a minute
            expected = theirs(features, rois, 1 / 8, *size, 0, True)
        torch.testing.assert_close(roi_align(features, boxes, images, size, stride=8.0), expected, atol=1e-5, rtol=1e-5)


def test_parts_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(1))
    for output in ((7, 7), (1, 1)):
        whole = roi_align(features, BOXES, IMAGES, output, stride=8.0)
        monkeypatch.setattr(module, "_HELD", 50)
        torch.testing.assert_close(roi_align(features, BOXES, IMAGES, output, stride=8.0), whole)
        monkeypatch.undo()


@pytest.mark.parametrize("output", [(3, 3), (1, 1)])
def test_the_gradient_is_that_of_the_loop(output: tuple[int, int]) -> None:
    features = torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(2))
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    weight = torch.randn(len(BOXES), 3, *output, generator=torch.Generator().manual_seed(3))
    (roi_align(ours, BOXES, IMAGES, output, stride=8.0) * weight).sum().backward()
    (by_loop(theirs, BOXES, IMAGES, output, 8.0) * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)


def test_one_bin_is_the_mean_of_the_box() -> None:
    """A fixed number of samples would look at four points."""
    features = torch.randn(1, 16, 40, 40, generator=torch.Generator().manual_seed(0))
    box = torch.tensor([[8.0, 16.0, 8.0 + 37 * 8, 16.0 + 33 * 8]])
    mean = features[0, :, 2:35, 1:38].mean((1, 2))
    found = roi_align(features, box, torch.tensor([0]), (1, 1), stride=8.0)[0, :, 0, 0]
    torch.testing.assert_close(found, mean, atol=1e-5, rtol=1e-4)
    four = roi_align(features, box, torch.tensor([0]), (1, 1), stride=8.0, samples=2)[0, :, 0, 0]
    assert float(torch.cosine_similarity(four, mean, dim=0)) < 0.9


def test_none_gives_none_and_wrong_shapes_are_named() -> None:
    features = torch.zeros(1, 4, 3, 3)
    assert roi_align(features, torch.zeros(0, 4), torch.zeros(0).long(), (7, 7), stride=4.0).shape == (0, 4, 7, 7)
    with pytest.raises(ShapeError, match="expected features"):
        roi_align(features, torch.zeros(2, 4), torch.zeros(1).long(), (7, 7), stride=4.0)
    with pytest.raises(ShapeError, match="positive output"):
        roi_align(features, torch.zeros(1, 4), torch.zeros(1).long(), (0, 7), stride=4.0)


def test_planes_of_one_channel_are_averaged_as_maps_are() -> None:
    torch.manual_seed(5)
    planes = torch.rand(4, 17, 23)
    boxes = torch.tensor(
        [[2.0, 3.0, 9.5, 15.0], [-4.0, -2.0, 6.0, 40.0], [10.0, 1.0, 10.5, 1.5], [0.0, 0.0, 23.0, 17.0]]
    )
    wanted = by_loop(planes[:, None], boxes, torch.arange(4), (5, 5), 1.0)[:, 0]
    torch.testing.assert_close(plane_means(planes, boxes, 5), wanted, rtol=1e-5, atol=1e-6)
