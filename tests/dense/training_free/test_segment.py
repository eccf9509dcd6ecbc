"""Segmentation by names against a slow loop of windows and torch's own interpolation."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from eyesmith.dense.training_free.segment import CellScores, SegmentConfig, TrainingFreeSegmenter
from eyesmith.dense.vocabulary import encode_vocabulary
from eyesmith.errors import ConfigError, DataError, ImageError
from eyesmith.eval.heads.score import Link
from eyesmith.models.clip import Clip, ClipConfig


@pytest.fixture
def clip(tiny_model: ClipConfig) -> Clip:
    torch.manual_seed(0)
    clip = tiny_model.build().eval()
    with torch.no_grad():
        for parameter in clip.image.parameters():
            parameter.add_(
                0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    return clip


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def test_scores_equal_a_slow_loop(clip: Clip) -> None:
    vocabulary = encode_vocabulary(clip, [["cat", "kitten"], ["dog"], ["sky"]])
    segmenter = TrainingFreeSegmenter(clip, vocabulary)
    image = picture(96, 64)  # the shorter side is two windows of 32 as it is
    found = segmenter(image)
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None]
    total, count = torch.zeros(32, 4, 6), torch.zeros(4, 6)
    with torch.no_grad():
        for y in range(0, 33, 16):
            for x in range(0, 65, 16):
                total[:, y // 16 : y // 16 + 2, x // 16 : x // 16 + 2] += clip.image.dense(
                    pixels[..., y : y + 32, x : x + 32]
                )[0]
                count[y // 16 : y // 16 + 2, x // 16 : x // 16 + 2] += 1
        cells = F.normalize(clip.image.project((total / count).permute(1, 2, 0)), dim=-1)
        rows = cells @ encode_vocabulary(clip, ["cat", "kitten", "dog", "sky"]).vectors.T
    cosines = torch.stack((rows[..., :2].amax(-1), rows[..., 2], rows[..., 3]))
    torch.testing.assert_close(found.cosines, cosines, atol=1e-5, rtol=1e-4)
    fine = F.interpolate(cosines[None], (64, 96), mode="bilinear", align_corners=False)[0]
    expected = (clip.logit_scale.detach().exp() * fine).softmax(0)
    torch.testing.assert_close(found.scores(), expected, atol=1e-4, rtol=1e-3)
    classes = found.class_map()
    assert torch.equal(classes.labels, found.scores().argmax(0))
    torch.testing.assert_close(classes.scores, found.scores().amax(0))


@pytest.mark.parametrize("size", [(50, 31), (7, 90), (300, 2), (64, 64), (1, 1)])
def test_every_size_of_picture_gets_a_map_of_its_size(clip: Clip, size: tuple[int, int]) -> None:
    segmenter = TrainingFreeSegmenter(clip, encode_vocabulary(clip, ["cat", "dog"]))
    found = segmenter(picture(*size)).class_map()
    assert found.size == (size[1], size[0])
    assert set(found.labels.unique().tolist()) <= {0, 1}
    shown = segmenter.shown_size((size[1], size[0]))
    assert min(shown) <= 64
    assert max(shown) <= 6 * 32


def test_padding_is_cut_and_cells_lie_where_their_pixels_are() -> None:
    cosines = torch.zeros(2, 1, 4)
    cosines[1, 0, 2] = 1.0
    found = CellScores(cosines=cosines, names=("a", "b"), size=(3, 38), cell_px=(10.0, 10.0), link=Link(scale=10.0))
    row = found.scores()[1, 1]
    assert int(row.argmax()) in (24, 25)  # the middle of the third cell
    below = F.interpolate(cosines[1][None], (40,), mode="linear", align_corners=False)[0, 0, :38]
    torch.testing.assert_close(row, (10 * below).sigmoid(), atol=1e-5, rtol=1e-4)


def test_a_whole_picture_at_once_and_another_vocabulary(clip: Clip) -> None:
    segmenter = TrainingFreeSegmenter(
        clip, encode_vocabulary(clip, ["cat", "dog"]), SegmentConfig(sliding=False, threshold=0.99)
    )
    image = picture(96, 64)
    found = segmenter(image)
    with torch.no_grad():
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None]
        view = clip.image.at_size(64, 96)
        cells = F.normalize(view.project(view.dense(pixels).permute(0, 2, 3, 1)), dim=-1)[0]
    torch.testing.assert_close(found.cosines, segmenter.vocabulary.scores(cells).permute(2, 0, 1), atol=1e-5, rtol=1e-4)
    classes = found.class_map()
    assert bool((classes.labels[classes.scores < 0.99] == -1).all())
    segmenter.vocabulary = encode_vocabulary(clip, ["sea", "sky", "sand"])
    assert segmenter(image).scores().shape == (3, 64, 96)


def test_a_huge_picture_is_done_in_strips(clip: Clip) -> None:
    cosines = torch.randn(500, 4, 4, generator=torch.Generator().manual_seed(0))
    found = CellScores(
        cosines=cosines,
        names=tuple(map(str, range(500))),
        size=(2000, 2000),
        cell_px=(500.0, 500.0),
        link=Link(scale=1.0),
    )
    with pytest.raises(DataError, match=r"500 classes for 2000 x 2000 pixels are 7.5 GiB; take class_map"):
        found.scores()


def test_wrong_settings_and_pictures_are_refused(clip: Clip) -> None:
    for wrong in ({"short_side": 0}, {"short_side": 7}, {"overlap": 1.0}, {"threshold": 2}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            SegmentConfig(**wrong)
    segmenter = TrainingFreeSegmenter(clip, encode_vocabulary(clip, ["cat", "dog"]))
    with pytest.raises(ImageError):
        segmenter(b"no picture")
