"""What a student CLIP can learn from a teacher CLIP: its features, its softmax over the batch, its cosines."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from eyesmith.errors import ConfigError, ShapeError
from eyesmith.losses.forms import comparable
from eyesmith.losses.ring import Ring
from eyesmith.losses.softmax import feature_gradients, log_norms, own_logits
from eyesmith.losses.tiles import Tiles, accumulate, compute_dtype


def feature_distillation(
    image: Tensor, text: Tensor, teacher_image: Tensor, teacher_text: Tensor, *, group: dist.ProcessGroup | None = None
) -> Tensor:
    """Squared distance of the student's unit features from the teacher's, mean of images and texts.

    All: [b, D] unit rows of this rank; where the widths differ, the student needs a projection to the teacher's.
    Returns [], 0..4, the mean over the rows of all ranks; gradients between processes as in `softmax_loss`. No gradient
    reaches the teacher. Raises ShapeError when shapes differ.
    Source: CLIP-KD (arXiv 2307.12732), feature distillation.
    """
    for name, student, teacher in (("image", image, teacher_image), ("text", text, teacher_text)):
        if student.ndim != 2 or student.shape != teacher.shape:
            raise ShapeError(
                f"teacher_{name}: expected {list(student.shape)} as the student's, got {list(teacher.shape)}; project "
                "the student's features to the teacher's width first"
            )
    ring = Ring.of(len(image), image.device, group)
    distance = (_float(image) - _float(teacher_image).detach()).square().sum()
    distance = distance + (_float(text) - _float(teacher_text).detach()).square().sum()
    return _mean_of_ranks(distance / (2 * ring.num_rows), ring)


def affinity_distillation(
    image: Tensor, text: Tensor, teacher_image: Tensor, teacher_text: Tensor, *, group: dist.ProcessGroup | None = None
) -> Tensor:
    """Mean squared difference of the cosines of all images with all texts, student's against teacher's.

    image, text: [b, D] of the student, teacher_image, teacher_text: [b, E], unit rows of this rank. Returns [], mean
    over all B x B pairs of the global batch; gradients between processes as in `softmax_loss`; none to the teacher.

    No matrix of the batch's size is made: the sum over pairs of (x_i.y_j)(u_i.v_j) is the sum of the elements of
    (X'U) * (Y'V), which are D x E and add up over ranks. In fp64, where the three sums nearly cancel.
    Source: affinity mimicking of TinyCLIP (arXiv 2309.12314). Departs: compares cosines by squares, not by softmax
    (`logit_distillation` does that).
    """
    _check_pairs(image, text, teacher_image, teacher_text)
    ring = Ring.of(len(image), image.device, group)
    student, teacher = (image.double(), text.double()), (teacher_image.double(), teacher_text.double())
    teacher = (teacher[0].detach(), teacher[1].detach())
    total = torch.zeros((), dtype=torch.float64, device=image.device)
    for sign, left, right in ((1, student, student), (-2, student, teacher), (1, teacher, teacher)):
        images, texts = (_mean_of_ranks(a.mT @ b, ring) for a, b in zip(left, right, strict=True))
        total = total + sign * (images * texts).sum()
    return (total / ring.num_rows**2).to(compute_dtype(image))


def logit_distillation(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    teacher_image: Tensor,
    teacher_text: Tensor,
    teacher_scale: Tensor,
    *,
    temperature: float = 1.0,
    tile_rows: int | None = None,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Divergence KL(teacher || student) of the softmax over the batch, mean over rows and of both directions.

    image, text: [b, D] of the student, teacher_image, teacher_text: [b, E], unit rows of this rank; scale,
    teacher_scale: [] of each one's logits, both divided by temperature. The value is multiplied by temperature squared,
    so that the gradient keeps its size. Returns [], nats; differentiable in image, text and scale; between processes as
    in `softmax_loss`. Computed by tiles, and round the ring where there are several ranks: value and gradients in
    forward, two products of each tile of both models, no matrix of the batch's size.
    Source: arXiv 1503.02531 over CLIP's logits, as in CLIP-KD (arXiv 2307.12732), whose cross-entropy has the same
    gradient.
    """
    _check_pairs(image, text, teacher_image, teacher_text)
    if temperature <= 0:
        raise ConfigError(f"temperature: expected a positive number, got {temperature}")
    with torch.autocast(image.device.type, enabled=False):
        ring = Ring.of(len(image), image.device, group)
        student = (comparable(image), comparable(text), scale / temperature)
        teacher = (comparable(teacher_image), comparable(teacher_text), teacher_scale / temperature)
        teacher = tuple(value.detach() for value in teacher)
        return temperature**2 * _TiledDivergence.apply(*student, teacher, ring, tile_rows)  # pyright: ignore


