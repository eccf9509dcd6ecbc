"""Training a segmenter on a frozen eye, which then outlines whatever can be named: PMT or FC-CLIP."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from eyesmith.config import check_least, to_dict
from eyesmith.data.loader import Batch, Rows
from eyesmith.data.order import step_seed
from eyesmith.dense.frozen import FrozenEncoder
from eyesmith.dense.rows import AnnotatedRows
from eyesmith.dense.segment.head import SegmentHead, SegmentHeadConfig
from eyesmith.dense.segment.losses import Counts, SeededPoints, mask_losses
from eyesmith.dense.segment.measure import rows_of, search
from eyesmith.dense.segment.picture_segmenter import PictureSegmenter, SegmentPredictConfig, Source
from eyesmith.dense.segment.targets import MaskTargets
from eyesmith.dense.view import ViewConfig
from eyesmith.dense.vocabulary import encode_vocabulary
from eyesmith.errors import ConfigError
from eyesmith.eval import ResultRow
from eyesmith.hub.run_folder import SEGMENT_KIND
from eyesmith.models.clip import Clip
from eyesmith.tasks.on_eye import OnEye, OnEyeConfig, Seeing
from eyesmith.tasks.task import ImagePlan, RunContext
from eyesmith.train.accumulate import add_up, cut
from eyesmith.train.kept import KeptFeatures
from eyesmith.train.objective import StepLoss, Wrapped
from eyesmith.train.precision import autocast, choose_precision
from eyesmith.train.rng import StepDraws

_PARTS = ("class", "mask", "dice")


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(OnEyeConfig):
    """A complete run that trains a segmenter's head; the eye never trains.

    `model` and `initial.weights` are the eye's, with the text tower that names are read by.
    """

    kind: ClassVar[str] = "segmenter"

    head: SegmentHeadConfig = field(default_factory=SegmentHeadConfig)
    test_stride_px: int = 0
    """From window to window where pictures are searched, if other than in training: Sliding FC-CLIP's 112."""
    predict: SegmentPredictConfig = field(default_factory=SegmentPredictConfig)
    measures: tuple[Source, ...] = ("head", "dense", "crop")
    """What is measured at the end: the head alone, with the eye's map, with masks cut out."""
    test_pictures: int = 0
    """As curve_pictures, at the end."""

    @property
    def test_view(self) -> ViewConfig:
        """What the eye sees where pictures are searched."""
        return replace(self.view, stride_px=self.test_stride_px) if self.test_stride_px else self.view

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, test_pictures=0, test_stride_px=0)
        if self.test_stride_px and not self.view.window_px:
            raise ConfigError("test_stride_px: goes with view.window_px, which is 0")


