"""Training a detector on a frozen eye, which then finds whatever can be named: F-ViT, whole or in windows."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from eyesmith.config import to_dict
from eyesmith.data.annotations import Annotations, open_annotations
from eyesmith.data.loader import Batch, Rows
from eyesmith.data.order import step_seed
from eyesmith.data.sample import Source as SampleSource
from eyesmith.dense.detect.cost import head_macs
from eyesmith.dense.detect.detector import LOSSES, Detector, DetectorConfig, Teach
from eyesmith.dense.detect.object_detector import AGNOSTIC, BACKGROUND, ObjectDetector, check_dense, words
from eyesmith.dense.detect.predict import PredictConfig, Source
from eyesmith.dense.detect.rows import DetectionRows
from eyesmith.dense.detect.run_folder import DETECT_KIND, save_detector
from eyesmith.dense.detect.truths import Truths
from eyesmith.dense.detect.view import Fit, JitterConfig, ViewConfig, fit, view_pixels
from eyesmith.dense.frozen import FrozenEncoder
from eyesmith.dense.sliding import SlidingEncoder
from eyesmith.errors import CheckpointError, ConfigError, DataError, ImageError
from eyesmith.eval import ResultRow
from eyesmith.eval.features.identity import decoders
from eyesmith.eval.located import Found, average_precision, detect_rows
from eyesmith.eval.located.rows import class_groups
from eyesmith.hub.initial import InitialConfig, load_initial
from eyesmith.hub.stored import read_stored
from eyesmith.images.augment import AugmentConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.cost import encoder_cost
from eyesmith.models.encoder import Encoder
from eyesmith.models.identity import weights_hash
from eyesmith.tasks.task import PASSES, Evaluator, ImagePlan, MeanTask, RunContext
from eyesmith.train.config import RunConfig
from eyesmith.train.distributed import World
from eyesmith.train.kept import KeptFeatures, keep_features
from eyesmith.train.objective import StepLoss, Wrapped
from eyesmith.train.precision import choose_precision

_PICTURES = 16  # that the eye sees at a time
_LAST = "dense"  # what the eye's last map is called beside the taps


@dataclass(frozen=True, kw_only=True)
class DetectConfig(RunConfig):
    """A complete run that trains a detector's head; the eye never trains.

    `model` and `initial.weights` are the eye's, with the text tower that names are read by.
    """

    model: ClipConfig
    name: str
    """What the model is called in tables and results."""
    head: DetectorConfig = field(default_factory=DetectorConfig)
    view: ViewConfig = field(default_factory=ViewConfig)
    jitter: JitterConfig = field(default_factory=JitterConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    images: str = ""
    """Folder of the pictures; by default looked for beside the annotations."""
    prompts: str = ""
    """Sentences that names are put into, by their name (`f-vit`); by default the eye's own."""
    background: str = BACKGROUND
    """The word for what is nothing."""
    keep_seen: bool = True
    """Let the eye see each picture once, and its mirror image, and keep what it says on disk in half precision."""
    measures: tuple[Source, ...] = ("detector", "dense", "crop")
    """What is measured at the end: the detector alone, with the eye's map, with regions cut out."""
    curve_pictures: int = 200
    """Pictures of a split that are looked at while training, spread evenly; 0 for all."""

    @classmethod
    def from_eye(cls, source: str | os.PathLike[str], **fields: Any) -> Self:
        """A config whose eye is the image-text model that `source` holds, as `eyesmith.load` takes it."""
        name = os.fspath(source)
        found = read_stored(name).config
        if not isinstance(found, ClipConfig):
            raise CheckpointError(f"{name}: has no text tower, by which a detector names things; take a trained pair")
        return cls(model=found, initial=InitialConfig(weights=name), **fields)

    @property
    def model_name(self) -> str:
        return self.name

    @property
    def reads_texts(self) -> bool:
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name:
            raise ConfigError("name: expected what the model shall be called, got nothing")
        if self.augment != AugmentConfig() or self.transform is not None:
            raise ConfigError("augment and transform: pictures with boxes have `jitter` instead; leave them out")
        if self.data.more_paths or self.data.weights:
            raise ConfigError("data: a detector reads one set of annotations; leave out more_paths and weights")
        if self.keep_seen and not self.jitter.is_still:
            raise ConfigError(
                "keep_seen: what the eye says is kept only where pictures stay as they are; set keep_seen=false, or "
                "jitter.low and jitter.high to 1"
            )
        if self.initial.part != "all":
            raise ConfigError("initial.part: a detector needs both towers of its eye; set it to all")
        if self.parallel.strategy == "fsdp":
            raise ConfigError("parallel.strategy: a detector's head is small, and its eye is frozen; take ddp or none")
        if self.eval.curve_data or self.eval.suites:
            raise ConfigError("eval.curve_data and eval.suites: a detector is measured on splits of its own data")
        if self.curve_pictures < 0:
            raise ConfigError(f"curve_pictures: expected 0 or more, got {self.curve_pictures}")


