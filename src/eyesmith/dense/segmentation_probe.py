"""How much of a set's classes an eye's map says by one linear layer: fitted on one split, measured on another."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from eyesmith.config import to_dict
from eyesmith.data.annotations import VOID, Annotations
from eyesmith.dense.frozen import FrozenEncoder
from eyesmith.dense.measuring import data_facts
from eyesmith.dense.probes import SegmentationProbe, cell_targets, fit_cells
from eyesmith.dense.rows import squares
from eyesmith.dense.view import Fit, ViewConfig
from eyesmith.errors import DataError
from eyesmith.eval.features.identity import decoders, facts_hash, model_facts
from eyesmith.eval.located.pixels import PixelScores
from eyesmith.eval.located.rows import segment_rows
from eyesmith.eval.results.rows import ResultRow
from eyesmith.models.encoder import Encoder

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of C, from which one is chosen
_HELD_OUT = 5  # every so manieth picture of training chooses


def probe_segments(
    encoder: Encoder,
    train: Annotations,
    test: Annotations,
    *,
    model: str,
    c: float | None = None,
    side_px: int | None = None,
    replicates: int = 500,
    note: Callable[[str], None] = lambda _: None,
) -> list[ResultRow]:
    """mIoU of `test` by a linear layer on the encoder's last map, fitted on `train`: lines of task `probe_segment`.

    Pictures are fitted into a square of `side_px`, None: the encoder's own size. A cell of the map is a sample of the
    class that half of its pixels are; pixels without an object are one class more, where the set leaves any, and count
    as wrong where another is said. Classes that fill half of no cell cannot be learnt and count as 0. model: whose
    number it is, in the lines. c: inverse strength of L2; None: chosen on every fifth picture of training by the share
    of its cells that are right, then fitted on all. Raises DataError where the two sets have other classes, where
    nothing can be learnt and where no picture can be read; ShapeError for a side off the encoder's stride.
    """
    if train.names != test.names:
        raise DataError(
            f"{test.name}: has other classes than {train.name}; a probe learns the classes that it is asked"
        )
    view = ViewConfig(side_px=side_px or max(encoder.image_size))
    eye, num_classes = view.around(encoder), len(train.categories)
    cells, target, groups = _samples(eye, train, view.side_px)
    learnt = target.unique()
    if len(learnt) < 2:
        raise DataError(f"{train.name}: fewer than two classes fill half of a cell; take larger pictures or objects")
    lost = num_classes - int((learnt < num_classes).sum())
    if lost:
        note(f"{lost} of {num_classes} classes fill half of no cell of training, and count as 0 where they are")
    place = torch.full((num_classes + 1,), VOID)
    place[learnt] = torch.arange(len(learnt))
    target = place[target]
    chosen = _choose(cells, target, groups, len(learnt)) if c is None else c
    probe = fit_cells(cells, target, len(learnt), c=chosen)
    scores, used = PixelScores(num_classes), list[int]()
    names = torch.where(learnt == num_classes, VOID, learnt)
    for places, pixels, how in squares(test, range(len(test)), view.side_px, eye.mean):
        maps = eye.dense(pixels.to(eye.device)).cpu()
        for index, own, one in zip(places, maps, how, strict=True):
            picture = test.pictures[index]
            scores.add_picture(
                test, index, _answer(probe, own, one, view.side_px, (picture.height, picture.width), names)
            )
        used += places
    if not used:
        raise DataError(f"{test.name}: none of its pictures can be read")
    scored = test.some(used)
    learnt_from, scored_on = data_facts(train), data_facts(scored)
    run = {
        **model_facts(encoder),
        "precision": "fp32",
        "eye": eye.identity(),
        "view": to_dict(view),
        "map": "dense",
        "train": {**learnt_from, "cells": len(target), "classes": len(learnt)},
        **scored_on,
        "samples": facts_hash([learnt_from["samples"], scored_on["samples"]]),  # with other training it is another
        "c": chosen,
        "decoders": decoders(),
    }
    rows = segment_rows(scored, model=model, pixels=scores, replicates=replicates, run=run)
    return [replace(row, task="probe_segment") for row in rows]


def _samples(eye: FrozenEncoder, data: Annotations, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cells [N, C] that have a class, the class of each (K: no object), and the picture that each is of."""
    cells, targets, groups = [], [], []
    for places, pixels, how in squares(data, range(len(data)), side, eye.mean):
        maps = eye.dense(pixels.to(eye.device)).cpu()
        labels = np.stack(
            [one.labels(_truth(data, index), side, around=VOID) for index, one in zip(places, how, strict=True)]
        )
        found = cell_targets(torch.from_numpy(labels).long(), len(data.categories) + 1, (maps.shape[2], maps.shape[3]))
        kept = found != VOID
        cells.append(maps.movedim(1, 3)[kept].float())
        targets.append(found[kept])
        groups.append(torch.tensor(places)[:, None, None].expand_as(found)[kept])
    if not cells:
        raise DataError(f"{data.name}: none of its pictures can be read")
    return torch.cat(cells), torch.cat(targets), torch.cat(groups)


def _truth(data: Annotations, index: int) -> NDArray[np.integer]:
    """int [H, W], K where no object is, VOID where nobody knows."""
    labels, void = data.semantic(index), data.void(index)
    is_free = labels == VOID if void is None else (labels == VOID) & ~void
    return np.where(is_free, len(data.categories), labels)


def _choose(cells: Tensor, target: Tensor, groups: Tensor, num_classes: int) -> float:
    """The strength that is right on most cells of the pictures held out; of equal ones the most regular."""
    order = groups.unique()
    is_held = torch.isin(groups, order[::_HELD_OUT])
    kept = target[~is_held]
    if not bool(is_held.any()) or len(kept.unique()) < num_classes:
        return 1.0  # too few pictures to leave any out
    shares = []
    for c in STRENGTHS:
        probe = fit_cells(cells[~is_held], kept, num_classes, c=c)
        answer = probe.head(probe.scaling(cells[is_held].double())).argmax(1)
        shares.append(float((answer == target[is_held]).double().mean()))
    return STRENGTHS[int(np.argmax(shares))]


def _answer(
    probe: SegmentationProbe, own: Tensor, how: Fit, side: int, size: tuple[int, int], names: Tensor
) -> NDArray[np.integer]:
    """Labels [H, W] of a picture, VOID where no object is said to be."""
    logits = probe.logits(own[None], (side, side))[:, :, : how.height, : how.width]
    return names[F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0].argmax(0)].numpy()
