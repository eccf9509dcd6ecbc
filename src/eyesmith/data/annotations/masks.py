"""The three ways a mask is written down, to and from pixels: outlines, run lengths, a map of segment numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eyesmith.errors import DataError, MissingDependencyError

_FARTHEST_PX = 1_000_000


@dataclass(frozen=True, slots=True)
class Polygons:
    """Outlines whose union is the mask. parts: of each x0, y0, x1, y1, ... in pixels, float64 [2 P], P at least 3."""

    parts: tuple[NDArray[np.float64], ...]


@dataclass(frozen=True, slots=True)
class Runs:
    """Run lengths column by column, of 0 first, as COCO writes them.

    counts: the lengths, or COCO's compressed string of them. height, width: of the picture, in pixels.
    """

    height: int
    width: int
    counts: tuple[int, ...] | bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """The pixels of a map that have one value. values: integers [H, W], shared by all segments of a picture."""

    values: NDArray[np.integer]
    value: int


Shape = Polygons | Runs | Segment


def decode_shape(shape: Shape, height: int, width: int) -> NDArray[np.bool_]:
    """The pixels of a mask, [H, W]. Raises DataError when it is damaged or belongs to a picture of another size."""
    if isinstance(shape, Segment):
        _same_size(shape.values.shape, height, width)
        return shape.values == shape.value
    if isinstance(shape, Runs):
        return _from_counts(run_lengths(shape, height, width), height, width)
    return rle_masks().decode(encoded(shape, height, width)).astype(np.bool_)


def encoded(shape: Shape, height: int, width: int) -> dict[str, Any]:
    """A mask as COCO's tools take it: `size` [H, W] and compressed `counts`, bytes. Raises what `decode_shape` does."""
    masks = rle_masks()
    if isinstance(shape, Polygons):
        farthest = max((float(np.abs(part).max()) for part in shape.parts), default=0.0)
        if not farthest <= _FARTHEST_PX:  # compiled code walks every pixel of an outline, however far it goes
            raise DataError(f"an outline reaches {farthest:g} pixels, in a picture of {width} x {height}")
        parts = [part.tolist() for part in shape.parts]
        return masks.merge(masks.frPyObjects(parts, height, width))
    if isinstance(shape, Segment):
        return encode_mask(decode_shape(shape, height, width))
    lengths = run_lengths(shape, height, width)
    if isinstance(shape.counts, bytes):
        return {"size": [height, width], "counts": shape.counts}
    return masks.frPyObjects({"size": [height, width], "counts": lengths.tolist()}, height, width)


def run_lengths(runs: Runs, height: int, width: int) -> NDArray[np.int64]:
    """The lengths of runs, checked: compiled decoders write beyond the picture when there are too many.

    Raises DataError when they do not count the pixels of a picture of this size.
    """
    _same_size((runs.height, runs.width), height, width)
    counts = runs.counts
    lengths = _lengths_of_string(counts) if isinstance(counts, bytes) else np.array(counts, np.int64)
    if len(lengths) and lengths.min() < 0:
        raise DataError("run lengths below 0: the mask is damaged")
    if (total := int(lengths.sum())) != height * width:
        raise DataError(f"run lengths count {total} pixels, a picture of {width} x {height} has {height * width}")
    return lengths


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Pixels [H, W] as pycocotools writes them: `size` and compressed `counts`, bytes."""
    return rle_masks().encode(np.asfortranarray(mask, np.uint8))


def mask_to_runs(mask: NDArray[np.bool_]) -> Runs:
    """Pixels [H, W] as compressed run lengths."""
    return Runs(mask.shape[0], mask.shape[1], encode_mask(mask)["counts"])


def mask_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, width and height of the pixels of a mask; four zeros where it has none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


def segment_boxes(values: NDArray[np.integer], wanted: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Boxes (left, top, width, height: [N, 4]) and numbers of pixels [N] of the values of a map, in one pass."""
    numbers, inverse = np.unique(values, return_inverse=True)
    inverse = inverse.ravel()
    height, width = values.shape
    areas = np.bincount(inverse, minlength=len(numbers))
    boxes = np.zeros((len(numbers), 4))
    rows, columns = np.divmod(np.arange(height * width), width)
    for axis, coordinate, size in ((0, columns, width), (1, rows, height)):
        low, high = np.full(len(numbers), size), np.full(len(numbers), -1)
        np.minimum.at(low, inverse, coordinate)
        np.maximum.at(high, inverse, coordinate)
        boxes[:, axis], boxes[:, axis + 2] = low, high + 1 - low
    place = {number: index for index, number in enumerate(numbers.tolist())}
    found = [place.get(value) for value in wanted]
    chosen = np.array([boxes[index] if index is not None else np.zeros(4) for index in found]).reshape(-1, 4)
    return chosen, np.array([areas[index] if index is not None else 0 for index in found], np.int64)


def rle_masks() -> ModuleType:
    """COCO's operations on run lengths; MissingDependencyError names the extra that brings them."""
    try:
        from faster_coco_eval.core import mask  # pycocotools' own warns at each call with numpy 2
    except ImportError:
        raise MissingDependencyError(
            "masks of COCO files need faster-coco-eval: pip install 'eyesmith[dense]'"
        ) from None
    return mask


def _lengths_of_string(text: bytes) -> NDArray[np.int64]:
    """COCO's compressed run lengths: 5 bits a character from 48 on, the sixth says that more follow.

    From the fourth number on each is the difference to the one before the last.
    """
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if not len(codes):
        return codes
    is_last = (codes & 32) == 0
    if codes.min() < 0 or codes.max() > 63 or not is_last[-1]:
        raise DataError(f"no run lengths: {text[:20].decode('ascii', 'replace')!r}; the mask is damaged")
    number = np.cumsum(is_last) - is_last  # of each character, the number it belongs to
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    shift = 5 * (np.arange(len(codes)) - starts[number])
    if shift.max() > 50:
        raise DataError("run lengths beyond any picture: the mask is damaged")
    values = np.zeros(int(is_last.sum()), np.int64)
    np.add.at(values, number, (codes & 31) << shift)
    values -= np.where(codes[is_last] & 16, 1 << (shift[is_last] + 5), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _from_counts(lengths: NDArray[np.int64], height: int, width: int) -> NDArray[np.bool_]:
    values = np.zeros(len(lengths), np.bool_)
    values[1::2] = True
    return np.repeat(values, lengths).reshape(width, height).T


def _same_size(size: Sequence[int], height: int, width: int) -> None:
    if tuple(size) != (height, width):
        raise DataError(f"a mask of {size[1]} x {size[0]} pixels in a picture of {width} x {height}")
