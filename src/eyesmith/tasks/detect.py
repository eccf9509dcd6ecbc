"""Training a detector on a frozen eye, which then finds whatever can be named: F-ViT, whole or in windows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from eyesmith.config import to_dict
from eyesmith.data.annotations import Annotations
from eyesmith.data.loader import Batch, Rows
from eyesmith.data.order import step_seed
from eyesmith.dense.detect.cost import head_macs
from eyesmith.dense.detect.detector import LOSSES, Detector, DetectorConfig, Teach
from eyesmith.dense.detect.measure import check_instances, rows_of, search
from eyesmith.dense.detect.object_detector import AGNOSTIC, BACKGROUND, ObjectDetector, words
from eyesmith.dense.detect.predict import PredictConfig, Source
from eyesmith.dense.detect.truths import Truths
from eyesmith.dense.frozen import FrozenEncoder
from eyesmith.dense.rows import AnnotatedRows
from eyesmith.eval import ResultRow
from eyesmith.eval.located import average_precision
from eyesmith.eval.located.rows import class_groups
from eyesmith.hub.run_folder import DETECT_KIND
from eyesmith.models.clip import Clip
from eyesmith.tasks.on_eye import LAST, OnEye, OnEyeConfig, Seeing
from eyesmith.tasks.task import ImagePlan, MeanTask, RunContext
from eyesmith.train.kept import KeptFeatures
from eyesmith.train.objective import StepLoss, Wrapped


@dataclass(frozen=True, kw_only=True)
class DetectConfig(OnEyeConfig):
    """A complete run that trains a detector's head; the eye never trains.

    `model` and `initial.weights` are the eye's, with the text tower that names are read by.
    """

    kind: ClassVar[str] = "detector"

    head: DetectorConfig = field(default_factory=DetectorConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    background: str = BACKGROUND
    """The word for what is nothing."""
    measures: tuple[Source, ...] = ("detector", "dense", "crop")
    """What is measured at the end: the detector alone, with the eye's map, with regions cut out."""
    curve_pictures: int = 200
    """Pictures of a split that are looked at while training, spread evenly; 0 for all."""


