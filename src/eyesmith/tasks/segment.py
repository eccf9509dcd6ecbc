"""Training a segmenter on a frozen eye, which then outlines whatever can be named: PMT or FC-CLIP."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from eyesmith.config import to_dict
from eyesmith.data.annotations import Annotations, open_annotations
from eyesmith.data.loader import Batch, Rows
from eyesmith.data.order import step_seed
from eyesmith.data.sample import Source as SampleSource
from eyesmith.dense.detect.object_detector import check_dense
from eyesmith.dense.detect.rows import DetectionRows
from eyesmith.dense.detect.view import JitterConfig, ViewConfig
from eyesmith.dense.frozen import FrozenEncoder
from eyesmith.dense.segment.head import SegmentHead, SegmentHeadConfig
from eyesmith.dense.segment.losses import Counts, Prediction, SeededPoints, mask_losses
from eyesmith.dense.segment.measure import measure
from eyesmith.dense.segment.picture_segmenter import PictureSegmenter, SegmentPredictConfig, Source
from eyesmith.dense.segment.run_folder import SEGMENT_KIND, save_segmenter
from eyesmith.dense.segment.targets import MaskTargets
from eyesmith.dense.sliding import SlidingEncoder
from eyesmith.dense.vocabulary import encode_vocabulary
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.eval import ResultRow
from eyesmith.eval.features.identity import decoders
from eyesmith.hub.initial import InitialConfig, load_initial
from eyesmith.hub.stored import read_stored
from eyesmith.images.augment import AugmentConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.cost import encoder_cost
from eyesmith.models.encoder import Encoder
from eyesmith.models.identity import weights_hash
from eyesmith.tasks.task import PASSES, Evaluator, ImagePlan, RunContext, Task
from eyesmith.train.accumulate import add_up
from eyesmith.train.config import RunConfig
from eyesmith.train.distributed import World
from eyesmith.train.kept import KeptFeatures, keep_features
from eyesmith.train.objective import StepLoss, Wrapped
from eyesmith.train.precision import autocast, choose_precision
from eyesmith.train.rng import StepDraws

_PICTURES = 16  # that the eye sees at a time
_PARTS = ("class", "mask", "dice")


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(RunConfig):
    """A complete run that trains a segmenter's head; the eye never trains.

    `model` and `initial.weights` are the eye's, with the text tower that names are read by.
    """

    model: ClipConfig
    name: str
    """What the model is called in tables and results."""
    head: SegmentHeadConfig = field(default_factory=SegmentHeadConfig)
    view: ViewConfig = field(default_factory=ViewConfig)
    test_stride_px: int = 0
    """From window to window where pictures are searched, if other than in training: Sliding FC-CLIP's 112."""
    jitter: JitterConfig = field(default_factory=JitterConfig)
    predict: SegmentPredictConfig = field(default_factory=SegmentPredictConfig)
    images: str = ""
    """Folder of the pictures; by default looked for beside the annotations."""
    prompts: str = ""
    """Sentences that names are put into, by their name (`fc-clip`); by default the eye's own."""
    keep_seen: bool = True
    """Let the eye see each picture once, and its mirror image, and keep what it says on disk in half precision."""
    measures: tuple[Source, ...] = ("head", "dense", "crop")
    """What is measured at the end: the head alone, with the eye's map, with masks cut out."""
    curve_pictures: int = 100
    """Pictures of a split that are looked at while training, spread evenly; 0 for all."""
    test_pictures: int = 0
    """The same at the end."""

    @classmethod
    def from_eye(cls, source: str | os.PathLike[str], **fields: Any) -> Self:
        """A config whose eye is the image-text model that `source` holds, as `eyesmith.load` takes it."""
        name = os.fspath(source)
        found = read_stored(name).config
        if not isinstance(found, ClipConfig):
            raise CheckpointError(f"{name}: has no text tower, by which a segmenter names things; take a trained pair")
        return cls(model=found, initial=InitialConfig(weights=name), **fields)

    @property
    def model_name(self) -> str:
        return self.name

    @property
    def reads_texts(self) -> bool:
        return False

    @property
    def test_view(self) -> ViewConfig:
        """What the eye sees where pictures are searched."""
        return replace(self.view, stride_px=self.test_stride_px) if self.test_stride_px else self.view

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name:
            raise ConfigError("name: expected what the model shall be called, got nothing")
        if self.augment != AugmentConfig() or self.transform is not None:
            raise ConfigError("augment and transform: pictures with masks have `jitter` instead; leave them out")
        if self.data.more_paths or self.data.weights:
            raise ConfigError("data: a segmenter reads one set of annotations; leave out more_paths and weights")
        if self.keep_seen and not self.jitter.is_still:
            raise ConfigError(
                "keep_seen: what the eye says is kept only where pictures stay as they are; set keep_seen=false, or "
                "jitter.low and jitter.high to 1"
            )
        if self.initial.part != "all":
            raise ConfigError("initial.part: a segmenter needs both towers of its eye; set it to all")
        if self.parallel.strategy == "fsdp":
            raise ConfigError("parallel.strategy: a segmenter's head is small, and its eye is frozen; take ddp or none")
        if self.eval.curve_data or self.eval.suites:
            raise ConfigError("eval.curve_data and eval.suites: a segmenter is measured on splits of its own data")
        if min(self.curve_pictures, self.test_pictures, self.test_stride_px) < 0:
            raise ConfigError("curve_pictures, test_pictures and test_stride_px: expected 0 or more")
        if self.test_stride_px and not self.view.window_px:
            raise ConfigError("test_stride_px: goes with view.window_px, which is 0")


