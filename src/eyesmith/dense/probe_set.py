"""How well one linear layer over a frozen map tells the class of each pixel: fitted on a set, measured on another."""

import hashlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.data.annotations import VOID, Annotations
from eyesmith.dense.frozen import FrozenEncoder
from eyesmith.dense.probes import fit_segmentation
from eyesmith.dense.rows import squares
from eyesmith.dense.view import Fit
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.features.identity import decoders
from eyesmith.eval.located import PixelScores, segment_rows
from eyesmith.eval.results.rows import ResultRow
from eyesmith.models.encoder import Encoder


def probe_segmentation(
    encoder: Encoder, train: Annotations, test: Annotations, *, model: str, side_px: int = 224, c: float = 1.0
) -> list[ResultRow]:
    """Lines of task `segment`, metric miou, of a logistic regression from cells of `dense` to the classes of `train`.

    Pixels of no object are a class of their own, which is not scored; void ones are left out. A class that fills half
    of no cell cannot be learnt, and is never found. side_px: of the square that pictures are fitted into. c: inverse
    strength of L2. Raises ConfigError for a size that the encoder cannot have, DataError for sets whose classes differ,
    whose objects have no masks, or that cannot be read.
    """
    if side_px % encoder.stride or side_px < encoder.stride:
        raise ConfigError(f"side_px: expected a multiple of {encoder.stride}, the encoder's stride, got {side_px}")
    if train.names != test.names:
        raise DataError(f"{test.path}: its classes are not those of {train.path}; give two splits of one set")
    eye, count, seen = FrozenEncoder(encoder.at_size(side_px, side_px)), len(train.categories), hashlib.sha256()
    maps, labels = list[Tensor](), list[Tensor]()
    for places, pixels, how in squares(train, range(len(train)), side_px, encoder.mean):
        maps.append(_dense(eye, pixels))
        labels.append(torch.stack(list(_labels(train, places, how, side_px))))
        seen.update(pixels.numpy().tobytes() + labels[-1].numpy().tobytes())
    if not maps:
        raise DataError(f"{train.path}: none of its pictures can be read")
    learnt, target = _learnable(torch.cat(labels), count, maps[0].shape[-1])
    probe = fit_segmentation(torch.cat(maps), target, len(learnt), c=c)
    scores, used = PixelScores(count), list[int]()
    for places, pixels, how in squares(test, range(len(test)), side_px, encoder.mean):
        seen.update(pixels.numpy().tobytes())
        answers = learnt[probe(_dense(eye, pixels), (side_px, side_px)).cpu()]
        for place, found, one in zip(places, answers, how, strict=True):
            picture = test.pictures[place]
            shown = found[None, None, : one.height, : one.width].float()
            whole = F.interpolate(shown, size=(picture.height, picture.width), mode="nearest-exact")[0, 0].long()
            seen.update(test.semantic(place).tobytes())
            scores.add_picture(test, place, whole.masked_fill(whole >= count, VOID).numpy())
            used.append(place)
    if len(used) != len(test):
        raise DataError(f"{test.path}: {len(test) - len(used)} of its pictures cannot be read; mend or drop them")
    run = {"eye": eye.identity(), "probe": "linear", "c": c, "side_px": side_px, "learnt": len(learnt)}
    run |= {"data": seen.hexdigest(), "decoders": decoders()}  # pixels and classes, of both sets
    return segment_rows(test, model=f"{model} probe", pixels=scores, run=run)


def _dense(eye: FrozenEncoder, pixels: Tensor) -> Tensor:
    return eye.dense(pixels.to(eye.device)).float().cpu()


def _labels(data: Annotations, places: list[int], how: list[Fit], side: int) -> Iterator[Tensor]:
    """int64 [side, side]: classes, their number where there is none, VOID in what is void or shows no picture."""
    for place, one in zip(places, how, strict=True):
        labels, void = torch.from_numpy(data.semantic(place)).long(), data.void(place)
        labels = labels.masked_fill(labels == VOID, len(data.categories))
        if void is not None:
            labels = labels.masked_fill(torch.from_numpy(void), VOID)
        small = F.interpolate(labels[None, None].float(), size=(one.height, one.width), mode="nearest-exact")
        yield F.pad(small[0, 0].long(), (0, side - one.width, 0, side - one.height), value=VOID)


def _learnable(labels: Tensor, count: int, cells: int) -> tuple[Tensor, Tensor]:
    """Classes [M] that fill half of some cell, and labels by their places among these, VOID for the others."""
    size = (cells, cells)
    shares = [F.adaptive_avg_pool2d((labels == one).float()[:, None], size).max() for one in range(count + 1)]
    learnt = [one for one, share in enumerate(shares) if float(share) >= 0.5]
    if not learnt:
        raise DataError("labels: no class fills half of a cell; take a larger side_px")
    places = torch.full((count + 2,), VOID)
    places[learnt] = torch.arange(len(learnt))
    return torch.tensor(learnt), places[labels.where(labels != VOID, count + 1)]
