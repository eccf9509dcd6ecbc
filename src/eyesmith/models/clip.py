"""Two towers and a temperature: images and texts to unit vectors of one space."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.errors import ConfigError
from eyesmith.images import ImageSource, PreprocessConfig, evaluation_pixels
from eyesmith.images.decode import is_one_image
from eyesmith.models.encoder import Encoder
from eyesmith.models.families import EncoderConfig
from eyesmith.models.foreign.open_clip_text import OpenClipTextConfig
from eyesmith.models.foreign.transformers_text import TransformersTextConfig
from eyesmith.models.text import ClipTextConfig, HuggingFaceTextConfig

TextConfig = ClipTextConfig | HuggingFaceTextConfig | OpenClipTextConfig | TransformersTextConfig
"""The config of any text tower."""


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """One image-text model: its towers, how pictures are prepared for it, and how class names become sentences."""

    name: str
    """What the model is called in tables and results."""
    image: EncoderConfig
    """The image encoder."""
    text: TextConfig
    """The text encoder."""
    preprocess: PreprocessConfig
    """How pictures become the image encoder's pixels."""
    prompts: tuple[str, ...] = ("a photo of a {}.",)
    """Sentences for zero-shot classes; {} stands for the name."""
    init_scale: float = 1 / 0.07
    """1/temperature of a new model."""
    lock_text: bool = False
    """Keep the text tower as it is: no gradient, always in evaluation mode (Locked-Text Tuning)."""

    def __post_init__(self) -> None:
        check_size(self.preprocess, self.image)
        if not (math.isfinite(self.init_scale) and self.init_scale > 0):
            raise ConfigError(f"init_scale: expected a positive number, got {self.init_scale}")
        check_prompts(self.prompts)

    def build(self) -> "Clip":
        """A new model with random weights (a pre-trained text tower keeps its own)."""
        return Clip(self)


