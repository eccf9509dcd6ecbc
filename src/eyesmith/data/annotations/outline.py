"""A mask as one outline that encloses exactly its pixels: what formats need that know a single polygon an object."""

import numpy as np
from numpy.typing import NDArray

_RIGHT_TURN = {(1, 0): (0, 1), (0, 1): (-1, 0), (-1, 0): (0, -1), (0, -1): (1, 0)}  # of a step (x, y), y downwards


def mask_rings(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """The borders of a mask along the pixels' edges: of parts and of holes, each [P, 2] (x, y), not closed.

    Corners only. Pixels that touch at a corner alone are different parts.
    """
    padded = np.pad(mask, 1)
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # with the mask on the right hand: top edges go right, right edges down, bottom edges left, left edges up
    for dx, dy, inside, outside in (
        (1, 0, padded[1:-1, 1:-1], padded[:-2, 1:-1]),
        (0, 1, padded[1:-1, 1:-1], padded[1:-1, 2:]),
        (-1, 0, padded[1:-1, 1:-1], padded[2:, 1:-1]),
        (0, -1, padded[1:-1, 1:-1], padded[1:-1, :-2]),
    ):
        rows, columns = np.nonzero(inside & ~outside)
        x = columns + (dx < 0 or dy > 0)
        y = rows + (dx < 0 or dy < 0)
        for start in zip(x.tolist(), y.tolist(), strict=True):
            following.setdefault(start, []).append((dx, dy))
    rings = []
    while following:
        start = next(iter(following))
        corner, step = start, following[start][0]
        first, last, points = step, None, []
        while True:
            ways = following[corner]
            if len(ways) > 1:  # two parts meet here: turn towards the own one
                step = next(way for way in ways if way == _RIGHT_TURN[step]) if points else step
            else:
                step = ways[0]
            ways.remove(step)
            if not ways:
                del following[corner]
            if step != last:
                points.append(corner)
            last = step
            corner = (corner[0] + step[0], corner[1] + step[1])
            if corner == start:
                break
        if last == first:
            points = points[1:]  # the start lies within an edge
        rings.append(np.array(points, np.int64))
    return rings


def joined_rings(rings: list[NDArray[np.int64]] | list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Rings as one polygon [P, 2]: from each to the next along a line that is walked twice and encloses nothing."""
    first = rings[0]
    points = [*first.tolist(), first[0].tolist()]
    back = []
    for ring in rings[1:]:
        points += [*ring.tolist(), ring[0].tolist()]
        back.append(ring[0].tolist())
    points += [*reversed(back[:-1]), first[0].tolist()] if back else []
    return np.array(points if back else first.tolist(), np.float64)
