"""Objects without training, on a model whose answers are known: cells that see their own colour."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from eyesmith.dense.training_free import BoxFinder, RegionFinder, TrainingFreeSegmenter
from eyesmith.dense.vocabulary import Vocabulary
from eyesmith.errors import ConfigError
from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.encoder import Encoder, Tap

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}


class ColourEye(Encoder):
    """Cells of 4 px, 16 px pictures; a feature is the mean colour."""

    def __init__(self, image_size: tuple[int, int] = (16, 16)) -> None:
        super().__init__()
        self.image_size = image_size
        self.mean, self.std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
        self.stride, self.embed_dim, self.taps = 4, 3, {"only": Tap(4, 3)}
        self.weight = nn.Parameter(torch.eye(3))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.project(self.dense(pixels).mean((2, 3)))

    def pyramid(self, pixels: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        return {name: self.dense(pixels) for name in self.check_taps(taps)}

    def dense(self, pixels: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(self.prepare(pixels), 4)

    def project(self, vectors: Tensor) -> Tensor:
        return vectors @ self.weight

    def tokens(self, pixels: Tensor, layer: int = -2) -> Tensor:
        return self.dense(pixels).flatten(2).mT

    def set_image_size(self, height: int, width: int) -> None:
        self.check_size(height, width)
        self.image_size = (height, width)

    def blocks(self) -> list[nn.Module]:
        return []


@pytest.fixture
def clip(tiny_model: ClipConfig) -> Clip:
    clip = tiny_model.build().eval()
    clip.image = ColourEye()
    clip.preprocess = PreprocessConfig(image_size=(16, 16), mean=clip.image.mean, std=clip.image.std)
    return clip


@pytest.fixture
def vocabulary() -> Vocabulary:
    colours = (torch.tensor(list(COLOURS.values())) / 255 - 0.5) / 0.5
    return Vocabulary(tuple(COLOURS), tuple(COLOURS), nn.functional.normalize(colours, dim=-1), torch.arange(3))


def scene() -> Image.Image:
    image = np.full((64, 96, 3), COLOURS["green"], np.uint8)
    image[8:24, 8:40] = COLOURS["red"]
    image[32:56, 16:32] = COLOURS["blue"]
    image[8:40, 64:80] = COLOURS["red"]
    return Image.fromarray(image)


def test_classes_are_found_where_they_are(clip: Clip, vocabulary: Vocabulary) -> None:
    found = TrainingFreeSegmenter(clip, vocabulary)(scene()).class_map()
    colours = np.asarray(scene())
    truth = np.stack([(colours == colour).all(-1) for colour in COLOURS.values()]).argmax(0)
    right = found.labels.numpy() == truth
    assert right.mean() > 0.9  # all but the pixels along borders
    assert right[12:20, 12:36].all()


def test_regions_become_objects(clip: Clip, vocabulary: Vocabulary) -> None:
    for crops in ("white", None):
        found = RegionFinder(clip, vocabulary, crops=crops)(scene())
        things = found[found.labels != 1]
        assert sorted(things.labels.tolist()) == [0, 0, 2]
        for box in ([8, 8, 40, 24], [64, 8, 80, 40], [16, 32, 32, 56]):
            assert float((things.boxes_px - torch.tensor(box)).abs().max(1).values.min()) <= 4
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert len(RegionFinder(clip, vocabulary, limit=2)(scene())) == 2
    assert len(RegionFinder(clip, vocabulary, threshold=1.0)(Image.new("RGB", (40, 40), (90, 90, 90)))) == 0


def test_boxes_are_named(clip: Clip, vocabulary: Vocabulary) -> None:
    finder = BoxFinder(clip, vocabulary)
    found = finder(scene(), torch.tensor([[18.0, 34, 30, 54], [10, 10, 36, 22], [84, 0, 200, 64]]))
    assert sorted(zip(found.labels.tolist(), found.boxes_px[:, 0].tolist(), strict=True)) == [(0, 10), (1, 84), (2, 18)]
    assert found.boxes_px[found.labels == 1].tolist() == [[84, 0, 96, 64]]  # cut to the picture
    assert len(finder(scene(), torch.zeros(0, 4))) == 0
    mask = torch.zeros(1, 64, 96, dtype=torch.bool)
    mask[0, 32:56, 16:32] = True
    wide = torch.tensor([[0.0, 0, 96, 64]])  # nearly all of it is green, but the mask is blue
    masked = BoxFinder(clip, vocabulary, crops="white")(scene(), wide, masks=mask)
    assert torch.equal(masked.masks_px(), mask)
    many = BoxFinder(clip, vocabulary)(scene(), torch.tensor([[10.0, 10, 12, 12]]).repeat(10_000, 1))
    assert len(many) == 10_000
    assert bool((many.labels == 0).all())


def test_wrong_settings_are_refused(clip: Clip, vocabulary: Vocabulary) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        BoxFinder(clip, vocabulary, threshold=-1)
    with pytest.raises(ConfigError, match="limit"):
        RegionFinder(clip, vocabulary, limit=0)