class Clip(nn.Module):
    """An image tower, a text tower and a learned temperature. D is the common width of the two features.

    `logit_bias` [] is there in a trained model of the sigmoid loss alone, whose pairs each have a probability.
    """

    logit_bias: Tensor | None

    def __init__(self, config: ClipConfig) -> None:
        """Raises ConfigError when the towers' widths differ, or preprocessing does not fit the image tower."""
        super().__init__()
        self.config = config
        self.preprocess = config.preprocess
        self.prompts = config.prompts
        self.image: Encoder = config.image.build()
        self.text = config.text.build()
        if self.image.embed_dim != self.text.out_dim:
            raise ConfigError(
                f"image.embed_dim: {config.name} has image features of {self.image.embed_dim} and text features of "
                f"{self.text.out_dim}; set image.embed_dim={self.text.out_dim}"
            )
        check_colours(self.preprocess, self.image)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(config.init_scale)))  # log, so that it stays positive
        self.register_buffer("logit_bias", None)
        if config.lock_text:
            self.text.requires_grad_(False)
            self.text.eval()

    def train(self, mode: bool = True) -> Self:
        """Training mode; a locked text tower stays in evaluation mode."""
        super().train(mode)
        if self.config.lock_text:
            self.text.eval()
        return self

    def set_image_size(self, height: int, width: int) -> None:
        """Take images of another size, in pixels: encoder, preprocessing and config together.

        Position tables are resampled by the family's rule. Raises ShapeError unless both are multiples of the stride.
        """
        self.image.set_image_size(height, width)
        size = (height, width)
        self.preprocess = replace(self.preprocess, image_size=size)
        image = replace(self.config.image, image_size=size)
        self.config = replace(self.config, image=image, preprocess=self.preprocess)

    def forward(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unit features of both towers and the scale of their products.

        pixels: [B, 3, H, W], uint8, or floats already normalised. ids: int64 [T, L] from text.tokenize. Returns image
        features [B, D], text features [T, D] and exp(logit_scale) [], all fp32 (float64 for a float64 model).
        Raises ShapeError for pixels or ids of another shape.
        """
        return self.image_features(pixels), self.text_features(ids), self.logit_scale.exp()

    def image_features(self, pixels: Tensor) -> Tensor:
        """Unit features [B, D], differentiable, of pixels [B, 3, H, W] (uint8, or floats already normalised)."""
        return _unit(self.image(pixels))

    def text_features(self, ids: Tensor) -> Tensor:
        """Unit features [T, D] of ids [T, L]; without gradient when the text tower is locked."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.lock_text):
            return _unit(self.text(ids))

    def encode_image(self, images: ImageSource | Sequence[ImageSource] | Tensor, *, batch_size: int = 64) -> Tensor:
        """Unit features [B, D] of pictures, in evaluation mode and without gradient.

        images: PIL images, image files (paths, bytes, or opened in binary mode) or uint8 arrays [H, W, 3], one or
        several, prepared exactly as this model expects; or a tensor [B, 3, H, W] of the right size, uint8, or floats
        already normalised. Raises ImageError for a broken picture,
        ShapeError for a tensor of another shape or dtype.
        """
        return over_images(self, self.image, self.image_features, images, self.preprocess, batch_size)

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 256) -> Tensor:
        """Unit features [T, D] of texts, in evaluation mode and without gradient; one string is a list of one."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not all(isinstance(text, str) for text in texts):
            raise ConfigError("texts: expected a list of strings; token ids go to text_features")

        def features(rows: slice) -> Tensor:
            return self.text_features(self.text.tokenize(texts[rows]).to(self.logit_scale.device))

        empty = torch.zeros(0, self.image.embed_dim, device=self.logit_scale.device)
        return _over_rows(self, features, len(texts), batch_size, empty=empty)

    def class_weights(self, names: Sequence[str], prompts: Sequence[str] | None = None) -> Tensor:
        """One unit vector a class name, [K, D]: the normalised mean of the unit features of its sentences.

        prompts: sentences with {} for the name; None: the model's own. Raises ConfigError without names, or for a
        prompt without {}.
        """
        prompts = self.prompts if prompts is None else prompts
        check_prompts(prompts)
        if isinstance(names, str) or not len(names):
            raise ConfigError(f"names: expected a list of one or more class names, got {names!r}")
        texts = [prompt.replace("{}", name) for name in names for prompt in prompts]
        features = self.encode_text(texts).view(len(names), len(prompts), -1)  # [K, prompts, D]
        return _unit(features.mean(dim=1))

    def classify(
        self,
        images: ImageSource | Sequence[ImageSource] | Tensor,
        names: Sequence[str],
        prompts: Sequence[str] | None = None,
    ) -> Tensor:
        """Probabilities [B, K] of the class names, by this model's temperature. images: as encode_image takes them.

        They share 1 (softmax), but for a model with a `logit_bias`, where each is by itself (sigmoid).
        """
        weights = self.class_weights(names, prompts)
        logits = self.logit_scale.detach().exp() * self.encode_image(images) @ weights.mT
        return logits.softmax(dim=-1) if self.logit_bias is None else (logits + self.logit_bias).sigmoid()


def over_images(
    model: nn.Module,
    encoder: Encoder,
    features: Callable[[Tensor], Tensor],
    images: ImageSource | Sequence[ImageSource] | Tensor,
    preprocess: PreprocessConfig,
    batch_size: int,
) -> Tensor:
    """The features of pictures [B, encoder.embed_dim], batch by batch, in evaluation mode and without gradient.

    images: pictures to prepare, or a tensor [B, 3, H, W] as encoder.prepare takes it; see Clip.encode_image.
    """
    if isinstance(images, Tensor):
        encoder.check_pixels(images)  # refuse the whole batch at once, not its first part
        batch = images
    else:
        batch = [cast(ImageSource, images)] if is_one_image(images) else list(cast(Sequence[ImageSource], images))
    device = next(encoder.parameters()).device

    def of_rows(rows: slice) -> Tensor:
        chunk = batch[rows]
        if not isinstance(chunk, Tensor):
            chunk = torch.stack([evaluation_pixels(image, preprocess) for image in chunk])
        return features(chunk.to(device))

    return _over_rows(model, of_rows, len(batch), batch_size, empty=torch.zeros(0, encoder.embed_dim, device=device))


def _over_rows(
    model: nn.Module, features: Callable[[slice], Tensor], count: int, batch_size: int, *, empty: Tensor
) -> Tensor:
    if batch_size < 1:
        raise ConfigError(f"batch_size: expected 1 or more, got {batch_size}")
    with evaluating(model), torch.inference_mode():
        parts = [features(slice(start, start + batch_size)) for start in range(0, count, batch_size)]
    return torch.cat(parts) if parts else empty  # outside of inference mode, so that autograd may use the result


def check_size(preprocess: PreprocessConfig, image: EncoderConfig) -> None:
    """Raise ConfigError unless pictures are prepared at the encoder's size."""
    if tuple(preprocess.image_size) != tuple(image.image_size):
        raise ConfigError(
            f"preprocess.image_size: {preprocess.image_size} differs from image.image_size {image.image_size}; set both"
        )


def check_colours(preprocess: PreprocessConfig, image: Encoder) -> None:
    """Raise ConfigError unless pixels are normalised as the encoder expects."""
    for name in ("mean", "std"):
        ours, theirs = getattr(preprocess, name), getattr(image, name)
        if ours != theirs:
            raise ConfigError(f"preprocess.{name}: {ours} differs from the image encoder's {theirs}")


def _unit(features: Tensor) -> Tensor:
    """Rows of length 1, fp32 at least: under autocast the towers give bf16."""
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for all parts; afterwards each part has the mode it had."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def check_prompts(prompts: Sequence[str]) -> None:
    """Raise ConfigError unless there is a sentence, and each has a place for the class name."""
    if isinstance(prompts, str) or not prompts:
        raise ConfigError(f"prompts: expected a list of one or more sentences, got {prompts!r}")
    if wrong := [prompt for prompt in prompts if "{}" not in prompt]:
        raise ConfigError(f"prompts: {wrong[0]!r} has no {{}} for the class name")
