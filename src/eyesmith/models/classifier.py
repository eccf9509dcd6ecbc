"""An image encoder with a linear head over named classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from eyesmith.errors import ConfigError
from eyesmith.images import ImageSource, PreprocessConfig
from eyesmith.models.clip import check_colours, check_size, over_images
from eyesmith.models.encoder import Encoder, Tap
from eyesmith.models.families import EncoderConfig, ForeignConfig
from eyesmith.models.own import OwnEncoderConfig

HEAD_STD = 0.02  # of a new head before it is scaled
HEAD_SCALE = 0.001  # so that a run starts from equal probabilities


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """One classifier: its encoder, the names of its classes, and how pictures are prepared for it."""

    name: str
    """What the model is called in tables and results."""
    image: EncoderConfig
    """The image encoder, without a projection."""
    classes: tuple[str, ...]
    """Names by label."""
    preprocess: PreprocessConfig
    """How pictures become the image encoder's pixels."""

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ConfigError(f"classes: expected two or more different names, got {len(self.classes)}")
        if self.image.embed_dim:
            raise ConfigError(
                f"image.embed_dim: a classifier's encoder has no projection, got {self.image.embed_dim}; set it to 0"
            )
        check_size(self.preprocess, self.image)

    def build(self) -> "Classifier":
        """A new classifier with random weights."""
        return Classifier(self)


def classifier_config(name: str, image: EncoderConfig, classes: tuple[str, ...]) -> ClassifierConfig:
    """The config of a classifier on this encoder, with the pixels that the encoder expects."""
    preprocess = PreprocessConfig(image_size=image.image_size)
    if isinstance(image, ForeignConfig) and image.preprocess is not None:
        preprocess = replace(image.preprocess, image_size=image.image_size)
    elif isinstance(image, ForeignConfig | OwnEncoderConfig):
        preprocess = replace(preprocess, mean=image.mean, std=image.std)
    return ClassifierConfig(name=name, image=image, classes=classes, preprocess=preprocess)


class Classifier(Encoder):
    """`image`, an encoder, then `head`, a linear layer. K classes.

    As an encoder its feature is the K logits; `image` alone gives what the head sees, and the maps and tokens of both
    are the same. With a mean-pooled TrV this is EVA-02's fine-tuned model: mean of the patches, norm, head.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.classes, self.preprocess = config.classes, config.preprocess
        self.pictures = config.preprocess
        self.image: Encoder = config.image.build()
        check_colours(self.preprocess, self.image)
        self.head = nn.Linear(self.image.embed_dim, len(config.classes))
        self.image_size = self.image.image_size
        self.mean, self.std, self.stride = self.image.mean, self.image.std, self.image.stride
        self.embed_dim = len(config.classes)
        self.taps: Mapping[str, Tap] = self.image.taps
        self.half_tap = self.image.half_tap
        self.is_mean_pooled = self.image.is_mean_pooled
        self.start_head()

    @torch.no_grad()
    def start_head(self, scale: float = HEAD_SCALE) -> None:
        """New weights for the head: normal of deviation 0.02 times `scale`, bias 0. Source: EVA-02's release."""
        nn.init.trunc_normal_(self.head.weight, std=HEAD_STD)
        self.head.weight.mul_(scale)
        nn.init.zeros_(self.head.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits [B, K] of pixels [B, 3, H, W], uint8 or normalised floats."""
        return self.head(self.image(pixels))

    def pyramid(self, pixels: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        return self.image.pyramid(pixels, taps)

    def dense(self, pixels: Tensor) -> Tensor:
        return self.image.dense(pixels)

    def project(self, vectors: Tensor) -> Tensor:
        """Logits [..., K] of pooled or dense vectors [..., C]: of a dense map, the classes of each cell."""
        return self.head(self.image.project(vectors))

    def tokens(self, pixels: Tensor, layer: int = -2) -> Tensor:
        return self.image.tokens(pixels, layer)

    def set_image_size(self, height: int, width: int) -> None:
        self.check_size(height, width)
        self.image.set_image_size(height, width)
        size = (height, width)
        self.image_size, self.preprocess = size, replace(self.preprocess, image_size=size)
        image = replace(self.config.image, image_size=size)
        self.config = replace(self.config, image=image, preprocess=self.preprocess)

    def blocks(self) -> list[nn.Module]:
        return self.image.blocks()

    def probabilities(self, images: ImageSource | Sequence[ImageSource] | Tensor, *, batch_size: int = 64) -> Tensor:
        """Probabilities [B, K] of the classes, fp32, in evaluation mode and without gradient.

        images: as `Clip.encode_image` takes them. Raises ImageError for a broken picture, ShapeError for a tensor of
        another shape or dtype.
        """
        return self.logits(images, batch_size=batch_size).softmax(dim=-1)

    def logits(self, images: ImageSource | Sequence[ImageSource] | Tensor, *, batch_size: int = 64) -> Tensor:
        """Logits [B, K] fp32; see `probabilities`."""
        return over_images(self, self, lambda pixels: self(pixels).float(), images, self.preprocess, batch_size)

    def classify(
        self, images: ImageSource | Sequence[ImageSource] | Tensor, *, top: int = 5
    ) -> list[list[tuple[str, float]]]:
        """For each image the `top` likeliest classes with their probabilities, best first; all where there are fewer.

        images: as `probabilities` takes them. Equal probabilities keep the order of the classes.
        """
        if top < 1:
            raise ConfigError(f"top: expected 1 or more, got {top}")
        values, places = self.probabilities(images).sort(dim=1, descending=True, stable=True)
        return [
            [(self.classes[place], value) for place, value in zip(row[:top], shares[:top], strict=True)]
            for row, shares in zip(places.tolist(), values.tolist(), strict=True)
        ]
