"""Pictures that are the same but for their encoding, by perceptual hashes of 64 bits or by embeddings."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eyesmith.data.curate.clusters import read_rows
from eyesmith.data.curate.marks import Marks, read_marks
from eyesmith.data.curate.plan import NearRule
from eyesmith.data.curate.uids import sort_uids
from eyesmith.errors import DataError, ShapeError

_BITS = 64
_BLOCK = 4096


def near_hash_pairs(hashes: NDArray[np.uint64], max_bits: int) -> NDArray[np.int64]:
    """All pairs (i, j), i < j, of hashes that differ in at most max_bits bits: int64 [P, 2]. Exact.

    Equal hashes are joined in a chain instead of all with all: the groups are the same.
    """
    values, first, place = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(place, kind="stable")
    is_same = place[order][1:] == place[order][:-1]
    found = [np.stack([order[:-1][is_same], order[1:][is_same]], axis=1)]
    for mask in _band_masks(len(values), max_bits):
        keys = values & mask
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        places = np.arange(len(keys))
        for shift in itertools.count(1):
            places = places[places + shift < len(keys)]
            places = places[keys[places] == keys[places + shift]]
            if not len(places):
                break
            left, right = order[places], order[places + shift]
            is_near = np.bitwise_count(values[left] ^ values[right]) <= max_bits
            found.append(np.stack([first[left[is_near]], first[right[is_near]]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs, axis=0)


def is_near_hash(hashes: NDArray[np.uint64], against: NDArray[np.uint64], max_bits: int) -> NDArray[np.bool_]:
    """Whether each hash [N] differs in at most max_bits bits from one of `against` [M]. Exact."""
    near = np.zeros(len(hashes), dtype=bool)
    against = np.unique(against)
    for mask in _band_masks(len(against), max_bits):
        order = np.argsort(against & mask, kind="stable")
        keys = (against & mask)[order]
        rows = np.flatnonzero(~near)
        place, end = (np.searchsorted(keys, hashes[rows] & mask, side=side) for side in ("left", "right"))
        while len(rows):
            is_open = place < end
            rows, place, end = rows[is_open], place[is_open], end[is_open]
            hit = np.bitwise_count(hashes[rows] ^ against[order[place]]) <= max_bits
            near[rows[hit]] = True
            rows, place, end = rows[~hit], place[~hit] + 1, end[~hit]
    return near


def near_embedding_pairs(rows: NDArray[np.floating], min_similarity: float) -> NDArray[np.int64]:
    """All pairs (i, j), i < j, of rows [N, D] with at least this cosine: int64 [P, 2]. All with all, fp32."""
    unit = _unit(rows)
    found = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(unit), _BLOCK):
        block = unit[start : start + _BLOCK]
        for other in range(start, len(unit), _BLOCK):
            near = torch.nonzero(block @ unit[other : other + _BLOCK].T >= min_similarity).numpy()
            near += np.array([start, other])
            found.append(near[near[:, 0] < near[:, 1]])
    return np.concatenate(found)


def is_near_embedding(
    rows: NDArray[np.floating], against: NDArray[np.floating], min_similarity: float
) -> NDArray[np.bool_]:
    """Whether each of rows [N, D] has at least this cosine with one of `against` [M, D]; in blocks, fp32."""
    if rows.shape[1] != against.shape[1]:
        raise ShapeError(f"features of {rows.shape[1]} and of {against.shape[1]} numbers are of different encoders")
    unit, others = _unit(rows), _unit(against)
    near = torch.zeros(len(unit), dtype=torch.bool)
    for start in range(0, len(unit), _BLOCK):
        for other in range(0, len(others), _BLOCK):
            products = unit[start : start + _BLOCK] @ others[other : other + _BLOCK].T
            near[start : start + _BLOCK] |= (products >= min_similarity).any(dim=1)
    return near.numpy()


def groups_of(num_rows: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The smallest row that each row is joined to by pairs, over any number of steps: int64 [N]."""
    label = np.arange(num_rows)
    while len(pairs):
        low = np.minimum(label[pairs[:, 0]], label[pairs[:, 1]])
        before = label.copy()
        for side in (0, 1):
            np.minimum.at(label, before[pairs[:, side]], low)  # the root moves, and with it its whole tree
        while (label[label] != label).any():
            label = label[label]
        pairs = pairs[label[pairs[:, 0]] != label[pairs[:, 1]]]
    return label


def kept_of_groups(
    groups: NDArray[np.int64], prefer: NDArray[np.floating], uids: NDArray[np.void]
) -> NDArray[np.bool_]:
    """One row of each group, in any order of rows: the highest `prefer` (NaN last), then the smallest uid."""
    order = np.lexsort((uids["f1"], uids["f0"], -np.where(np.isnan(prefer), -np.inf, prefer), groups))
    kept = np.zeros(len(groups), dtype=bool)
    if len(order):
        kept[order[np.append(True, groups[order][1:] != groups[order][:-1])]] = True
    return kept