class _TiledDivergence(torch.autograd.Function):
    """Norms of both models' rows and columns first, then value and gradients tile by tile, all in forward."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        text: Tensor,
        scale: Tensor,
        teacher: tuple[Tensor, Tensor, Tensor],
        ring: Ring,
        tile_rows: int | None,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[:3]
        sides = ((image, text, scale), teacher)
        own = [own_logits(*side) for side in sides]
        tiles = [Tiles(side[0], side[2], tile_rows=tile_rows) for side in sides]
        norms = [log_norms(*args, ring) for args in zip(tiles, (text, teacher[1]), own, strict=True)]
        (rows, columns), (teacher_rows, teacher_columns) = norms
        own_weights, loss = _divergence(own[0], own[1], rows, teacher_rows)
        column_weights, column_loss = _divergence(own[0], own[1], columns, teacher_columns)
        own_weights, losses = own_weights + column_weights, [(loss + column_loss).sum()]

        image_sum = torch.zeros_like(image, dtype=own[0].dtype)
        text_sums = ring.sums()
        travelling = [text, teacher[1], columns, teacher_columns]
        for owner, (texts, teacher_texts, norm, teacher_norm) in ring.blocks(travelling):
            text_share = torch.zeros_like(texts, dtype=own[0].dtype)
            is_own = owner == ring.rank
            ours, theirs = (
                tiles[0].negatives(texts, (), is_own=is_own),
                tiles[1].negatives(teacher_texts, (), is_own=is_own),
            )
            for tile, target in zip(ours, theirs, strict=True):
                by_row = _divergence(tile.logits, target.logits, rows[tile.rows, None], teacher_rows[tile.rows, None])
                by_column = _divergence(tile.logits, target.logits, norm[tile.columns], teacher_norm[tile.columns])
                losses.append((by_row[1] + by_column[1]).sum())
                weights = by_row[0].add_(by_column[0])
                accumulate(image_sum[tile.rows], weights, texts[tile.columns])
                accumulate(text_share[tile.columns], weights.mT, image[tile.rows])
            text_sums.add(text_share)
        factor = own[0].new_tensor(ring.world_size / (2 * ring.num_rows))
        grads = feature_gradients(wanted, (image, text, scale), image_sum, text_sums.home(), -own_weights, factor)
        ctx.wanted = [grad is not None for grad in grads[:3]]
        ctx.save_for_backward(*(grad for grad in grads[:3] if grad is not None))
        return ring.total(torch.stack(losses).sum() / (2 * ring.num_rows))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        given = [next(saved) * grads[0] if is_wanted else None for is_wanted in ctx.wanted]
        return (*given, None, None, None)


def _divergence(logits: Tensor, targets: Tensor, norms: Tensor, target_norms: Tensor) -> tuple[Tensor, Tensor]:
    """(student's probability less the teacher's, the teacher's times the log of their quotient), pair by pair.

    Pairs with logit -inf on both sides (the diagonal of a tile, which is counted apart) give 0.
    """
    student, teacher = logits - norms, targets - target_norms
    probability = teacher.exp()
    gap = (teacher - student).masked_fill_(targets == -torch.inf, 0.0)
    return student.exp_().sub_(probability), probability * gap


def _check_pairs(image: Tensor, text: Tensor, teacher_image: Tensor, teacher_text: Tensor) -> None:
    pairs = (("student", image, text), ("teacher", teacher_image, teacher_text))
    for name, left, right in pairs:
        if left.ndim != 2 or left.shape != right.shape or len(left) != len(image):
            raise ShapeError(
                f"{name}: expected images and texts of one shape [{len(image)}, D], got {list(left.shape)} and "
                f"{list(right.shape)}"
            )


def _float(features: Tensor) -> Tensor:
    return features.to(compute_dtype(features))


def _mean_of_ranks(part: Tensor, ring: Ring) -> Tensor:
    """The sum of all ranks' parts, with the gradient of each part times the number of ranks."""
    return part if ring.world_size == 1 else _SumOverRanks.apply(part, ring)  # pyright: ignore[reportReturnType]


class _SumOverRanks(torch.autograd.Function):
    """Every rank computes the same value of the sum, so the gradient of a part needs no exchange."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, ring: Ring) -> Tensor:
        ctx.world_size = ring.world_size
        return ring.total(part.clone())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.world_size, None