class Detect(OnEye[Detector], MeanTask[Seeing[Detector]]):
    """Pictures with boxes: the sum of the detector's losses, a mean over the pictures of the global batch.

    Measured by average precision at an overlap of a half, of base, novel and all classes, and of anything at all.
    """

    config_type = DetectConfig
    config: DetectConfig

    def __init__(
        self,
        model: Seeing[Detector],
        config: DetectConfig,
        *,
        clip: Clip,
        trained: Sequence[str],
        seen: Tensor,
        kept: KeptFeatures | None = None,
    ) -> None:
        """trained: names that are learnt; seen: bool [K], which of the vocabulary they are. kept: see `keep_seen`."""
        super().__init__(model, config, clip=clip, kept=kept)
        self._trained, self._seen = tuple(trained), seen.to(self.device)
        self._sums = torch.zeros(len(LOSSES), device=self.device)
        self._step = 0

    @classmethod
    def make_head(cls, config: DetectConfig, eye: FrozenEncoder) -> Detector:
        return Detector(config.head, eye.taps, eye.half_tap, eye.embed_dim)

    @classmethod
    def maps_of(cls, config: DetectConfig, head: Detector) -> tuple[str, ...]:
        return (*head.taps, LAST) if config.head.distill_weight else head.taps

    @classmethod
    def has_masks(cls, config: DetectConfig) -> bool:
        return config.head.has_masks

    @classmethod
    def needs_dense(cls, config: DetectConfig) -> bool:
        return super().needs_dense(config) or bool(config.head.distill_weight)

    @classmethod
    def open_set(cls, config: DetectConfig, split: str | None = None) -> Annotations:
        found = super().open_set(config, split)
        check_instances(found)
        return found

    @classmethod
    def build(cls, config: DetectConfig, rows: Rows, context: RunContext) -> Self:
        assert isinstance(rows, AnnotatedRows)
        clip, model, kept = cls.open_eye(config, rows, context)
        detector = model.head
        seen = rows.seen
        names = rows.data.names
        with context.world.first_on_each_machine():
            detector.use(*words(clip, names, config.prompts, config.background))
        trained = [name for name, is_seen in zip(names, seen.tolist(), strict=True) if is_seen]
        held = f", {len(names) - len(trained)} have none to learn" if len(trained) < len(names) else ""
        count = sum(value.numel() for value in detector.parameters())
        context.say(
            f"{len(trained)} classes are learnt from {int(rows.counts.sum()):,} objects in {rows.num_samples:,} "
            f"pictures{held}; {count:,} parameters train"
        )
        return cls(model, config, clip=clip, trained=trained, seen=seen, kept=kept)

    @classmethod
    def image_plan(cls, config: DetectConfig, model: nn.Module) -> ImagePlan:
        """The eye's passes over its windows, once a picture where they are kept, and the head with its gradient."""
        seeing, box = cast(Seeing[Detector], model), config.head.box
        positives = round(box.samples * box.positive_frac)
        macs = head_macs(seeing.head, config.view.side_px, regions=box.samples, masks=positives)
        return cls.plan_of(config, seeing, macs, "the head's step: {}")

    def rebuild(self) -> Seeing[Detector]:
        new, head = self.beside(self.config, self.clip.image), self.model.head
        assert head.vocabulary is not None
        new.head.use(head.vocabulary, head.ground().detach())
        return new

    def backward(self, parallel: Wrapped, batch: Batch, step: int) -> StepLoss:
        self._step = step
        self._sums = torch.zeros(len(LOSSES), device=self.device)
        found = super().backward(parallel, batch, step)
        world = parallel.world
        sums = torch.stack([world.total(value) for value in self._sums])
        means = sums / world.total(self.num_terms(batch))
        names = LOSSES[: None if self.config.head.distill_weight else -1]
        if not self.config.head.has_masks:
            names = tuple(name for name in names if name != "masks")
        return found._replace(parts={name: means[LOSSES.index(name)] for name in names})

    def outputs(self, model: Wrapped, part: Batch) -> Tensor:
        """The losses of each picture, [6, b]."""
        extra, maps = part.extra, self.maps(part)
        truths = Truths(
            boxes=extra["boxes"],
            labels=extra["labels"],
            sizes=extra["sizes"],
            rows=part.rows,
            masks=extra.get("masks"),
        )
        teacher = Teach(self.eye, maps[LAST]) if self.config.head.distill_weight else None
        return model(maps, truths, self._seen, step_seed(self.config.seed, self._step), teacher)

    def terms(self, outputs: Tensor, part: Batch) -> Tensor:
        self._sums += outputs.detach().sum(1)
        return outputs.sum(0)

    def description(self) -> dict[str, Any]:
        config = self.config
        return {
            "kind": DETECT_KIND,
            "name": config.name,
            "head": to_dict(config.head),
            "view": to_dict(config.view),
            "predict": to_dict(config.predict),
            "prompts": config.prompts,
            "background": config.background,
            "trained": list(self._trained),
        }

    def facts(self) -> dict[str, Any]:
        return {"eye": self.eye.identity(), "classes": len(self._trained), "taps": list(self.model.head.taps)}

    def rows(self, model: nn.Module, splits: Sequence[str], context: RunContext) -> list[ResultRow]:
        return context.world.once(lambda: self._measured(cast(Seeing[Detector], model).head, splits))

    def curve_values(self, model: nn.Module, context: RunContext) -> dict[str, float]:
        """AP50 of `curve_pictures` pictures by the detector alone, of classes and of anything at all."""
        config = self.config

        def measure() -> dict[str, float]:
            values: dict[str, float] = {}
            with self._finder(cast(Seeing[Detector], model).head) as finder:
                for split in config.eval.curve_splits:
                    data = self.open_set(config, split)
                    truth, found = search(finder, data, ("detector",), most=config.curve_pictures)
                    by_class = average_precision(truth, found["detector"])
                    named = {part: by_class.mean("ap50", which) for part, which in class_groups(truth).items()}
                    anything = average_precision(truth, found[AGNOSTIC], agnostic=True)
                    named["agnostic"] = anything.mean("ap50")
                    values |= {f"{split}/{part}_ap50": value for part, value in named.items() if value == value}
            return values

        return context.world.once(measure)

    def _measured(self, head: Detector, splits: Sequence[str]) -> list[ResultRow]:
        config, rows = self.config, list[ResultRow]()
        with self._finder(head) as finder:
            for place, split in enumerate(splits):
                found = search(finder, self.open_set(config, split), config.measures)
                rows += rows_of(finder, found, model=config.name, prefix=f"{split}:" if place else "")
        return rows

    @contextmanager
    def _finder(self, head: Detector) -> Iterator[ObjectDetector]:
        """What looks for any names with the head, which then looks for its own again."""
        config = self.config
        before, ground = head.vocabulary, head.ground().detach().clone()
        assert before is not None
        try:
            yield ObjectDetector(
                self.clip,
                head,
                config.view,
                config.predict,
                trained=self._trained,
                prompts=config.prompts,
                background=config.background,
            )
        finally:
            head.use(before, ground)
