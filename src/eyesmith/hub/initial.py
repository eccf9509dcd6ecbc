"""Starting a model from the weights of another: whole towers, what fits of them, and what starts anew."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.hub.stored import ANY, Stored, read_stored
from eyesmith.hub.weights import load_tensors
from eyesmith.models.classifier import ClassifierConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.encoder import Encoder
from eyesmith.models.eva02.model import Eva02, Eva02Config
from eyesmith.models.eva02.weights import resize_patch_kernel

# of our encoders and other packages'
PROJECTIONS = ("head.", "tower.proj", "tower.head.", "tower.trunk.head.", "tower.visual_projection.")
TEXT_PROJECTIONS = ("text_projection", "tower.text_projection")  # matrices, or layers


@dataclass(frozen=True, kw_only=True)
class InitialConfig:
    """Weights of another model to start from; random ones where nothing is said."""

    weights: str = ""
    """A run folder, a weight file or hf:owner/name, as `eyesmith.load` takes it; empty for random weights."""
    part: Literal["all", "text", "image"] = "all"
    """all: both towers and the temperature; text: the text tower and the temperature, for Locked-Text Tuning; image:
    the image tower, as from a masked-image run, whose projection and norms of its own start anew."""

    text: str = ""
    """Another model whose text tower starts this one's, with part=image: all of it but its projection and temperature,
    as EVA-02-CLIP started from OpenAI's; empty for random weights."""

    def __post_init__(self) -> None:
        if self.text and self.part != "image":
            raise ConfigError(f"initial.text: goes with initial.part=image, which is {self.part!r}")
        if self.part not in ("all", "text", "image"):
            raise ConfigError(f"initial.part: expected all, text or image, got {self.part!r}")


def load_initial(clip: Clip, config: InitialConfig, *, note: Callable[[str], None] | None = None) -> None:
    """Give `clip`, on the CPU, the weights that `config` names; nothing where it names none.

    A position table of another size is resampled. note: told which parts of an image tower start anew. Raises
    CheckpointError where the weights are not those of the model (or of the part that is wanted), or as `eyesmith.load`
    does.
    """
    if not config.weights:
        return
    if config.part == "text":
        stored = read_stored(config.weights, pooling=ANY)
        tensors = stored.tensors
        texts = {name.removeprefix("text."): value for name, value in tensors.items() if name.startswith("text.")}
        if not texts or "logit_scale" not in tensors:
            raise CheckpointError(f"initial.weights: {stored.where} has no text tower and temperature to start from")
        load_tensors(clip.text, texts, where=f"text tower of {stored.where}")
        with torch.no_grad():
            clip.logit_scale.copy_(tensors["logit_scale"].reshape(()))
        return
    if config.part == "image":
        load_image(clip.image, config.weights, note=note)
        if config.text:
            _load_text(clip, config.text)
        return
    stored = read_stored(config.weights, pooling=ANY, image_size=clip.image.image_size)
    if not isinstance(stored.config, ClipConfig):
        raise CheckpointError(
            f"initial.weights: {stored.where} is an image encoder without a text tower; set initial.part=image"
        )
    tensors = {name: value for name, value in stored.tensors.items() if name != "logit_bias"}  # a run starts its own
    load_tensors(clip, tensors, where=stored.where)


def load_image(
    encoder: Encoder, source: str | os.PathLike[str], *, note: Callable[[str], None] | None = None
) -> tuple[str, ...]:
    """Give `encoder`, on the CPU, the image tower that `source` holds; returns the names that start anew.

    A position table of another grid and patches of another size are resampled. What a tower may have and a pre-trained
    encoder has not starts anew: the projection (also where its width differs), and norms inside attention and network.
    Raises CheckpointError where anything else is missing, or the encoders differ.
    """
    stored = _at_grid(source, encoder)
    is_pair = isinstance(stored.config, ClipConfig | ClassifierConfig)
    tensors = {name.removeprefix("image."): v for name, v in stored.tensors.items() if name.startswith("image.")}
    tensors = tensors if is_pair else stored.tensors
    own = encoder.state_dict()
    kernel = tensors.get("patch.weight")
    if isinstance(encoder, Eva02) and kernel is not None and kernel.shape[-1] != encoder.stride:
        resized = resize_patch_kernel(kernel, encoder.stride, rule=encoder.config.resize)
        tensors = {**tensors, "patch.weight": resized}
    taken = {name: v for name, v in tensors.items() if name in own and _fits(name, v, own[name])}
    new = tuple(name for name in own if name not in taken)
    lacking = [name for name in new if not _may_start_anew(name)]
    spare = [name for name in tensors if name not in taken and not _may_start_anew(name)]
    if lacking or spare:
        odd = (lacking or spare)[0]
        raise CheckpointError(
            f"initial.weights: {stored.where} is another image encoder: they differ in {odd} (and "
            f"{len({*lacking, *spare}) - 1} more); start from one of the same kind and size"
        )
    load_tensors(encoder, {**own, **taken}, where=stored.where)
    if note is not None and new:
        note(
            f"{stored.where}: {len(taken)} tensors of the image tower taken; these start anew: {', '.join(new[:4])}"
            + (f" and {len(new) - 4} more" if len(new) > 4 else "")
        )
    return new


def _load_text(clip: Clip, source: str) -> None:
    """Give `clip` the text tower that `source` holds, but for the projection, which belongs to its image tower."""
    stored = read_stored(source, pooling=ANY)
    own = clip.text.state_dict()
    found = {name.removeprefix("text."): value for name, value in stored.tensors.items() if name.startswith("text.")}
    if not found:
        raise CheckpointError(f"initial.text: {stored.where} has no text tower")
    taken = {name: value for name, value in found.items() if not name.startswith(TEXT_PROJECTIONS)}
    kept = {name: value for name, value in own.items() if name.startswith(TEXT_PROJECTIONS)}
    load_tensors(clip.text, {**taken, **kept}, where=f"text tower of {stored.where}")


def _at_grid(source: str | os.PathLike[str], encoder: Encoder) -> Stored:
    """What is stored, at the image size where its grid is the encoder's."""
    stored = read_stored(source, pooling=ANY)
    image = stored.config.image if isinstance(stored.config, ClipConfig | ClassifierConfig) else stored.config
    if isinstance(image, Eva02Config) and isinstance(encoder, Eva02):
        height, width = encoder.config.grid
        return read_stored(source, pooling=ANY, image_size=(height * image.patch_px, width * image.patch_px))
    return (
        read_stored(source, pooling=ANY, image_size=encoder.image_size)
        if type(image) is _config_type(encoder)
        else stored
    )


def _config_type(encoder: Encoder) -> type:
    return type(getattr(encoder, "config", None))


def _may_start_anew(name: str) -> bool:
    return name.startswith(PROJECTIONS) or ".attention.norm." in name or ".mlp.norm." in name


def _fits(name: str, stored: Tensor, own: Tensor) -> bool:
    return stored.shape == own.shape or not _may_start_anew(name)
