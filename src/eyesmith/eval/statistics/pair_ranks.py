"""Retrieval ranks in blocks that never hold the whole score matrix.

`pair_ranks`: each text belongs to one image, both directions out of one pass. `first_hit_ranks`: any groups.
"""

import torch
from torch import Tensor

from eyesmith.errors import DataError, ShapeError
from eyesmith.eval.statistics.metrics import check_finite, exact_device, similarity

_TEXTS, _IMAGES = 2048, 1024  # of a block: 33 MB while its scores are made


def pair_ranks(
    images: Tensor, texts: Tensor, image_of_text: Tensor, *, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """How many wrong candidates come before the right one, in both directions.

    images: [N, D], texts: [T, D], unit rows; image_of_text: [T] int64, the one image each text belongs to; device: that
    compares them, where the images are when None.
    Returns int64 [T], for each text the images before its own, and int64 [N], for each image the texts of others before
    the first of its own. Equal scores rank by index. The scores of each pair of blocks are computed once and
    thrown away; memory beside the features is two blocks. Raises DataError for an image without a text, ShapeError on
    wrong shapes, EyesmithError for scores that are not finite.
    """
    if texts.shape[:1] != image_of_text.shape or images.ndim != 2 or images.shape[1:] != texts.shape[1:]:
        raise ShapeError(
            f"retrieval: {list(images.shape)} images, {list(texts.shape)} texts, {list(image_of_text.shape)} places"
        )
    own = torch.cat(
        [_row_products(texts[part], images[image_of_text[part]]) for part in torch.arange(len(texts)).split(_TEXTS)]
    )  # [T], the score of each text with its own image
    best, first = _best_text(own, image_of_text, len(images))  # [N] score and index of each image's best text
    device = images.device if device is None else exact_device(device)
    best, first = best.to(device), first.to(device)
    before_image = torch.zeros(len(texts), dtype=torch.int64)
    before_text = torch.zeros(len(images), dtype=torch.int64, device=device)
    for text_start in range(0, len(texts), _TEXTS):
        text_part = slice(text_start, text_start + _TEXTS)
        rows = (texts[text_part], image_of_text[text_part, None], own[text_part, None])
        text_rows, owner, own_score = (one.to(device) for one in rows)
        text_index = torch.arange(text_start, text_start + len(text_rows), device=device)[:, None]
        for image_start in range(0, len(images), _IMAGES):
            image_part = slice(image_start, image_start + _IMAGES)
            scores = similarity(text_rows, images[image_part].to(device))  # [t, n]
            check_finite(scores)
            image_index = torch.arange(image_start, image_start + scores.shape[1], device=device)
            is_own = owner == image_index
            earlier = (scores == own_score) & (image_index < owner)
            before_image[text_part] += ((scores > own_score) & ~is_own | earlier).sum(1).cpu()
            earlier = (scores == best[image_part]) & (text_index < first[image_part])
            before_text[image_part] += (((scores > best[image_part]) | earlier) & ~is_own).sum(0)
    return before_image, before_text.cpu()


def first_hit_ranks(
    queries: Tensor,
    candidates: Tensor,
    query_group: Tensor,
    candidate_group: Tensor,
    *,
    block: int = 2048,
    device: torch.device | None = None,
) -> Tensor:
    """How many candidates come before the first right one, for each query -> [Q] int64.

    queries: [Q, D], candidates: [N, D]; right are the candidates of the query's group (query_group [Q],
    candidate_group [N], int64). Equal scores rank by index. Memory: a few blocks of block x block scores, on
    `device` (where the queries are when None).
    Raises ShapeError on wrong shapes, DataError for a query without any right candidate, EyesmithError for scores
    that are not finite.
    """
    if query_group.shape != queries.shape[:1] or candidate_group.shape != candidates.shape[:1]:
        raise ShapeError(
            f"retrieval: {list(queries.shape)} queries with {list(query_group.shape)} groups, "
            f"{list(candidates.shape)} candidates with {list(candidate_group.shape)} groups"
        )
    device = queries.device if device is None else exact_device(device)
    query_group, candidate_group = query_group.to(device), candidate_group.to(device)
    ranks = []
    for start in range(0, len(queries), block):
        rows, groups = queries[start : start + block].to(device), query_group[start : start + block]
        best = torch.full((len(rows),), -torch.inf, device=device)
        where = torch.full((len(rows),), -1, device=device)
        for first in range(0, len(candidates), block):
            scores = similarity(rows, candidates[first : first + block].to(device))  # [q, n]
            check_finite(scores)
            wrong = groups[:, None] != candidate_group[first : first + block]
            index = scores.masked_fill_(wrong, -torch.inf).argmax(1)  # the first among equals, which max leaves open
            value = scores.gather(1, index[:, None]).squeeze(1)
            better = value > best  # an equal one further on comes later
            best = torch.where(better, value, best)
            where = torch.where(better, index + first, where)
        if bool((where < 0).any()):
            raise DataError(f"query {start + int((where < 0).nonzero()[0])} has no right answer among the candidates")
        rank = torch.zeros(len(rows), dtype=torch.int64, device=device)
        for first in range(0, len(candidates), block):  # the same blocks again: equal bits, so ties stay ties
            scores = similarity(rows, candidates[first : first + block].to(device))
            earlier = torch.arange(first, first + scores.shape[1], device=device) < where[:, None]
            rank += ((scores > best[:, None]) | ((scores == best[:, None]) & earlier)).sum(1)
        ranks.append(rank.cpu())
    return torch.cat(ranks) if ranks else torch.zeros(0, dtype=torch.int64)


def _row_products(left: Tensor, right: Tensor) -> Tensor:
    # rounded once from fp64, as `similarity` is, so that equal pairs have equal scores
    return (left.double() * right.double()).sum(1).float()


def _best_text(own: Tensor, image_of_text: Tensor, num_images: int) -> tuple[Tensor, Tensor]:
    best = torch.full((num_images,), -torch.inf).scatter_reduce_(0, image_of_text, own, "amax")
    if bool(torch.isinf(best).any()):
        raise DataError(f"image {int(torch.isinf(best).nonzero()[0])} has no text, so none can be found for it")
    is_best = (own == best[image_of_text]).nonzero()[:, 0]
    first = torch.full((num_images,), len(own)).scatter_reduce_(0, image_of_text[is_best], is_best, "amin")
    return best, first
