"""Pictures that are almost the same, found by comparing small thumbnails all with all."""

from collections.abc import Iterator

import numpy as np

_BLOCK = 512
# Limits on the root mean square difference, in levels of 255. Measured on 783 flat drawings of 72 px, the hard case:
# saved again as JPEG of quality 75 and resized to 64 px, 99 % stay below both; the nearest two different drawings are
# 11 levels and 0.19 of their spread apart.
_MAX_LEVELS = 6.0
_MAX_SPREAD_FRAC = 0.12  # of the standard deviation of a thumbnail: small drawings on one ground are not all alike
_MIN_LEVELS = 1.0  # rounding alone


def near_partners(thumbnails: np.ndarray) -> Iterator[tuple[int, int]]:
    """For each row that nearly equals an earlier one: (row, the earliest such row), rows rising.

    thumbnails: [N, C] uint8. Two rows are near when their root mean square difference is at most 6 levels and at most
    12 % of the standard deviation of the less varied of the two (or 1 level, if that is more). Exact, quadratic in the
    worst case; rows whose means differ by more than the limit are never compared: that difference bounds the other
    from below.
    """
    if len(thumbnails) < 2:
        return
    values = thumbnails.astype(np.float32) - 128.0  # [N, C], centred: smaller numbers, less rounding
    order = np.argsort(values.mean(axis=1), kind="stable")  # [N]
    values = values[order]
    means = values.mean(axis=1)  # [N]
    limits = np.clip(_MAX_SPREAD_FRAC * values.std(axis=1), _MIN_LEVELS, _MAX_LEVELS)  # [N]
    squares = np.einsum("nc,nc->n", values, values)  # [N]
    num_rows, num_values = values.shape
    partners = np.full(num_rows, num_rows, dtype=np.int64)  # by place in the original order
    for start in range(0, num_rows, _BLOCK):
        stop = min(start + _BLOCK, num_rows)
        end = int(np.searchsorted(means, means[stop - 1] + _MAX_LEVELS, side="right"))
        distances = squares[start:stop, None] + squares[None, start:end] - 2 * values[start:stop] @ values[start:end].T
        limit = np.minimum(limits[start:stop, None], limits[None, start:end])
        is_near = distances <= limit * limit * num_values  # [block, candidates]
        rows, columns = order[start:stop], order[start:end]
        for mask, mine, others in ((is_near, rows, columns), (is_near.T, columns, rows)):
            earliest = np.where(mask, others[None, :], num_rows).min(axis=1)
            partners[mine] = np.minimum(partners[mine], earliest)
    for row in range(num_rows):
        if partners[row] < row:
            yield row, int(partners[row])
