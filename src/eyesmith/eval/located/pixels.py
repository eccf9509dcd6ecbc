"""Mean IoU of classes over all pixels of a set, and the same along their borders."""

import math

import numpy as np
from numpy.typing import NDArray

from eyesmith.data.annotations import VOID, Annotations
from eyesmith.errors import DataError, MissingDependencyError, ShapeError

BORDER_FRAC = 0.02  # of the picture's diagonal: how wide a border is


class PixelScores:
    """Counts pixels picture by picture: of each class those that are true, found, and both.

    A pixel whose truth is VOID counts for nothing. One of `background` (no class, but it counts) is wrong for the class
    that is found there. borders: count those along the borders of each class too (Cheng et al. 2021, boundary IoU).
    """

    def __init__(self, num_classes: int, *, borders: bool = False) -> None:
        self.num_classes = num_classes
        self.borders = borders
        self.counts: list[NDArray[np.float64]] = []  # of each picture [K, 3]: true, found, both
        self.border_counts: list[NDArray[np.float64]] = []  # of each picture [K, 2]: both, either

    def add(
        self, truth: NDArray[np.integer], found: NDArray[np.integer], *, background: NDArray[np.bool_] | None = None
    ) -> None:
        """Add a picture. truth, found: labels [H, W]; VOID in `found` says that nothing was found there.

        background: bool [H, W], pixels of no class that count. Raises ShapeError for maps of different sizes, DataError
        for labels that there are not.
        """
        if truth.shape != found.shape or truth.ndim != 2:
            raise ShapeError(f"expected two maps of labels [H, W], got {list(truth.shape)} and {list(found.shape)}")
        for name, labels in (("truth", truth), ("found", found)):
            if labels.size and not (labels.min() >= VOID and labels.max() < self.num_classes):
                raise DataError(
                    f"{name}: labels reach from {labels.min()} to {labels.max()}; expected {VOID} (void) to "
                    f"{self.num_classes - 1}"
                )
        number = self.num_classes
        true_row = np.where(truth == VOID, number, truth).astype(np.int64)
        counted = truth != VOID if background is None else (truth != VOID) | background
        column = np.where(found == VOID, number, found).astype(np.int64)
        table = np.bincount(
            (true_row[counted] * (number + 1) + column[counted]).ravel(), minlength=(number + 1) ** 2
        ).reshape(number + 1, number + 1)
        self.counts.append(
            np.stack([table[:number].sum(1), table[:, :number].sum(0), np.diagonal(table)[:number]], 1).astype(
                np.float64
            )
        )
        if self.borders:
            self.border_counts.append(_border_counts(truth, np.where(counted, found, VOID), number))

    def add_picture(self, truth: Annotations, index: int, found: NDArray[np.integer]) -> None:
        """Add a picture of a set: its own void counts for nothing, other pixels without an object are background."""
        labels = truth.semantic(index)
        void = truth.void(index)
        self.add(labels, found, background=labels == VOID if void is None else (labels == VOID) & ~void)

    def by_class(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """IoU of each class [R, K] when picture p counts weights[r, p] times; for `picture_intervals`."""
        return _iou(np.tensordot(weights, self._stacked(self.counts), 1))

    def iou(self) -> NDArray[np.float64]:
        """IoU of each class over all pixels of all pictures, [K]; NaN for a class that is neither true nor found."""
        return _iou(self._stacked(self.counts).sum(0))

    def border_iou(self) -> NDArray[np.float64]:
        """The same of the pixels along each class's borders."""
        both, either = np.moveaxis(self._stacked(self.border_counts).sum(0), -1, 0)
        with np.errstate(invalid="ignore"):
            return np.where(either > 0, both / either, np.nan)

    def _stacked(self, counts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        if not counts:
            raise DataError("pixel scores of no pictures (or the switch of borders was off); add some first")
        return np.stack(counts)


def border(mask: NDArray[np.bool_], *, width_frac: float = BORDER_FRAC) -> NDArray[np.bool_]:
    """The pixels of a mask [H, W] nearer to its edge (the picture's edge too) than a share of the diagonal."""
    try:
        from scipy.ndimage import minimum_filter
    except ImportError:
        raise MissingDependencyError("borders need scipy: pip install 'eyesmith[dense]'") from None
    width = max(1, round(width_frac * math.hypot(*mask.shape)))
    inner = np.asarray(minimum_filter(mask, size=2 * width + 1, mode="constant", cval=0), np.bool_)
    return mask & ~inner


def _border_counts(truth: NDArray[np.integer], found: NDArray[np.integer], number: int) -> NDArray[np.float64]:
    counts = np.zeros((number, 2))
    for label in np.union1d(np.unique(truth), np.unique(found)).tolist():
        if label != VOID:
            one, other = border(truth == label), border(found == label)
            counts[label] = (one & other).sum(), (one | other).sum()
    return counts


def _iou(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    true, found, both = np.moveaxis(counts, -1, 0)
    either = true + found - both
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(either > 0, both / either, np.nan)