class NearFinder:
    """Looks up what is known of pool images by their uid, and compares it with evaluation images."""

    def __init__(self, rule: NearRule, against: Sequence[str] = ()) -> None:
        self.rule = rule
        self._pool = read_marks(rule.marks) if rule.marks else None
        if self._pool is not None:
            self._order = np.lexsort((self._pool.uids["f1"], self._pool.uids["f0"]))
            self._sorted = sort_uids(self._pool.uids)
        is_beside = rule.by == "embedding" and (self._pool is None or self._pool.embeddings is None)
        self.features: tuple[str, ...] = (rule.features,) if is_beside else ()
        others = [_against(path, rule.by) for path in against]
        if len({part.shape[1:] for part in others}) > 1:
            raise DataError(f"the features in {', '.join(against)} have different sizes; use one encoder for all")
        self._against = np.concatenate(others) if others else None

    def known(
        self, uids: NDArray[np.void], features: NDArray[np.floating] | None
    ) -> tuple[NDArray[np.bool_], NDArray[np.generic]]:
        """Which rows have a picture that was looked at (bool [N]), and the hashes [n] or embeddings [n, D] of those."""
        if self.features:
            assert features is not None
            return np.ones(len(uids), dtype=bool), features
        assert self._pool is not None
        values = self._pool.hashes if self.rule.by == "hash" else self._pool.embeddings
        assert values is not None
        place = np.searchsorted(self._sorted["f0"], uids["f0"])
        # halves are random numbers; where two ids share the high one, the low one decides
        is_known = np.zeros(len(uids), dtype=bool)
        found = np.zeros(len(uids), dtype=np.int64)
        rows = np.arange(len(uids))
        while len(rows):
            inside = place < len(self._sorted)
            rows, place = rows[inside], place[inside]
            same_high = self._sorted["f0"][place] == uids["f0"][rows]
            rows, place = rows[same_high], place[same_high]
            hit = self._sorted["f1"][place] == uids["f1"][rows]
            is_known[rows[hit]], found[rows[hit]] = True, self._order[place[hit]]
            rows, place = rows[~hit], place[~hit] + 1
        return is_known, values[found[is_known]]

    def is_near(self, uids: NDArray[np.void], features: NDArray[np.floating] | None) -> NDArray[np.bool_]:
        """Whether each sample is near an evaluation image; True, too, for one without a picture: it is of no use."""
        is_known, values = self.known(uids, features)
        near = ~is_known
        if self._against is not None and len(self._against):
            if self.rule.by == "hash":
                near[is_known] = is_near_hash(values, self._against, self.rule.max_bits)  # type: ignore[arg-type]
            else:
                near[is_known] = is_near_embedding(values, self._against, self.rule.min_similarity)  # type: ignore[arg-type]
        return near

    def pairs(self, values: NDArray[np.generic]) -> NDArray[np.int64]:
        """Near pairs among hashes [N] or embeddings [N, D]."""
        if self.rule.by == "hash":
            return near_hash_pairs(values, self.rule.max_bits)  # type: ignore[arg-type]
        return near_embedding_pairs(values, self.rule.min_similarity)  # type: ignore[arg-type]


def _against(path: str, by: str) -> NDArray[np.generic]:
    if by == "embedding" and Path(path).suffix == ".npy":
        return read_rows(path)
    marks: Marks = read_marks(path)
    values = marks.hashes if by == "hash" else marks.embeddings
    if values is None:
        raise DataError(f"{path}: holds no embeddings; make it with `eyesmith curate marks ... --model MODEL`")
    return values


def _band_masks(count: int, max_bits: int) -> list[np.uint64]:
    """Masks such that two values with at most max_bits different bits agree under at least one of them.

    The 64 bits are cut into max_bits + k bands: at most max_bits of them differ, so k agree. k grows with the number
    of values, so that few values share a key.
    """
    same = 1
    while same < 4 and _BITS * same / (max_bits + same) < math.log2(max(count, 2)) - 3 and max_bits + same < _BITS:
        same += 1
    edges = np.linspace(0, _BITS, max_bits + same + 1).astype(int)
    bands = [((1 << int(high)) - 1) ^ ((1 << int(low)) - 1) for low, high in itertools.pairwise(edges)]
    return [np.uint64(sum(chosen)) for chosen in itertools.combinations(bands, same)]


def _unit(rows: NDArray[np.floating]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(np.array(rows, dtype=np.float32)), dim=1)
