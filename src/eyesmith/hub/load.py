"""A model from wherever its weights are: a run folder, a weight file, or the Hugging Face hub."""

import os

import torch

from eyesmith.errors import CheckpointError
from eyesmith.hub.build import build
from eyesmith.hub.device import find_device
from eyesmith.hub.run_folder import build_run
from eyesmith.hub.stored import ImageSize, Stored, read_stored
from eyesmith.hub.weights import Which
from eyesmith.models.classifier import Classifier
from eyesmith.models.clip import Clip
from eyesmith.models.encoder import Encoder


def load(
    source: str | os.PathLike[str],
    *,
    name: str | None = None,
    weights: Which = "model",
    image_size: ImageSize = None,
    dtype: torch.dtype = torch.float32,
    pooling: str | None = None,
    device: str | torch.device = "cpu",
) -> Clip | Encoder:
    """A model with its weights, in evaluation mode: a Clip, a Classifier (of a run that trained by classes, or of
    EVA-02's fine-tuned files), or an Encoder where there is no text tower.

    source: a run folder; a weight file in the names of OpenCLIP (both its layouts), timm or ours, safetensors or
    torch's, or a training checkpoint; a folder with such a file (and the config of open_clip or timm); or
    hf:OWNER/NAME (hf:OWNER/NAME@REVISION) of the Hugging Face hub, which alone may use the network, and only for what
    its cache does not hold. name: which model a bare file is of; where None, the one that its tensors fit. weights:
    "ema" takes the averaged weights of a training checkpoint. image_size: pixels, one number or height and width, when
    it shall not be the size of the stored position table (with a name: that model's size); the table is resampled.
    dtype: of all parameters. pooling: token, mean or normed_mean, of a bare EVA-02 file of timm that does not tell.
    device: where they are, such as "cuda". A classifier with a ViTamin of timm gives the encoder without its classes.
    Raises CheckpointError when there is nothing to load or it is not what it should be, ConfigError for a `name`
    that is unknown or not the model of the run, and a device that is not there.
    """
    place = find_device(str(device))  # before anything is read
    stored = read_stored(source, name=name, weights=weights, image_size=image_size, pooling=pooling)
    return build_stored(stored, dtype=dtype).to(place)


def load_clip(
    source: str | os.PathLike[str],
    *,
    name: str | None = None,
    weights: Which = "model",
    image_size: ImageSize = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Clip:
    """`load` for an image-text model. Raises CheckpointError when the source holds an image tower alone."""
    model = load(source, name=name, weights=weights, image_size=image_size, dtype=dtype, device=device)
    if not isinstance(model, Clip):
        raise CheckpointError(
            f"{os.fspath(source)}: holds an image encoder without a text tower, and this needs both; load an "
            "image-text model, or use the encoder alone with eyesmith.load_encoder"
        )
    return model


def load_encoder(
    source: str | os.PathLike[str],
    *,
    name: str | None = None,
    weights: Which = "model",
    image_size: ImageSize = None,
    dtype: torch.dtype = torch.float32,
    pooling: str | None = None,
    device: str | torch.device = "cpu",
) -> Encoder:
    """`load`, and of an image-text model its image tower, of a classifier its encoder without the head."""
    model = load(source, name=name, weights=weights, image_size=image_size, dtype=dtype, pooling=pooling, device=device)
    return model.image if isinstance(model, Clip | Classifier) else model


def build_stored(stored: Stored, *, dtype: torch.dtype = torch.float32) -> Clip | Encoder:
    """The model of what was read."""
    if stored.run is not None:
        return build_run(stored.run, stored.config, stored.tensors, dtype=dtype)
    return build(stored.config, stored.tensors, where=stored.where, dtype=dtype)
