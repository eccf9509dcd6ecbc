"""What a student CLIP can learn from a teacher CLIP: its features, its softmax over the batch, its cosines."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from eyesmith.errors import ConfigError, ShapeError
from eyesmith.losses.all_pairs import AllPairs, Gradients, OnePass, comparable, compute_dtype
from eyesmith.losses.exchange import Ranks
from eyesmith.losses.softmax import log1p_exp, log_sums


def feature_distillation(
    image: Tensor,
    text: Tensor,
    teacher_image: Tensor,
    teacher_text: Tensor,
    *,
    group: dist.ProcessGroup | None = None,
    max_rows: int | None = None,
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
    ranks = Ranks.of(image, group, max_rows)
    distance = (_float(image) - _float(teacher_image).detach()).square().sum()
    distance = distance + (_float(text) - _float(teacher_text).detach()).square().sum()
    return ranks.total_with_grad(distance / (2 * ranks.num_rows))


def affinity_distillation(
    image: Tensor,
    text: Tensor,
    teacher_image: Tensor,
    teacher_text: Tensor,
    *,
    group: dist.ProcessGroup | None = None,
    max_rows: int | None = None,
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
    ranks = Ranks.of(image, group, max_rows)
    student, teacher = (image.double(), text.double()), (teacher_image.double(), teacher_text.double())
    teacher = (teacher[0].detach(), teacher[1].detach())
    total = torch.zeros((), dtype=torch.float64, device=image.device)
    for sign, left, right in ((1, student, student), (-2, student, teacher), (1, teacher, teacher)):
        images, texts = (ranks.total_with_grad(a.mT @ b) for a, b in zip(left, right, strict=True))
        total = total + sign * (images * texts).sum()
    return (total / ranks.num_rows / ranks.num_rows).to(compute_dtype(image))


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
    max_rows: int | None = None,
) -> Tensor:
    """Divergence KL(teacher || student) of the softmax over the batch, mean over rows and of both directions.

    image, text: [b, D] of the student, teacher_image, teacher_text: [b, E], unit rows of this rank; scale,
    teacher_scale: [] of each one's logits, both divided by temperature. The value is multiplied by temperature squared,
    so that the gradient keeps its size. Returns [], nats; differentiable in image, text and scale; between processes as
    in `softmax_loss`, in ten exchanges (one more with max_rows). Computed by tiles, also for few rows: value and
    gradients in forward, two products of each tile of both models, no matrix of the batch's size.
    Source: arXiv 1503.02531 over CLIP's logits, as in CLIP-KD (arXiv 2307.12732), whose cross-entropy has the same
    gradient.
    """
    _check_pairs(image, text, teacher_image, teacher_text)
    if temperature <= 0:
        raise ConfigError(f"temperature: expected a positive number, got {temperature}")
    with torch.autocast(image.device.type, enabled=False):
        ranks = Ranks.of(image, group, max_rows)
        student = (comparable(image), comparable(text), scale / temperature)
        teacher = (comparable(teacher_image), comparable(teacher_text), teacher_scale / temperature)
        teacher = tuple(value.detach() for value in teacher)
        return temperature**2 * _TiledDivergence.apply(*student, teacher, ranks, tile_rows, torch.is_grad_enabled())  # pyright: ignore


class _TiledDivergence(OnePass):
    """Norms of both models' rows and columns first, then value and gradients tile by tile, all in forward."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        text: Tensor,
        scale: Tensor,
        teacher: tuple[Tensor, Tensor, Tensor],
        ranks: Ranks,
        tile_rows: int | None,
        has_grad: bool,
    ) -> Tensor:
        wanted: tuple[bool, ...] = ctx.needs_input_grad[:3] if has_grad else (False,) * 3
        student, target = (
            AllPairs(image=images, text=ranks.gather(texts), scale=by, ranks=ranks, tile_rows=tile_rows)
            for images, texts, by in ((image, text, scale), teacher)
        )
        own, target_own = student.own_logits(), target.own_logits()  # [b]
        rows, columns = (own + log1p_exp(sums - own) for sums in log_sums(student))  # [b] norms, own pairs included
        target_rows, target_columns = (target_own + log1p_exp(sums - target_own) for sums in log_sums(target))
        by_row = _divergence(own, target_own, rows, target_rows)
        by_column = _divergence(own, target_own, columns, target_columns)
        own_weights, losses = by_row[0] + by_column[0], [(by_row[1] + by_column[1]).sum()]

        columns, target_columns = ranks.gather(columns), ranks.gather(target_columns)  # [G]
        found = Gradients(student, wanted)
        for ours, theirs in zip(student.negatives(), target.negatives(), strict=True):
            by_row = _divergence(ours.logits, theirs.logits, rows[ours.rows, None], target_rows[ours.rows, None])
            by_column = _divergence(ours.logits, theirs.logits, columns[ours.columns], target_columns[ours.columns])
            losses.append((by_row[1] + by_column[1]).sum())
            found.add(ours, by_row[0].add_(by_column[0]))
        OnePass.keep(ctx, found.finish(-own_weights, ranks.world_size / (2 * ranks.num_rows)))
        return ranks.total(torch.stack(losses).sum() / (2 * ranks.num_rows))


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