class Segment(OnEye[SegmentHead]):
    """Pictures with masks: Mask2Former's loss over the global batch, every layer of the decoder supervised.

    Measured by panoptic quality and mIoU of base, novel and all classes.
    """

    config_type = SegmentConfig
    config: SegmentConfig

    def __init__(
        self,
        model: Seeing[SegmentHead],
        config: SegmentConfig,
        *,
        clip: Clip,
        trained: Sequence[Sequence[str]],
        things: Sequence[bool],
        place: Tensor,
        kept: KeptFeatures | None = None,
    ) -> None:
        """trained: synonyms of each class that is learnt, its name first; things: which of them are counted. place:
        int64 [categories of the data], of each in the head's vocabulary, or -1. kept: see `keep_seen`.
        """
        super().__init__(model, config, clip=clip, kept=kept)
        self._trained, self._things, self._place = tuple(map(tuple, trained)), tuple(things), place

    @property
    def head(self) -> SegmentHead:
        """What trains."""
        return self.model.head

    @classmethod
    def make_head(cls, config: SegmentConfig, eye: FrozenEncoder) -> SegmentHead:
        return config.head.build(eye.taps, eye.embed_dim)

    @classmethod
    def maps_of(cls, config: SegmentConfig, head: SegmentHead) -> tuple[str, ...]:
        return tuple(head.taps)

    @classmethod
    def build(cls, config: SegmentConfig, rows: Rows, context: RunContext) -> Self:
        assert isinstance(rows, AnnotatedRows)
        clip, model, kept = cls.open_eye(config, rows, context)
        head = model.head
        learnt = rows.seen.nonzero()[:, 0].tolist()
        categories = [rows.data.categories[one] for one in learnt]
        trained = [(one.name, *one.synonyms) for one in categories]
        place = torch.full((len(rows.data.categories),), -1)
        place[learnt] = torch.arange(len(learnt))
        with context.world.first_on_each_machine():
            head.use(encode_vocabulary(clip, trained, prompts=config.prompts or None))
        held = len(rows.data.categories) - len(learnt)
        context.say(
            f"{len(learnt)} classes are learnt from {int(rows.counts.sum()):,} masks in {rows.num_samples:,} pictures"
            + (f", {held} have none to learn" if held else "")
            + f"; {sum(value.numel() for value in head.parameters()):,} parameters train"
        )
        things = [one.is_thing for one in categories]
        return cls(model, config, clip=clip, trained=trained, things=things, place=place, kept=kept)

    @classmethod
    def image_plan(cls, config: SegmentConfig, model: nn.Module) -> ImagePlan:
        """The eye's passes over its windows, once a picture where they are kept, and the decoder with its gradient."""
        seeing = cast(Seeing[SegmentHead], model)
        note = "the decoder's step: {}, its sampling of maps and points not counted"
        return cls.plan_of(config, seeing, seeing.head.decoder.macs(config.view.side_px), note)

    def rebuild(self) -> Seeing[SegmentHead]:
        new = self.beside(self.config, self.clip.image)
        assert self.head.vocabulary is not None
        new.head.use(self.head.vocabulary)
        return new

    def backward(self, parallel: Wrapped, batch: Batch, step: int) -> StepLoss:
        config, device, world = self.config, self.device, parallel.world
        precision, loss = choose_precision(config.precision, device), config.head.loss
        seed = step_seed(config.seed, step)
        batch = batch.to(device)
        own = Counts.of(self._targets(batch), self.head.decoder.num_queries, loss)
        counts = Counts(*(world.total(one.to(device)) for one in own))
        sums = torch.zeros(len(_PARTS), device=device)

        def share(part: Batch) -> Tensor:
            nonlocal sums
            draws.give(part.rows)
            with autocast(precision, device):
                predictions = parallel(self.maps(part))
            points = SeededPoints(loss, part.rows.to(device), seed=seed)
            found = mask_losses(predictions, self._targets(part), points, loss, counts)
            sums += torch.stack([one.detach().sum() for one in found])
            # processes average their gradients, and what a loss is divided by is counted over all of them
            return found.total(loss) * world.size

        parts = [partial(share, part) for part in cut(batch, config)]
        with StepDraws(self.model, seed=seed, device=device) as draws:
            total = add_up(parallel, parts)
        weights = (loss.class_weight, loss.mask_weight, loss.dice_weight)
        shares = {name: world.total(one) * w for name, one, w in zip(_PARTS, sums, weights, strict=True)}
        return StepLoss(world.total(total) / world.size, parts=shares)

    def _targets(self, part: Batch) -> list[MaskTargets]:
        """What is to be found in each picture, in the head's own classes."""
        found = []
        for labels, masks in zip(part.extra["labels"], part.extra["masks"], strict=True):
            is_there = labels >= 0  # neither padding nor a crowd
            places = self._place.to(labels.device)[labels.clamp(min=0)]
            found.append(MaskTargets(places[is_there], masks[is_there].bool()).visible())
        return found

    def description(self) -> dict[str, Any]:
        config = self.config
        return {
            "kind": SEGMENT_KIND,
            "name": config.name,
            "head": to_dict(config.head),
            "view": to_dict(config.test_view),
            "predict": to_dict(config.predict),
            "prompts": config.prompts,
            "trained": [list(one) for one in self._trained],
            "things": list(self._things),
        }

    def facts(self) -> dict[str, Any]:
        return {"eye": self.eye.identity(), "classes": len(self._trained), "taps": list(self.head.taps)}

    def rows(self, model: nn.Module, splits: Sequence[str], context: RunContext) -> list[ResultRow]:
        config, head = self.config, cast(Seeing[SegmentHead], model).head
        return context.world.once(lambda: self._measured(head, splits, config.measures, config.test_pictures, 500))

    def curve_values(self, model: nn.Module, context: RunContext) -> dict[str, float]:
        """Of `curve_pictures` pictures, by the cheaper sources."""
        config, head = self.config, cast(Seeing[SegmentHead], model).head
        cheap: tuple[Source, ...] = tuple(source for source in config.measures if source != "crop") or ("head",)

        def reached() -> dict[str, float]:
            values: dict[str, float] = {}
            for split in config.eval.curve_splits:
                rows = self._measured(head, (split,), cheap, config.curve_pictures, 1)
                values |= {f"{split}/{row.model.split()[-1]}_{row.split}_{row.metric}": row.value for row in rows}
            return values

        return context.world.once(reached)

    def _measured(
        self, head: SegmentHead, splits: Sequence[str], sources: tuple[Source, ...], most: int, replicates: int
    ) -> list[ResultRow]:
        rows: list[ResultRow] = []
        if not splits:
            return rows
        before, config = head.vocabulary, self.config
        finder = PictureSegmenter(
            self.clip,
            head,
            config.test_view,
            config.predict,
            trained=self._trained,
            things=self._things,
            prompts=config.prompts,
        )
        for place, split in enumerate(splits):
            data, prefix = self.open_set(config, split), f"{split}:" if place else ""
            searched = search(finder, data, sources, most=most)
            rows += rows_of(finder, searched, model=config.name, prefix=prefix, replicates=replicates)
        if before is not None:
            head.use(before)
        return rows