class Seeing(nn.Module):
    """A segmenter's head beside its eye, whose weights are not among the parameters."""

    def __init__(self, image: FrozenEncoder, head: SegmentHead) -> None:
        super().__init__()
        self.image, self.head = image, head

    def forward(self, maps: Mapping[str, Tensor]) -> list[Prediction]:
        """As the head's."""
        return self.head(maps)


class Segment(Task[Seeing]):
    """Pictures with masks: Mask2Former's loss over the global batch, every layer of the decoder supervised.

    Measured by panoptic quality and mIoU of base, novel and all classes.
    """

    config_type = SegmentConfig
    config: SegmentConfig

    def __init__(
        self,
        model: Seeing,
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
        super().__init__(model, config)
        self.clip, self._kept = clip, kept
        self._trained, self._things, self._place = tuple(map(tuple, trained)), tuple(things), place

    @property
    def eye(self) -> FrozenEncoder:
        """What sees the pictures."""
        return self.model.image

    @property
    def head(self) -> SegmentHead:
        """What trains."""
        return self.model.head

    @classmethod
    def new_model(cls, config: SegmentConfig) -> Seeing:
        return _seeing(config, config.model.image.build())

    @classmethod
    def open_rows(cls, config: SegmentConfig, world: World) -> DetectionRows:
        return DetectionRows(
            open_set(config),
            config.batch_size,
            own=world.share(config.batch_size),
            seed=config.seed,
            side=config.view.side_px,
            mean=config.model.preprocess.mean,
            jitter=config.jitter,
            has_masks=True,
            is_seen=config.keep_seen,
            num_workers=config.data.num_workers,
            max_skipped_frac=config.data.max_skipped_frac,
            epoch_steps=config.data.epoch_samples // config.batch_size,
        )

    @classmethod
    def build(cls, config: SegmentConfig, rows: Rows, context: RunContext) -> Self:
        assert isinstance(rows, DetectionRows)
        for split in (*config.eval.splits, *config.eval.curve_splits):
            open_set(config, split)  # a wrong name is better known before the training than after
        if not config.initial.weights:
            raise ConfigError("initial.weights: expected a trained model as the eye; give one by --from RUN")
        device = context.world.device()
        clip = config.model.build()
        with context.world.first_on_each_machine():
            load_initial(clip, config.initial, note=context.say)
        clip.requires_grad_(False).eval().to(device)
        if "dense" in config.measures:
            check_dense(clip)
        torch.manual_seed(config.seed)  # loading may draw
        model = _seeing(config, clip.image).to(device)
        eye, head = model.image, model.head
        kept = None
        if config.keep_seen:
            with context.world.first_on_each_machine():
                kept = _see_all(config, eye, head.taps, rows, context)
            rows.leave_out({place // 2 for place in kept.lacking()} & set(rows.used))
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
    def from_weights(cls, config: SegmentConfig, source: str) -> SegmentConfig:
        """A run with the source's model as its eye."""
        found = SegmentConfig.from_eye(source, name=config.name, data=config.data)
        return replace(config, model=found.model, initial=found.initial)

    @classmethod
    def skeleton(cls, config: SegmentConfig) -> nn.Module:
        with torch.device("meta"):
            return cls.new_model(config).to("meta")  # transformers makes a table where it likes

    @classmethod
    def image_plan(cls, config: SegmentConfig, model: nn.Module) -> ImagePlan:
        """The eye's passes over its windows, once a picture where they are kept, and the decoder with its gradient."""
        seeing, view = cast(Seeing, model), config.view
        eye = seeing.image
        count = eye.num_windows if isinstance(eye, SlidingEncoder) else 1
        side = view.window_px or view.side_px
        window = encoder_cost(replace(config.model.image, image_size=(side, side))).tower.macs
        head = seeing.head.decoder.macs(view.side_px)
        times = 2 / config.epochs if config.keep_seen else 1.0  # mirrored too
        shown = f"{count} windows of {side} px" if count > 1 else f"{side} px whole"
        kept = ", once and mirrored, and keeps it" if config.keep_seen else ", without gradient"
        return ImagePlan(
            flops=2.0 * count * window * times + PASSES * head,
            notes=(
                f"the eye sees {shown} of a picture of {view.side_px} px{kept}: {2e-9 * count * window:,.1f} GFLOP; "
                f"the decoder's step: {PASSES * head * 1e-9:,.1f} GFLOP, its sampling of maps and points not counted",
            ),
        )

    @classmethod
    def training_source(cls, config: SegmentConfig) -> SampleSource:
        raise ConfigError(
            f"{config.data.path}: a plan of a segmenter needs data.epoch_samples, the pictures of an epoch; set it"
        )

    def rebuild(self) -> Seeing:
        new = _seeing(self.config, self.clip.image)
        assert self.head.vocabulary is not None
        new.head.use(self.head.vocabulary)
        return new

    def teachers(self) -> Mapping[str, nn.Module]:
        return {"initial.weights": self.clip}

    def blocks(self) -> list[nn.Module]:
        return []

    def watched(self) -> dict[str, nn.Module]:
        return {}

    def row_outputs(self) -> list[nn.Module]:
        return []

    def flops(self, text_len: int | None) -> float | None:
        del text_len  # the eye's maps may be kept

    def prepare(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """kept: fp16 [b, all numbers of the maps], where they are kept."""
        del step
        if self._kept is None:
            return {}
        assert batch.indices is not None
        return {"kept": self._kept.read(2 * batch.indices + batch.extra["flips"].long())[:, 0]}

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
                predictions = parallel(self._maps(part))
            points = SeededPoints(loss, part.rows.to(device), seed=seed)
            found = mask_losses(predictions, self._targets(part), points, loss, counts)
            sums += torch.stack([one.detach().sum() for one in found])
            # processes average their gradients, and what a loss is divided by is counted over all of them
            return found.total(loss) * world.size

        parts = [partial(share, part) for part in batch.parts(config.accumulate)]
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

    def _maps(self, part: Batch) -> dict[str, Tensor]:
        if "kept" in part.extra:
            return _unpacked(part.extra["kept"], self.eye, self.head.taps)
        return self.eye.pyramid(part.pixels, self.head.taps)

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

    def save(self, folder: Path, model: nn.Module, *, config: dict[str, Any]) -> None:
        save_segmenter(folder, cast(Seeing, model).head, self.clip, config=config)

    def rows(self, model: nn.Module, splits: Sequence[str], context: RunContext) -> list[ResultRow]:
        config, head = self.config, cast(Seeing, model).head
        return context.world.once(lambda: self._measured(head, splits, config.measures, config.test_pictures, 500))

    def curve(
        self, context: RunContext, evaluators: Sequence[Evaluator]
    ) -> Callable[[nn.Module], dict[str, float]] | None:
        """Of `curve_pictures` pictures, by the cheaper sources."""
        if super().curve(context, evaluators) is None:
            return None
        config = self.config
        cheap: tuple[Source, ...] = tuple(source for source in config.measures if source != "crop") or ("head",)

        def reached(model: nn.Module) -> dict[str, float]:
            values: dict[str, float] = {}
            for split in config.eval.curve_splits:
                rows = self._measured(cast(Seeing, model).head, (split,), cheap, config.curve_pictures, 1)
                values |= {f"{split}/{row.model.split()[-1]}_{row.split}_{row.metric}": row.value for row in rows}
            return values

        return lambda model: context.world.once(lambda: reached(model))

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
        run = {
            "weights": weights_hash(head),
            "eye": self.eye.identity(),
            "view": to_dict(config.test_view),
            "predict": to_dict(config.predict),
            "prompts": config.prompts,
            "precision": "fp32",
            "decoders": decoders(),
        }
        for place, split in enumerate(splits):
            data, prefix = open_set(config, split), f"{split}:" if place else ""
            run["data"] = data.name
            rows += measure(
                finder, data, sources, model=config.name, prefix=prefix, most=most, replicates=replicates, run=run
            )
        if before is not None:
            head.use(before)
        return rows


def open_set(config: SegmentConfig, split: str | None = None) -> Annotations:
    """The annotations that a run learns from, or those of another split."""
    return open_annotations(config.data.path, split or config.data.split, images=config.images or None)


def _seeing(config: SegmentConfig, encoder: Encoder) -> Seeing:
    """A new head beside an eye."""
    eye = config.view.around(encoder)
    return Seeing(eye, config.head.build(eye.taps, eye.embed_dim))


def _see_all(
    config: SegmentConfig, eye: FrozenEncoder, taps: Sequence[str], rows: DetectionRows, context: RunContext
) -> KeptFeatures:
    """The maps of every picture and its mirror image, computed now or found on disk."""
    device = context.world.device()
    facts = [eye.identity(), to_dict(config.view), list(taps), rows.images_hash(), rows.fingerprint(), decoders()]
    return keep_features(
        lambda pixels: torch.cat([one.flatten(1) for one in eye.pyramid(pixels, taps).values()], 1)[:, None],
        lambda: rows.views(_PICTURES),
        num_samples=2 * len(rows.data),
        facts=["segment", *facts],
        field="keep_seen",
        precision=choose_precision(config.precision, device),
        device=device,
    )


def _unpacked(kept: Tensor, eye: FrozenEncoder, taps: Sequence[str]) -> dict[str, Tensor]:
    """fp32 maps of [b, all numbers]."""
    height, width = eye.image_size
    sizes = [(eye.taps[one].channels, height // eye.taps[one].stride, width // eye.taps[one].stride) for one in taps]
    parts = kept.float().split([c * h * w for c, h, w in sizes], 1)
    return {name: part.unflatten(1, size) for name, part, size in zip(taps, parts, sizes, strict=True)}
