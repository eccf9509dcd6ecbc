"""Training views for classification: a random crop, a flip, RandAugment, erasing; of one image at a time."""

import random
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eyesmith.errors import ConfigError
from eyesmith.images.decode import ImageSource
from eyesmith.images.erase import EraseConfig, erase
from eyesmith.images.mix import MixConfig
from eyesmith.images.randaugment import RandAugmentConfig, rand_augment
from eyesmith.images.transforms import Mode, TrainTransformConfig, training_pixels


@dataclass(frozen=True, kw_only=True)
class ClassViewConfig:
    """What a training image goes through, in this order, and how a batch is mixed at its end."""

    scale: tuple[float, float] = (0.08, 1.0)
    """Share of the area that a crop keeps."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of the crop."""
    horizontal_flip_prob: float = 0.5
    """Chance to be mirrored."""
    rand_augment: RandAugmentConfig = field(default_factory=RandAugmentConfig)
    """Random changes of colour and form."""
    erase: EraseConfig = field(default_factory=EraseConfig)
    """A rectangle that is erased."""
    mix: MixConfig = field(default_factory=MixConfig)
    """Mixup and CutMix of two images."""

    def __post_init__(self) -> None:
        try:
            self.crop((1, 1))
        except ConfigError as error:
            raise ConfigError(f"views.{error}") from None

    def crop(self, image_size: tuple[int, int]) -> TrainTransformConfig:
        """The first two steps, for views of this size."""
        return TrainTransformConfig(
            image_size=image_size,
            scale=self.scale,
            ratio=self.ratio,
            horizontal_flip_prob=self.horizontal_flip_prob,
        )


def class_view(
    image: ImageSource,
    config: ClassViewConfig,
    image_size: tuple[int, int],
    rng: random.Random,
    *,
    mode: Mode = "fast",
) -> Tensor:
    """A random view of one picture, [3, H, W] uint8 RGB: a pure function of the picture, `config`, size and `rng`.

    Bicubic throughout. Raises ImageError as `open_image` does.
    """
    pixels = training_pixels(image, config.crop(image_size), rng, mode=mode)
    if config.rand_augment.num_ops:
        picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
        picture = rand_augment(picture, config.rand_augment, rng)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return erase(pixels.contiguous(), config.erase, rng)
