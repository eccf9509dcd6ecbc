"""Pictures with boxes and masks as the rows of a loader."""

import hashlib
import json
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from eyesmith.data.annotations import Annotations, Objects
from eyesmith.data.loader import Batch, Read
from eyesmith.data.order import BatchPlan
from eyesmith.data.sample import Finding
from eyesmith.dense.view import Fit, JitterConfig, Shown, fit, show, view_pixels
from eyesmith.errors import DataError, ImageError

NONE = -1  # the label of a row that pads
CROWD = -2  # the label of a region of many, which is not learnt from and not background either
PICTURES = 16  # that an eye sees at a time


class _Row(NamedTuple):
    """pixels: uint8 [3, S, S], or empty where they are kept as maps."""

    pixels: Tensor
    shown: Shown
    how: Fit


class AnnotatedRows:
    """A step's pictures: a function of the seed and its number, equal rows for any number of processes.

    `Batch.indices` are places in the annotations. `extra` has boxes [b, M, 4] in the square's pixels, labels [b, M]
    (classes, NONE, CROWD), sizes [b, 2], flips bool [b], and masks bool [b, M, S, S] where they are learnt. Pictures
    without an object to learn are left out, as in the release; with is_seen, pixels are empty: frozen maps are kept.
    """

    def __init__(
        self,
        data: Annotations,
        batch_size: int,
        *,
        own: slice,
        seed: int,
        side: int,
        mean: tuple[float, float, float],
        jitter: JitterConfig,
        has_masks: bool,
        is_seen: bool,
        num_workers: int,
        max_skipped_frac: float,
        epoch_steps: int = 0,
    ) -> None:
        """own: rows of the global batch of this process. side: of the square, pixels. Raises DataError for data without
        an object to learn, and boxes that are not finite.
        """
        self.data, self.side = data, side
        self.problems, self.skipped = list[Finding](), list[Finding]()
        self._own, self._mean, self._jitter, self._has_masks, self._is_seen = own, mean, jitter, has_masks, is_seen
        self._frac, self._seen, self._batch_size, self._seed = max_skipped_frac, 0, batch_size, seed
        self._epoch_steps = epoch_steps
        self.counts = np.zeros(len(data.categories), np.int64)  # of objects to learn, by class
        used, digest = [], hashlib.sha256()
        for place, objects in enumerate(data):
            self._check(place, objects)
            counted = self._learnt(objects)
            self.counts += np.bincount(objects.labels[counted], minlength=len(self.counts))
            for column in (objects.xywh, objects.labels, objects.crowd, objects.area):
                digest.update(np.ascontiguousarray(column).tobytes())
            if counted.any():
                used.append(place)
        if not used:
            raise DataError(
                f"{data.name}: no picture has a box to learn ({len(data):,} pictures; held-out classes and crowds do "
                "not count); `eyesmith data check` says what is in it"
            )
        names = [[one.name, one.is_novel] for one in data.categories]
        pictures = [[one.file, one.width, one.height] for one in data.pictures]
        digest.update(json.dumps([names, pictures]).encode())
        self._fingerprint = digest.hexdigest()
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="decode")
        self._plan(used)

    @property
    def seen(self) -> Tensor:
        """bool [K]: the classes that have an object to learn."""
        return torch.from_numpy(self.counts > 0)

    def _plan(self, used: list[int]) -> None:
        self.used = tuple(used)
        self._order = BatchPlan(len(used), self._batch_size, seed=self._seed)
        self.num_samples, self.steps_per_epoch = len(used), self._epoch_steps or self._order.steps_per_epoch

    def _learnt(self, objects: Objects) -> np.ndarray:
        return ~objects.crowd & ~self.data.novel[objects.labels] & (objects.xywh[:, 2:] > 0).all(1)

    def _check(self, place: int, objects: Objects) -> None:
        is_good = np.isfinite(objects.xywh).all(1)
        if not is_good.all():
            row = int(np.flatnonzero(~is_good)[0])
            raise DataError(
                f"{self.data.name}: {self.data.pictures[place].file}: object {objects.ids[row]} has the box "
                f"{objects.xywh[row].tolist()}; expected finite numbers, mend it or take it out"
            )
        if self._has_masks and not objects.has_masks:
            raise DataError(
                f"{self.data.name}: {self.data.pictures[place].file}: has boxes without masks; set "
                "head.has_masks=false, or take data with masks"
            )

    def leave_out(self, pictures: Collection[int]) -> None:
        """Plan anew without pictures that cannot be read. Raises DataError for too many."""
        gone = sorted(set(pictures) & set(self.used))
        self.skipped += [
            Finding("undecodable", "error", self.data.pictures[place].file, self.data.name, "it cannot be read")
            for place in gone
        ]
        self._stop_above(len(self.used), is_empty=len(gone) == len(self.used))
        if gone:
            left_out = set(gone)
            self._plan([place for place in self.used if place not in left_out])

    def fingerprint(self) -> str:
        """A hash of classes, names and sizes of pictures, boxes and areas."""
        return self._fingerprint

    def images_hash(self) -> str:
        """A hash of the pictures in use, every one read."""
        digest = hashlib.sha256()
        for place in self.used:
            try:
                content = self.data.images.content(self.data.pictures[place].file)
            except DataError:  # it is left out, see `leave_out`
                content = b""
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()

    def captions(self) -> list[str]:
        """None: the rows are no pairs."""
        return []

    def views(self, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every picture in use that can be decoded, upright and, where any is, mirrored: 2 * place + flip int64 [b]."""
        has_mirrors = self._jitter.flip_prob > 0
        for start in range(0, len(self.used), max(1, batch // 2)):
            some = self.used[start : start + max(1, batch // 2)]
            found = list(self._pool.map(self._upright, some))
            good = [(place, one) for place, one in zip(some, found, strict=True) if isinstance(one, _Row)]
            if good:
                places = torch.tensor([place for place, _ in good])
                upright = torch.stack([one.pixels for _, one in good])
                if not has_mirrors:
                    yield 2 * places, upright
                    continue
                turned = torch.stack([_mirrored_pixels(one) for _, one in good])
                yield torch.cat([2 * places, 2 * places + 1]), torch.cat([upright, turned])

    def samples(self, step: int) -> int:
        """How many samples the steps before this one had, those that could not be used included."""
        return self._order.samples(step)

    def begin(self, step: int) -> Callable[[], Read]:
        chosen = [self.used[int(index)] for index in self._order.batch(step)[self._own]]
        jobs = [self._pool.submit(self._make, place, step, self._own.start + row) for row, place in enumerate(chosen)]
        return lambda: self._finish(chosen, jobs)

    def count(self, read: Read) -> None:
        self._seen += read.seen
        self.skipped += [finding for finding in read.broken if finding not in self.skipped]
        self._stop_above(self._seen, is_empty=read.batch is None)

    def close(self) -> None:
        """Drop what is decoded ahead."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _finish(self, chosen: list[int], jobs: "list[Future[_Row | Finding]]") -> Read:
        found = [job.result() for job in jobs]
        broken = [one for one in found if isinstance(one, Finding)]
        good = [(row, one) for row, one in enumerate(found) if isinstance(one, _Row)]
        if not good:
            return Read(None, len(chosen), broken)
        most = max([1, *(len(one.shown.boxes) for _, one in good)])
        extra = {
            "boxes": torch.stack([_padded(one.shown.boxes, most, 0.0) for _, one in good]),
            "labels": torch.stack([_padded(one.shown.labels, most, NONE) for _, one in good]),
            "sizes": torch.tensor([[float(one.how.height), float(one.how.width)] for _, one in good]),
            "flips": torch.tensor([one.how.is_flipped for _, one in good]),
        }
        if self._has_masks:
            masks = [one.shown.masks for _, one in good]
            extra["masks"] = torch.stack([_padded(one, most, 0) for one in masks if one is not None])
        batch = Batch(
            pixels=torch.stack([one.pixels for _, one in good]),
            texts=[],
            labels=None,
            keys=tuple(self.data.pictures[chosen[row]].file for row, _ in good),
            rows=torch.tensor([self._own.start + row for row, _ in good]),
            indices=torch.tensor([chosen[row] for row, _ in good]),
            extra=extra,
        )
        return Read(batch, len(chosen), broken)

    def _make(self, place: int, step: int, row: int) -> "_Row | Finding":
        draw = random.Random(f"detect/{self._seed}/{step}/{row}")
        picture = self.data.pictures[place]
        return self._row(place, fit((picture.height, picture.width), self.side, self._jitter, draw), self._is_seen)

    def _upright(self, place: int) -> "_Row | Finding":
        picture = self.data.pictures[place]
        return self._row(place, fit((picture.height, picture.width), self.side), False)

    def _row(self, place: int, how: Fit, is_seen: bool) -> "_Row | Finding":
        picture = self.data.pictures[place]
        try:
            pixels = torch.zeros(3, 0, 0, dtype=torch.uint8)
            if not is_seen:
                pixels = view_pixels(_image(self.data, place), how, self.side, self._mean)
            return _Row(pixels, self._shown(place, how), how)
        except (ImageError, DataError) as error:
            return Finding("undecodable", "error", picture.file, self.data.name, str(error))

    def _shown(self, place: int, how: Fit) -> Shown:
        objects = self.data.objects(place)
        keep = objects.only(self._learnt(objects) | objects.crowd)
        labels = torch.from_numpy(np.where(keep.crowd, CROWD, keep.labels))
        masks = [keep.mask(row) for row in range(len(keep))] if self._has_masks else None
        return show(torch.from_numpy(keep.boxes), labels, masks, how, self.side)

    def _stop_above(self, seen: int, *, is_empty: bool = False) -> None:
        if is_empty or len(self.skipped) > max(1, self._frac * seen):
            first = self.skipped[0]
            raise DataError(
                f"{self.data.name}: {len(self.skipped):,} of {seen:,} pictures cannot be used; first: {first.key}: "
                f"{first.detail}"
            )


def squares(
    data: Annotations, places: Sequence[int], side: int, mean: tuple[float, float, float]
) -> Iterator[tuple[list[int], Tensor, list[Fit]]]:
    """Pictures as an eye sees them, some at a time: their places, uint8 [b, 3, side, side], and how each was fitted.

    Pictures that cannot be read, or have another size than the annotations say, are left out.
    """
    for start in range(0, len(places), PICTURES):
        good, pixels, fits = list[int](), list[Tensor](), list[Fit]()
        for place in places[start : start + PICTURES]:
            try:
                image = _image(data, place)
                how = fit((image.height, image.width), side)
                pixels.append(view_pixels(image, how, side, mean))
            except (ImageError, DataError):
                continue
            good.append(place)
            fits.append(how)
        if good:
            yield good, torch.stack(pixels), fits


def _image(data: Annotations, place: int) -> Image.Image:
    """A picture that its boxes fit. Raises DataError or ImageError."""
    image, picture = data.image(place), data.pictures[place]
    if image.size != (picture.width, picture.height):
        raise ImageError(f"is {image.width} x {image.height}, the annotations say {picture.width} x {picture.height}")
    return image


def _mirrored_pixels(row: _Row) -> Tensor:
    """What `view_pixels` gives of the mirrored picture: the padding stays at the right."""
    found = row.pixels.clone()
    found[:, : row.how.height, : row.how.width] = row.pixels[:, : row.how.height, : row.how.width].flip(2)
    return found


def _padded(values: Tensor, count: int, value: float) -> Tensor:
    return F.pad(values, (0, 0) * (values.ndim - 1) + (0, count - len(values)), value=value)
