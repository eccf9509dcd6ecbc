"""Groups of rows that near pairs join over any number of steps, and the one row of each that stays."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_MERGE_PAIRS = 1 << 20


def groups_of(num_rows: int, pairs: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The smallest row that each row is joined to by pairs ([P, 2] at a time), over any number of steps: int64 [N]."""
    label = np.arange(num_rows)
    held: list[NDArray[np.int64]] = []
    num_held = 0
    for some in pairs:
        held.append(some[label[some[:, 0]] != label[some[:, 1]]])
        num_held += len(held[-1])
        if num_held > _MERGE_PAIRS:
            label, held, num_held = _joined(label, np.concatenate(held)), [], 0
    return _joined(label, np.concatenate(held)) if held else label


def spanning_pairs(is_near: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Some of the near pairs (row, column) that join what all do: int64 [P, 2]. is_near: [R, C].

    A thousand equal pictures are half a million pairs, of which a few thousand say as much.
    """
    num_rows, num_columns = is_near.shape
    found = np.empty((0, 2), dtype=np.int64)
    rest = is_near
    while rest.any():  # every part is joined to another one, so there are at most half as many the next time
        rows, columns = np.flatnonzero(rest.any(axis=1)), np.flatnonzero(rest.any(axis=0))
        by_row = np.stack([rows, rest.argmax(axis=1)[rows]], axis=1)
        by_column = np.stack([rest.argmax(axis=0)[columns], columns], axis=1)
        found = np.concatenate([found, by_row, by_column])
        part = _parts(found + np.array([0, num_rows]), num_rows + num_columns)
        rest = is_near & (part[:num_rows, None] != part[None, num_rows:])
    return found


def kept_of_groups(
    groups: NDArray[np.int64], prefer: NDArray[np.floating], uids: NDArray[np.void]
) -> NDArray[np.bool_]:
    """One row of each group, in any order of rows: the highest `prefer` (NaN last), then the smallest uid."""
    kept = np.bincount(groups, minlength=len(groups))[groups] == 1
    rows = np.flatnonzero(~kept)
    score = np.where(np.isnan(prefer[rows]), -np.inf, prefer[rows])
    order = np.lexsort((uids["f1"][rows], uids["f0"][rows], -score, groups[rows]))
    if len(rows):
        kept[rows[order[np.append(True, np.diff(groups[rows][order]) != 0)]]] = True
    return kept


def _joined(label: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    if not len(pairs):
        return label
    roots, place = np.unique(label[pairs], return_inverse=True)
    part = _parts(place.reshape(-1, 2), len(roots))
    _, first = np.unique(part, return_index=True)
    root_of = np.arange(len(label))
    root_of[roots] = roots[first[part]]  # roots rise: the first of a part is its smallest
    return root_of[label]


def _parts(pairs: NDArray[np.int64], num_nodes: int) -> NDArray[np.int32]:
    """The number of the connected part that each node lies in."""
    from scipy.sparse import coo_array  # here: only who looks for duplicates needs it
    from scipy.sparse.csgraph import connected_components

    shape = (num_nodes, num_nodes)
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=shape)
    return connected_components(graph, directed=False)[1]
