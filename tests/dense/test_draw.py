"""Pictures of results: what is where on them, not how pretty they are (that was looked at)."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from eyesmith.dense.draw import colour_of, draw_classes, draw_objects, widest_place
from eyesmith.dense.result import ClassMap, FoundObjects


def found(size: tuple[int, int], boxes: list[list[float]], *, with_masks: bool) -> FoundObjects:
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[int(y0) : int(y1), int(x0) : int(x1)] = True
    return FoundObjects(
        boxes_px=torch.tensor(boxes).view(-1, 4),
        scores=torch.linspace(0.9, 0.5, len(boxes)),
        labels=torch.arange(len(boxes)),
        names=tuple(f"thing {place}" for place in range(len(boxes))),
        size=size,
        masks=masks if with_masks else None,
    )


def test_masks_are_tinted_where_they_are_and_nowhere_else() -> None:
    picture = Image.new("RGB", (60, 40), "white")
    drawn = np.asarray(draw_objects(picture, found((40, 60), [[10, 20, 30, 35]], with_masks=True)))
    assert drawn.shape == (640, 960, 3)  # 16 times as large
    inside = drawn[30 * 16, 20 * 16].astype(float)
    np.testing.assert_allclose(inside, 0.6 * 255 + 0.4 * np.array(colour_of(0)), atol=1)
    assert drawn[30 * 16, 10 * 16 + 1].tolist() == list(colour_of(0))  # its border
    assert drawn[5 * 16, 50 * 16].tolist() == [255, 255, 255]
    assert not (drawn[20 * 16 - 24 : 20 * 16 - 2, 10 * 16 : 10 * 16 + 80] == 255).all()  # the name above the box


def test_boxes_without_masks_leave_the_inside_alone() -> None:
    picture = Image.new("RGB", (1000, 500), (10, 200, 90))
    drawn = np.asarray(
        draw_objects(picture, found((500, 1000), [[100, 100, 400, 300], [0, 0, 5, 5]], with_masks=False))
    )
    assert drawn.shape == (500, 1000, 3)
    assert drawn[200, 250].tolist() == [10, 200, 90]
    assert drawn[200, 100].tolist() == list(colour_of(0))


def test_names_do_not_cover_each_other() -> None:
    boxes = [[10.0, 10, 30, 30], [11, 10, 30, 30], [10, 11, 31, 30]]
    one = np.asarray(draw_objects(Image.new("RGB", (60, 40)), found((40, 60), boxes, with_masks=False)))
    for label in range(3):  # each name's own patch of colour is there
        assert int((one == colour_of(label)).all(-1).sum()) > 500


@pytest.mark.parametrize(("size", "mode"), [((1, 1), "L"), ((3, 2000), "RGB"), ((5000, 20), "RGBA"), ((40, 60), "P")])
def test_every_picture_can_be_drawn_on(size: tuple[int, int], mode: str) -> None:
    picture = Image.new(mode, (size[1], size[0]))
    box = [[0.0, 0, float(size[1]), float(size[0])]]
    for with_masks in (True, False):
        assert draw_objects(picture, found(size, box, with_masks=with_masks)).mode == "RGB"
        assert draw_objects(picture, found(size, [], with_masks=with_masks)).mode == "RGB"
    labels = torch.zeros(size, dtype=torch.int64)
    labels[: size[0] // 2] = -1
    drawn = draw_classes(picture, ClassMap(labels=labels, scores=torch.ones(size), names=("sea",)))
    assert drawn.height > drawn.width * size[0] // size[1]  # a legend below


def test_a_name_stands_where_its_region_is_widest() -> None:
    mask = np.zeros((90, 120), np.bool_)
    mask[40:42, :] = True
    mask[20:70, 60:110] = True
    y, x = widest_place(mask)
    assert abs(y - 45) < 6
    assert abs(x - 85) < 6
    thin = np.zeros((500, 500), np.bool_)
    thin[3, 7] = True
    assert widest_place(thin) == (3, 7)


def test_colours_differ() -> None:
    colours = [colour_of(label) for label in range(300)]
    assert len(set(colours)) == 300
    assert all(sum(abs(a - b) for a, b in zip(*pair, strict=True)) > 60 for pair in itertools.pairwise(colours))
