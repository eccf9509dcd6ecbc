"""Conversations as the rows of a loader: their pictures decoded, rows alike in one batch."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from eyesmith.config import to_dict
from eyesmith.data.conversations import Conversation, ConversationSet
from eyesmith.data.loader import Batch, Read
from eyesmith.data.order import GroupedPlan
from eyesmith.data.sample import Finding
from eyesmith.errors import DataError, ImageError
from eyesmith.eval.features.identity import content_hash, decoders
from eyesmith.images.transforms import PreprocessConfig
from eyesmith.models.identity import module_hash
from eyesmith.multimodal.eye import Eye, picture_pixels
from eyesmith.multimodal.packing import ChatEncoder
from eyesmith.train.config import WantedPrecision
from eyesmith.train.kept import KeptFeatures, keep_features
from eyesmith.train.precision import choose_precision

_PICTURES = 64  # that the eye sees at a time


class ConversationRows:
    """A step's conversations: a function of the seed and its number, equal rows for any number of processes.

    `Batch.indices` are places in `items`. With is_seen, pixels are empty: what the eye says of all pictures is kept.
    """

    def __init__(
        self,
        data: ConversationSet,
        items: Sequence[Conversation],
        batch_size: int,
        *,
        own: slice,
        seed: int,
        preprocess: PreprocessConfig,
        pad: bool,
        is_seen: bool,
        num_workers: int,
        max_skipped_frac: float,
        epoch_steps: int = 0,
    ) -> None:
        """items: the conversations of `data` that are used. own: rows of the global batch of this process. epoch_steps:
        that count as one epoch; 0: those of all conversations.
        """
        self.data = data
        self.problems, self.skipped = data.problems, list[Finding]()
        self._own, self._preprocess, self._pad, self._is_seen = own, preprocess, pad, is_seen
        self._frac, self._seen, self._batch_size, self._seed = max_skipped_frac, 0, batch_size, seed
        self._epoch_steps = epoch_steps
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="decode")
        self._plan(items)

    def _plan(self, items: Sequence[Conversation]) -> None:
        self.items = tuple(items)
        keys = [(item.picture is not None, _length(item)) for item in self.items]
        self._order = GroupedPlan(np.asarray(keys, dtype=np.int64).reshape(-1, 2), self._batch_size, seed=self._seed)
        self.num_samples, self.steps_per_epoch = len(self.items), self._epoch_steps or self._order.steps_per_epoch

    def leave_out_too_long(self, encoder: ChatEncoder) -> None:
        """Plan anew without the conversations that cannot be written as rows. Raises DataError for too many."""
        good, broken = [], list[Finding]()
        for item in self.items:
            try:
                encoder.row(item.branches, has_image=item.picture is not None)
                good.append(item)
            except DataError as error:
                broken.append(Finding("too_long", "error", item.key, self.data.name, str(error)))
        self.skipped += broken
        self._check(len(self.items), is_empty=not good)
        if broken:
            self._plan(good)

    def leave_out(self, pictures: Collection[int]) -> None:
        """Plan anew without the conversations about pictures that cannot be read. Raises DataError for too many."""
        gone = set(pictures)
        broken = [item for item in self.items if item.picture in gone]
        found = [
            Finding("undecodable", "error", item.key, self.data.name, "its picture cannot be read") for item in broken
        ]
        self.skipped += found
        self._check(len(self.items))
        if broken:
            self._plan([item for item in self.items if item.picture not in gone])

    def fingerprint(self) -> str:
        """That of the conversations."""
        return self.data.fingerprint()

    def captions(self) -> list[str]:
        """None: the rows are no pairs."""
        return []

    def pixels(self, picture: int) -> Tensor:
        """uint8 [3, H, W] as the eye sees it. Raises ImageError."""
        return picture_pixels(self.data.image_bytes(picture), self._preprocess, pad=self._pad)

    def pictures(self, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every picture in use that can be decoded: places int64 [b] and pixels."""
        places = sorted({item.picture for item in self.items if item.picture is not None})
        for start in range(0, len(places), batch):
            some = places[start : start + batch]
            found = list(self._pool.map(self._decode, some))
            good = [(place, one) for place, one in zip(some, found, strict=True) if isinstance(one, Tensor)]
            if good:
                yield torch.tensor([place for place, _ in good]), torch.stack([one for _, one in good])

    def seen_by(self, eye: Eye, *, precision: WantedPrecision, device: torch.device) -> KeptFeatures:
        """What an eye says of every picture in use, computed now or found on disk."""
        facts = [
            module_hash(eye.encoder),
            to_dict(eye.config),
            to_dict(self._preprocess),
            self.data.images_hash if self.data.source is None else content_hash(self.data.source),
            decoders(),
        ]
        return keep_features(
            eye,
            lambda: self.pictures(_PICTURES),
            num_samples=self.data.num_pictures,
            facts=["chat", *facts],
            field="keep_seen",
            precision=choose_precision(precision, device),
            device=device,
        )

    def samples(self, step: int) -> int:
        """How many samples the steps before this one had, those that could not be used included."""
        return self._order.samples(step)

    def begin(self, step: int) -> Callable[[], Read]:
        chosen = [int(index) for index in self._order.batch(step)[self._own]]
        jobs: list[Future[Tensor | Finding] | None] = [
            None
            if self._is_seen or (picture := self.items[index].picture) is None
            else self._pool.submit(self._decode, picture)
            for index in chosen
        ]
        return lambda: self._finish(chosen, jobs)

    def count(self, read: Read) -> None:
        self._seen += read.seen
        self.skipped += [finding for finding in read.broken if finding not in self.skipped]
        self._check(self._seen, is_empty=read.batch is None)

    def close(self) -> None:
        """Drop what is decoded ahead."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _finish(self, chosen: list[int], jobs: list[Future[Tensor | Finding] | None]) -> Read:
        height, width = (0, 0) if self._is_seen else self._preprocess.image_size
        blank = torch.zeros(3, height, width, dtype=torch.uint8)
        found = [blank if job is None else job.result() for job in jobs]
        broken = [one for one in found if isinstance(one, Finding)]
        good = [(row, one) for row, one in enumerate(found) if isinstance(one, Tensor)]
        if not good:
            return Read(None, len(chosen), broken)
        indices = [chosen[row] for row, _ in good]
        batch = Batch(
            pixels=torch.stack([one for _, one in good]),
            texts=[],
            labels=None,
            keys=tuple(self.items[index].key for index in indices),
            rows=torch.tensor([self._own.start + row for row, _ in good]),
            indices=torch.tensor(indices),
        )
        return Read(batch, len(chosen), broken)

    def _decode(self, picture: int) -> Tensor | Finding:
        try:
            return self.pixels(picture)
        except ImageError as error:
            return Finding("undecodable", "error", str(picture), self.data.name, str(error))

    def _check(self, seen: int, *, is_empty: bool = False) -> None:
        if is_empty or len(self.skipped) > max(1, self._frac * seen):
            raise DataError(
                f"{self.data.name}: {len(self.skipped):,} of {seen:,} conversations cannot be used; first: "
                f"{self.skipped[0].key}: {self.skipped[0].detail}"
            )


def _length(item: Conversation) -> int:
    return sum(len(turn.question) + len(turn.answer) for branch in item.branches for turn in branch)
