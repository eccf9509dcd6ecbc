"""Pictures that are the same but for their encoding, by perceptual hashes of 64 bits or by embeddings."""

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from eyesmith.data.curate.clusters import read_rows
from eyesmith.data.curate.marks import Marks, read_marks
from eyesmith.data.curate.near_embeddings import is_near_embedding, near_embedding_pairs
from eyesmith.data.curate.plan import DuplicatesRule, NearRule
from eyesmith.data.curate.uids import find_uids
from eyesmith.errors import DataError

_BITS = 64


def near_hash_pairs(hashes: NDArray[np.uint64], max_bits: int) -> Iterator[NDArray[np.int64]]:
    """Pairs of hashes [N] that differ in at most max_bits bits, int64 [P, 2] at a time. Exact: all of them.

    Equal hashes are joined in a chain instead of all with all: the groups are the same. About 50 bytes a hash are held.
    """
    first = np.argsort(hashes, kind="stable")
    values = hashes[first]
    is_same = np.append(False, values[1:] == values[:-1])[: len(values)]
    same = np.flatnonzero(is_same)
    yield np.stack([first[same - 1], first[same]], axis=1)
    values, first = values[~is_same], first[~is_same]
    for mask in _band_masks(len(values), max_bits):
        order = np.argsort(values & mask)
        keys = values[order]  # whole ones, neighbours by what is under the mask
        differing = keys[:-1] ^ keys[1:]
        differing &= mask
        places = np.flatnonzero(differing == 0)
        del differing
        for shift in itertools.count(1):
            places = places[places + shift < len(keys)]
            places = places[(keys[places] ^ keys[places + shift]) & mask == 0]
            if not len(places):
                break
            near = places[np.bitwise_count(keys[places] ^ keys[places + shift]) <= max_bits]
            yield np.stack([first[order[near]], first[order[near + shift]]], axis=1)


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


def near_pairs(rule: DuplicatesRule, values: NDArray[np.generic]) -> Iterator[NDArray[np.int64]]:
    """Near pairs among hashes [N] or embeddings [N, D], as the rule says; [P, 2] at a time."""
    if rule.by == "hash":
        assert _are_hashes(values)
        return near_hash_pairs(values, rule.max_bits)
    assert _are_embeddings(values)
    return near_embedding_pairs(values, rule.min_similarity, max_exact=rule.max_exact, device=rule.device)


class NearFinder:
    """Looks up what is known of pool images by their uid, and compares it with evaluation images."""

    def __init__(self, rule: NearRule, against: Sequence[str] = ()) -> None:
        self.rule = rule
        self._pool = read_marks(rule.marks) if rule.marks else None
        if self._pool is not None:
            self._order = np.lexsort((self._pool.uids["f1"], self._pool.uids["f0"]))
            self._sorted = self._pool.uids[self._order]
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
        place, copies = find_uids(self._sorted, uids)
        is_known = copies > 0
        return is_known, values[self._order[place[is_known]]]

    def is_near(self, uids: NDArray[np.void], features: NDArray[np.floating] | None) -> NDArray[np.bool_]:
        """Whether each sample is near an evaluation image; True, too, for one without a picture: it is of no use."""
        is_known, values = self.known(uids, features)
        near = ~is_known
        rule, others = self.rule, self._against
        if others is not None and len(others):
            if rule.by == "hash":
                assert _are_hashes(values)
                assert _are_hashes(others)
                near[is_known] = is_near_hash(values, others, rule.max_bits)
            else:
                assert _are_embeddings(values)
                assert _are_embeddings(others)
                near[is_known] = is_near_embedding(values, others, rule.min_similarity, device=rule.device)
        return near


def _against(path: str, by: str) -> NDArray[np.generic]:
    if by == "embedding" and Path(path).suffix == ".npy":
        return read_rows(path)
    marks: Marks = read_marks(path)
    values = marks.hashes if by == "hash" else marks.embeddings
    if values is None:
        raise DataError(f"{path}: holds no embeddings; make it with `eyesmith curate marks ... --model MODEL`")
    return values


def _are_hashes(values: NDArray[np.generic]) -> TypeGuard[NDArray[np.uint64]]:
    return values.dtype == np.uint64


def _are_embeddings(values: NDArray[np.generic]) -> TypeGuard[NDArray[np.floating]]:
    return values.dtype.kind == "f"


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