class Seeing(nn.Module):
    """A detector's head beside its eye, whose weights are not among the parameters."""

    def __init__(self, image: FrozenEncoder, head: Detector) -> None:
        super().__init__()
        self.image, self.head = image, head

    def forward(self, *given: Any) -> Tensor:
        """As the head's."""
        return self.head(*given)


class Detect(MeanTask[Seeing]):
    """Pictures with boxes: the sum of the detector's losses, a mean over the pictures of the global batch.

    Measured by average precision at an overlap of a half, of base, novel and all classes, and of anything at all.
    """

    config_type = DetectConfig
    config: DetectConfig

    def __init__(
        self,
        model: Seeing,
        config: DetectConfig,
        *,
        clip: Clip,
        trained: Sequence[str],
        seen: Tensor,
        kept: KeptFeatures | None = None,
    ) -> None:
        """trained: names that are learnt; seen: bool [K], which of the vocabulary they are. kept: see `keep_seen`."""
        super().__init__(model, config)
        self.clip, self._kept = clip, kept
        self._trained, self._seen = tuple(trained), seen.to(self.device)
        self._sums = torch.zeros(len(LOSSES), device=self.device)
        self._step = 0

    @property
    def eye(self) -> FrozenEncoder:
        """What sees the pictures."""
        return self.model.image

    @classmethod
    def new_model(cls, config: DetectConfig) -> Seeing:
        return _seeing(config, config.model.image.build())

    @classmethod
    def open_rows(cls, config: DetectConfig, world: World) -> DetectionRows:
        return DetectionRows(
            open_set(config),
            config.batch_size,
            own=world.share(config.batch_size),
            seed=config.seed,
            side=config.view.side_px,
            mean=config.model.preprocess.mean,
            jitter=config.jitter,
            has_masks=config.head.has_masks,
            is_seen=config.keep_seen,
            num_workers=config.data.num_workers,
            max_skipped_frac=config.data.max_skipped_frac,
            epoch_steps=config.data.epoch_samples // config.batch_size,
        )

    @classmethod
    def build(cls, config: DetectConfig, rows: Rows, context: RunContext) -> Self:
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
        if "dense" in config.measures or config.head.distill_weight:
            check_dense(clip)
        kept = None
        torch.manual_seed(config.seed)  # loading may draw
        model = _seeing(config, clip.image).to(device)
        eye, detector = model.image, model.head
        if config.keep_seen:
            with context.world.first_on_each_machine():
                kept = _see_all(config, eye, cls._names(config, detector), rows, context)
            rows.leave_out({place // 2 for place in kept.lacking() if place % 2 == 0} & set(rows.used))
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
    def from_weights(cls, config: DetectConfig, source: str) -> DetectConfig:
        """A run with the source's model as its eye."""
        found = DetectConfig.from_eye(source, name=config.name, data=config.data)
        return replace(config, model=found.model, initial=found.initial)

    @classmethod
    def skeleton(cls, config: DetectConfig) -> nn.Module:
        with torch.device("meta"):
            return cls.new_model(config)

    @classmethod
    def image_plan(cls, config: DetectConfig, model: nn.Module) -> ImagePlan:
        """The eye's passes over its windows, once a picture where they are kept, and the head with its gradient."""
        seeing = cast(Seeing, model)
        eye, view, box = seeing.image, config.view, config.head.box
        count = eye.num_windows if isinstance(eye, SlidingEncoder) else 1
        side = view.window_px or view.side_px
        window = encoder_cost(replace(config.model.image, image_size=(side, side))).tower.macs
        positives = round(box.samples * box.positive_frac)
        head = head_macs(seeing.head, view.side_px, regions=box.samples, masks=positives)
        times = 2 / config.epochs if config.keep_seen else 1.0  # mirrored too
        shown = f"{count} windows of {side} px" if count > 1 else f"{side} px whole"
        kept = ", once and mirrored, and keeps it" if config.keep_seen else ", without gradient"
        return ImagePlan(
            flops=2.0 * count * window * times + PASSES * head,
            notes=(
                f"the eye sees {shown} of a picture of {view.side_px} px{kept}: {2e-9 * count * window:,.1f} GFLOP; "
                f"the head's step: {PASSES * head * 1e-9:,.1f} GFLOP",
            ),
        )

    @classmethod
    def training_source(cls, config: DetectConfig) -> SampleSource:
        raise ConfigError(
            f"{config.data.path}: a plan of a detector needs data.epoch_samples, the pictures of an epoch; set it"
        )

    @staticmethod
    def _names(config: DetectConfig, detector: Detector) -> tuple[str, ...]:
        """The maps that a step needs."""
        return (*detector.taps, _LAST) if config.head.distill_weight else detector.taps

    def rebuild(self) -> Seeing:
        new, head = _seeing(self.config, self.clip.image), self.model.head
        assert head.vocabulary is not None
        new.head.use(head.vocabulary, head.ground().detach())
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
        del text_len  # proposals vary, and the eye's maps may be kept

    def prepare(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """kept: fp16 [b, all numbers of the maps], where they are kept."""
        del step
        if self._kept is None:
            return {}
        assert batch.indices is not None
        return {"kept": self._kept.read(2 * batch.indices + batch.extra["flips"].long())[:, 0]}

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

    def maps(self, part: Batch) -> dict[str, Tensor]:
        """The eye's maps of some pictures, kept or seen now, by tap."""
        names = self._names(self.config, self.model.head)
        if "kept" in part.extra:
            return _unpacked(part.extra["kept"], self.eye, names)
        return _seen(self.eye, names, part.pixels)

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
        teacher = Teach(self.eye, maps[_LAST]) if self.config.head.distill_weight else None
        return model(maps, truths, self._seen, step_seed(self.config.seed, self._step), teacher)

    def terms(self, outputs: Tensor, part: Batch) -> Tensor:
        del part
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

    def save(self, folder: Path, model: nn.Module, *, config: dict[str, Any]) -> None:
        save_detector(folder, cast(Seeing, model).head, self.clip, config=config)

    def rows(self, model: nn.Module, splits: Sequence[str], context: RunContext) -> list[ResultRow]:
        return context.world.once(lambda: self._measured(cast(Seeing, model).head, splits))

    def curve(
        self, context: RunContext, evaluators: Sequence[Evaluator]
    ) -> Callable[[nn.Module], dict[str, float]] | None:
        """AP50 of `curve_pictures` pictures by the detector alone, of classes and of anything at all."""
        if super().curve(context, evaluators) is None:
            return None
        config = self.config

        def measure(model: nn.Module) -> dict[str, float]:
            values: dict[str, float] = {}
            for split in config.eval.curve_splits:
                data, found = self._found(cast(Seeing, model).head, split, ("detector",), config.curve_pictures)
                by_class = average_precision(data, found["detector"], lvis=False)
                named = {part: by_class.mean("ap50", which) for part, which in class_groups(data).items()}
                named["agnostic"] = average_precision(data, found[AGNOSTIC], lvis=False, agnostic=True).mean("ap50")
                values |= {f"{split}/{part}_ap50": value for part, value in named.items() if value == value}
            return values

        return lambda model: context.world.once(lambda: measure(model))

    def _measured(self, head: Detector, splits: Sequence[str]) -> list[ResultRow]:
        config, rows = self.config, list[ResultRow]()
        weights = weights_hash(head)
        for place, split in enumerate(splits):
            data, found = self._found(head, split, config.measures)
            for source in config.measures:
                some = detect_rows(
                    data,
                    found[source],
                    model=config.name,
                    setting=source,
                    agnostic=found[AGNOSTIC],
                    masks=config.head.has_masks,
                    per_image=config.predict.per_image,
                    run={
                        "weights": weights,
                        "eye": self.eye.identity(),
                        "view": to_dict(config.view),
                        "predict": to_dict(config.predict),
                        "prompts": config.prompts,
                        "classes": len(data.categories),
                        "decoders": decoders(),
                        "precision": "fp32",
                    },
                )
                rows += [replace(row, split=f"{split}:{row.split}") for row in some] if place else some
        return rows

    def _found(
        self, head: Detector, split: str, sources: tuple[Source, ...], most: int = 0
    ) -> tuple[Annotations, dict[str, list[Found]]]:
        """What is found in pictures of a split, by source, and these pictures: what was not learnt counts as novel."""
        config, data = self.config, open_set(self.config, split)
        before, ground = head.vocabulary, head.ground().detach().clone()
        finder = ObjectDetector(
            self.clip,
            head,
            config.view,
            config.predict,
            trained=self._trained,
            prompts=config.prompts,
            background=config.background,
        )
        try:
            seen = finder.use(data.names).seen(self._trained).tolist()
            pictures, found = found_in(finder, data, sources, most=most)
        finally:
            assert before is not None
            head.use(before, ground)
        categories = [replace(one, is_novel=not known) for one, known in zip(data.categories, seen, strict=True)]
        chosen = replace(
            data,
            categories=tuple(categories),
            pictures=[data.pictures[place] for place in pictures],
            read=lambda place: data.objects(pictures[place]),
        )
        return chosen, found


def found_in(
    finder: ObjectDetector, data: Annotations, sources: tuple[Source, ...], *, most: int = 0
) -> tuple[list[int], dict[str, list[Found]]]:
    """What each source, and `AGNOSTIC`, finds in pictures of a set: places of the pictures, detections by source.

    most: pictures, spread evenly; 0 for all. Pictures that cannot be read are left out; DataError where all are.
    """
    step = max(1, -(-len(data) // most)) if most else 1
    pictures, found = list[int](), {name: list[Found]() for name in (*sources, AGNOSTIC)}
    for places, pixels, how in _pictures(data, range(0, len(data), step), finder):
        pictures += places
        for one in finder.search(pixels.to(finder.device), how, sources):
            for name, detections in one.items():
                found[name].append(detections.to_found())
    if not pictures:
        raise DataError(f"{data.name}: none of its pictures can be read")
    return pictures, found


def _pictures(
    data: Annotations, places: Sequence[int], finder: ObjectDetector
) -> Iterator[tuple[list[int], Tensor, list[Fit]]]:
    side, mean = finder.view.side_px, finder.clip.image.mean
    for start in range(0, len(places), _PICTURES):
        good, pixels, fits = list[int](), list[Tensor](), list[Fit]()
        for place in places[start : start + _PICTURES]:
            try:
                image = data.image(place)
                how = fit((image.height, image.width), side)
                pixels.append(view_pixels(image, how, side, mean))
            except (ImageError, DataError):
                continue
            good.append(place)
            fits.append(how)
        if good:
            yield good, torch.stack(pixels), fits


def open_set(config: DetectConfig, split: str | None = None) -> Annotations:
    """The annotations that a run learns from, or those of another split."""
    found = open_annotations(config.data.path, split or config.data.split, images=config.images or None)
    if found.kind == "semantic":
        raise DataError(f"{config.data.path}: has whole classes, not single objects; a detector needs instances")
    return found


def _seeing(config: DetectConfig, encoder: Encoder) -> Seeing:
    """A new head beside an eye."""
    eye = config.view.around(encoder)
    return Seeing(eye, Detector(config.head, eye.taps, eye.half_tap, eye.embed_dim))


def _see_all(
    config: DetectConfig, eye: FrozenEncoder, names: Sequence[str], rows: DetectionRows, context: RunContext
) -> KeptFeatures:
    """The maps of every picture and its mirror image, computed now or found on disk."""
    device = context.world.device()
    facts = [eye.identity(), to_dict(config.view), list(names), rows.images_hash(), rows.fingerprint(), decoders()]
    facts.append(config.jitter.flip_prob > 0)
    return keep_features(
        lambda pixels: _packed(_seen(eye, names, pixels)),
        lambda: rows.views(_PICTURES),
        num_samples=2 * len(rows.data),
        facts=["detect", *facts],
        field="keep_seen",
        precision=choose_precision(config.precision, device),
        device=device,
    )


def _seen(eye: FrozenEncoder, names: Sequence[str], pixels: Tensor) -> dict[str, Tensor]:
    taps = [name for name in names if name != _LAST]
    found = eye.pyramid(pixels, taps)
    return {**found, _LAST: eye.dense(pixels)} if _LAST in names else found


def _packed(maps: Mapping[str, Tensor]) -> Tensor:
    """[b, 1, all numbers], map by map."""
    return torch.cat([value.flatten(1) for value in maps.values()], 1)[:, None]


def _unpacked(kept: Tensor, eye: FrozenEncoder, names: Sequence[str]) -> dict[str, Tensor]:
    """fp32 maps of [b, all numbers]."""
    last = list(eye.taps.values())[-1]
    height, width = eye.image_size
    sizes = []
    for name in names:
        tap = last if name == _LAST else eye.taps[name]
        sizes.append((tap.channels, height // tap.stride, width // tap.stride))
    parts = kept.float().split([c * h * w for c, h, w in sizes], 1)
    return {name: part.unflatten(1, size) for name, part, size in zip(names, parts, sizes, strict=True)}
