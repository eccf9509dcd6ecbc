"""Features and labels for a probe, from a model and a path."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.data.sources import open_source, read_templates, split_names
from eyesmith.errors import DataError
from eyesmith.eval.features.store import FeatureStore
from eyesmith.eval.features.texts import TextFeatures
from eyesmith.eval.heads.probe import Labelled, ZeroShotHead
from eyesmith.models.clip import Clip
from eyesmith.models.encoder import Encoder


class EncoderFeatures(nn.Module):
    """An image encoder without a text tower, as far as a `FeatureStore` asks: unit rows of pixels."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.image = encoder.eval()
        self.preprocess = encoder.evaluation_config()
        self.register_buffer("logit_scale", torch.zeros((), device=next(encoder.parameters()).device), persistent=False)

    @torch.inference_mode()
    def encode_image(self, pixels: Tensor, *, batch_size: int = 64) -> Tensor:
        """Unit features [B, D] fp32 of uint8 pixels [B, 3, H, W]."""
        device = next(self.image.parameters()).device
        parts = [self.image(part.to(device)).float() for part in pixels.split(batch_size)]
        return F.normalize(torch.cat(parts), dim=-1)


def feature_store(
    model: Clip | Encoder, folder: str | os.PathLike[str] | None, *, batch_size: int = 64, fresh: bool = False
) -> FeatureStore:
    """A store of the features of any model; folder: where they are kept, None: nowhere."""
    tower = model if isinstance(model, Clip) else cast(Clip, EncoderFeatures(model))
    return FeatureStore(tower, folder, batch_size=batch_size, fresh=fresh)


def read_labelled(
    store: FeatureStore,
    path: str | os.PathLike[str],
    *,
    split: str | None,
    note: Callable[[str], None] = lambda message: None,
) -> Labelled:
    """Features and labels of a labelled data set: class folders, a made data set, tar shards, a table with labels.

    split: None where the data have none, or only one. note: is told about
    images that were left out. Raises DataError for data without labels or with one class alone.
    """
    source = open_source(path, split=split, require_text=False)
    if source.labels is None or source.classes is None:
        raise DataError(f"{source.name}: a probe needs labelled images: a folder for each class, or a set with labels")
    if len(set(source.labels)) < 2:
        raise DataError(f"{source.name}: all images are of one class, a probe needs at least two")
    images = store(source)
    if images.broken:
        note(f"{source.name}: left out {len(images.broken)} images; first: {images.broken[0].reason}")
    assert images.labels is not None
    return Labelled(
        features=images.features,
        labels=images.labels,
        keys=images.keys,
        names=source.classes,
        name=source.name,
        samples=source.fingerprint(),
    )


def choose_splits(
    train: str, test: str | None, train_split: str | None = None, test_split: str | None = None
) -> tuple[tuple[str, str | None], tuple[str, str | None]]:
    """(path, split) to train on and (path, split) to test on; test None: another split of the same data set.

    Splits that are not named are "train" and "test" where the data have such. Raises DataError when both would be the
    same samples.
    """
    one = (train, _split(train, train_split, "train"))
    other = (test or train, _split(test or train, test_split, "test"))
    if Path(one[0]).resolve() == Path(other[0]).resolve() and one[1] == other[1]:
        known = split_names(train)
        has = f"it has the splits {', '.join(known)}" if known else "it has no splits"
        raise DataError(f"{train}: would be trained and tested on the same images; {has}; give other images to test on")
    return one, other


def zero_shot_head(clip: Clip, train: Labelled, path: str | os.PathLike[str]) -> ZeroShotHead:
    """The zero-shot classifier of the training classes: templates of the data set's folder, else the model's own."""
    templates = (read_templates(path) if Path(path).is_dir() else ()) or clip.prompts
    weights = TextFeatures(clip).class_weights(train.names, templates)
    return ZeroShotHead(weights=weights, scale=float(clip.logit_scale.detach().float().exp()))


def _split(path: str, wanted: str | None, usual: str) -> str | None:
    known = split_names(path)
    if wanted is not None:
        return wanted  # opening refuses it where it is unknown
    return usual if usual in known else None
