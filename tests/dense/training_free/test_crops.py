"""Cut out and classified, against windows cut by hand; and what boxes may be."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from eyesmith.dense.training_free.crops import CROPS, Crop, checked_boxes, classify_crops, crop_features, window_of
from eyesmith.dense.vocabulary import encode_vocabulary
from eyesmith.errors import ConfigError, DataError, EyesmithError, ShapeError
from eyesmith.models.clip import Clip, ClipConfig


@pytest.fixture
def clip(tiny_model: ClipConfig) -> Clip:
    torch.manual_seed(0)
    return tiny_model.build().eval()


def picture(width: int = 60, height: int = 40) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


def test_a_crop_is_the_square_around_the_box(clip: Clip) -> None:
    image = picture()
    found = crop_features(clip, image, torch.tensor([[10.0, 8, 30, 18]]), crops=(Crop(context=1.0),))
    by_hand = image.crop((10, 3, 30, 23))  # 20 wide, so 20 high, around the middle 20, 13
    torch.testing.assert_close(found, clip.encode_image(by_hand), atol=1e-5, rtol=1e-4)
    wider = crop_features(clip, image, torch.tensor([[10.0, 8, 30, 18]]), crops=(Crop(context=1.5),))
    assert not torch.allclose(wider, found, atol=1e-3)


def test_beyond_the_picture_is_the_mean_colour_and_outside_of_the_mask_white(clip: Clip) -> None:
    image = picture()
    pixels = np.asarray(image)
    mean = [round(255 * value) for value in clip.preprocess.mean]
    inside, cut = torch.tensor([[0.0, 0, 15, 15]]), torch.tensor([[-5.0, -5, 15, 15]])
    assert torch.equal(crop_features(clip, image, cut), crop_features(clip, image, inside))
    found = crop_features(clip, image, inside, crops=(Crop(context=2.0),))
    # the window begins at -7.5, which rounds to the even -8
    by_hand = np.full((30, 30, 3), mean, np.uint8)
    by_hand[8:, 8:] = pixels[:22, :22]
    torch.testing.assert_close(found, clip.encode_image(Image.fromarray(by_hand)), atol=1e-5, rtol=1e-4)

    mask = torch.zeros(1, 40, 60, dtype=torch.bool)
    mask[0, 10:15, 20:28] = True
    box = torch.tensor([[20.0, 10, 30, 20]])
    by_hand = np.full((10, 10, 3), 255, np.uint8)
    by_hand[:5, :8] = pixels[10:15, 20:28]
    white = (Crop(background="white"),)
    found = crop_features(clip, image, box, masks=mask, crops=white)
    torch.testing.assert_close(found, clip.encode_image(Image.fromarray(by_hand)), atol=1e-5, rtol=1e-4)
    without = crop_features(clip, image, box, crops=(Crop(context=2.0, background="white"),))
    by_hand = np.full((20, 20, 3), 255, np.uint8)
    by_hand[5:15, 5:15] = pixels[10:20, 20:30]
    torch.testing.assert_close(without, clip.encode_image(Image.fromarray(by_hand)), atol=1e-5, rtol=1e-4)


def test_of_several_crops_the_unit_features_are_added(clip: Clip) -> None:
    image, boxes = picture(), torch.tensor([[10.0, 8, 30, 18], [0, 0, 60, 40], [5, 5, 6, 6]])
    near, far = (crop_features(clip, image, boxes, crops=(one,), batch_size=2) for one in CROPS["vild"])
    both = crop_features(clip, image, boxes, crops="vild")
    torch.testing.assert_close(both, F.normalize(near + far, dim=-1), atol=1e-5, rtol=1e-4)


def test_probabilities_are_the_models_own(clip: Clip) -> None:
    vocabulary = encode_vocabulary(clip, [["cat", "kitten"], ["dog"]])
    image, boxes = picture(), torch.tensor([[10.0, 8, 30, 18], [0, 0, 40, 40]])
    found = classify_crops(clip, image, boxes, vocabulary)
    assert found.shape == (2, 2)
    cosines = crop_features(clip, image, boxes) @ vocabulary.vectors.T
    logits = torch.stack((cosines[:, :2].amax(1), cosines[:, 2]), 1) * clip.logit_scale.detach().exp()
    torch.testing.assert_close(found, logits.softmax(-1), atol=1e-5, rtol=1e-4)
    assert classify_crops(clip, image, torch.zeros(0, 4), vocabulary).shape == (0, 2)


def test_windows_have_the_shape_of_the_input() -> None:
    assert window_of((10, 10, 20, 14), 1.0, (48, 48)) == (10, 7, 20, 17)
    assert window_of((10, 10, 20, 14), 2.0, (24, 48)) == (5, 7, 25, 17)
    assert window_of((3, 3, 3.2, 3.4), 1.0, (48, 48)) == (3, 3, 4, 4)  # never less than a pixel


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_pictures_of_every_mode(clip: Clip, mode: str) -> None:
    image = picture().convert(mode)
    found = crop_features(clip, image, torch.tensor([[0.0, 0, 1, 1]]), crops="ensemble")
    assert bool(found.isfinite().all())


@pytest.mark.parametrize(
    ("boxes", "error", "message"),
    [
        (torch.tensor([[1.0, 2, float("nan"), 4]]), DataError, "row 0 is"),
        (torch.tensor([[1.0, 2, 3, 4], [5, 5, 5, 9]]), DataError, "row 1 is"),
        (torch.tensor([[70.0, 2, 80, 4]]), DataError, "a picture of 60 x 40"),
        (torch.tensor([[9.0, 2, 3, 4]]), DataError, "x0 < x1"),
        (torch.zeros(3, 5), ShapeError, r"expected \[N, 4\]"),
        (torch.zeros(4), ShapeError, r"expected \[N, 4\]"),
    ],
)
def test_boxes_that_make_no_sense_are_refused(
    clip: Clip, boxes: torch.Tensor, error: type[EyesmithError], message: str
) -> None:
    with pytest.raises(error, match=message):
        crop_features(clip, picture(), boxes)


def test_other_input_that_does_not_fit_is_refused(clip: Clip) -> None:
    boxes = torch.tensor([[1.0, 2, 3, 4]])
    with pytest.raises(ShapeError, match=r"masks: expected \[1, 40, 60\]"):
        crop_features(clip, picture(), boxes, masks=torch.zeros(1, 60, 40, dtype=torch.bool))
    with pytest.raises(ConfigError, match="no 'crops'; there are crop, white"):
        crop_features(clip, picture(), boxes, crops="crops")
    with pytest.raises(ConfigError, match="got none"):
        crop_features(clip, picture(), boxes, crops=())
    with pytest.raises(ConfigError, match="context"):
        Crop(context=0.5)
    assert checked_boxes(torch.tensor([[-3.0, 5, 100, 50]]), (40, 60)).tolist() == [[0, 5, 60, 40]]
