"""What runs share that train a head on a frozen eye, from pictures with boxes or masks; no task by itself."""

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar, cast

import torch
from torch import Tensor, nn

from eyesmith.config import check_least, to_dict
from eyesmith.data.annotations import Annotations, open_annotations
from eyesmith.data.loader import Batch, Rows
from eyesmith.data.sample import Source as SampleSource
from eyesmith.dense.frozen import FrozenEncoder, check_dense
from eyesmith.dense.head_folder import save_head
from eyesmith.dense.rows import PICTURES, AnnotatedRows
from eyesmith.dense.sliding import SlidingEncoder
from eyesmith.dense.view import JitterConfig, ViewConfig
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.eval.features.identity import decoders
from eyesmith.hub.initial import InitialConfig, load_initial
from eyesmith.hub.stored import read_stored
from eyesmith.images.augment import AugmentConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.cost import encoder_cost
from eyesmith.tasks.task import PASSES, ImagePlan, NamedRunConfig, RunContext, Task
from eyesmith.train.distributed import World
from eyesmith.train.kept import KeptFeatures, keep_features
from eyesmith.train.precision import choose_precision

LAST = "dense"  # what the eye's last map is called beside the taps
Head = TypeVar("Head", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class OnEyeConfig(NamedRunConfig):
    """A complete run that trains a head; the eye never trains.

    `model` and `initial.weights` are the eye's, with the text tower that names are read by.
    """

    kind: ClassVar[str]
    """How messages call what is trained."""

    model: ClipConfig
    view: ViewConfig = field(default_factory=ViewConfig)
    jitter: JitterConfig = field(default_factory=JitterConfig)
    images: str = ""
    """Folder of the pictures; by default looked for beside the annotations."""
    prompts: str = ""
    """Sentences that names are put into, by their name (`f-vit`, `fc-clip`); by default the eye's own."""
    keep_seen: bool = True
    """Let the eye see each picture once, and its mirror image, and keep what it says on disk in half precision."""
    curve_pictures: int = 100
    """Pictures of a split that are looked at while training, spread evenly; 0 for all."""

    @classmethod
    def from_eye(cls, source: str | os.PathLike[str], **fields: Any) -> Self:
        """A config whose eye is the image-text model that `source` holds, as `eyesmith.load` takes it."""
        name = os.fspath(source)
        found = read_stored(name).config
        if not isinstance(found, ClipConfig):
            raise CheckpointError(f"{name}: has no text tower, by which a {cls.kind} names things; take a trained pair")
        return cls(model=found, initial=InitialConfig(weights=name), **fields)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augment != AugmentConfig() or self.transform is not None:
            raise ConfigError("augment and transform: pictures with boxes or masks have `jitter` instead")
        if self.data.more_paths or self.data.weights:
            raise ConfigError(f"data: a {self.kind} reads one set of annotations; leave out more_paths and weights")
        if self.keep_seen and not self.jitter.is_still:
            raise ConfigError(
                "keep_seen: what the eye says is kept only where pictures stay as they are; set keep_seen=false, or "
                "jitter.low and jitter.high to 1"
            )
        if self.initial.part != "all":
            raise ConfigError(f"initial.part: a {self.kind} needs both towers of its eye; set it to all")
        if self.parallel.strategy == "fsdp":
            raise ConfigError(f"parallel.strategy: a {self.kind}'s head is small, its eye is frozen; take ddp or none")
        if self.eval.curve_data or self.eval.suites:
            raise ConfigError(f"eval.curve_data and eval.suites: a {self.kind} is measured on splits of its own data")
        check_least(self, curve_pictures=0)


class Seeing(nn.Module, Generic[Head]):
    """A head beside its eye, whose weights are not among the parameters."""

    image: FrozenEncoder
    head: Head

    def __init__(self, image: FrozenEncoder, head: Head) -> None:
        super().__init__()
        self.image, self.head = image, head

    def forward(self, *given: Any) -> Any:
        """As the head's."""
        return self.head(*given)


class Opened(NamedTuple, Generic[Head]):
    """A run's eye with its text tower, the head beside it, and the maps that are kept."""

    clip: Clip
    model: Seeing[Head]
    kept: KeptFeatures | None


class OnEye(Task[Seeing[Head]], Generic[Head]):
    """A head in training on a frozen eye."""

    def __init__(self, model: Seeing[Head], config: Any, *, clip: Clip, kept: KeptFeatures | None = None) -> None:
        """kept: see `keep_seen`."""
        super().__init__(model, config)
        self.clip, self._kept = clip, kept

    @classmethod
    @abstractmethod
    def make_head(cls, config: Any, eye: FrozenEncoder) -> Head:
        """A new head for this eye."""

    @classmethod
    @abstractmethod
    def maps_of(cls, config: Any, head: Head) -> tuple[str, ...]:
        """The maps of the eye that a step needs: taps, and LAST."""

    @classmethod
    def has_masks(cls, config: Any) -> bool:
        """Whether masks are learnt."""
        return True

    @classmethod
    def needs_dense(cls, config: Any) -> bool:
        """Whether the eye's last map must lie in the space of texts."""
        return "dense" in config.measures

    @classmethod
    def open_set(cls, config: Any, split: str | None = None) -> Annotations:
        """The annotations that a run learns from, or those of another split."""
        return open_annotations(config.data.path, split or config.data.split, images=config.images or None)

    @property
    def eye(self) -> FrozenEncoder:
        """What sees the pictures."""
        return self.model.image

    @classmethod
    def beside(cls, config: Any, encoder: Any) -> Seeing[Head]:
        """A new head beside an eye."""
        eye = config.view.around(encoder)
        return Seeing(eye, cls.make_head(config, eye))

    @classmethod
    def new_model(cls, config: Any) -> Seeing[Head]:
        return cls.beside(config, config.model.image.build())

    @classmethod
    def open_rows(cls, config: Any, world: World) -> AnnotatedRows:
        return AnnotatedRows(
            cls.open_set(config),
            config.batch_size,
            own=world.share(config.batch_size),
            seed=config.seed,
            side=config.view.side_px,
            mean=config.model.preprocess.mean,
            jitter=config.jitter,
            has_masks=cls.has_masks(config),
            is_seen=config.keep_seen,
            num_workers=config.data.num_workers,
            max_skipped_frac=config.data.max_skipped_frac,
            epoch_steps=config.data.epoch_steps(config.batch_size),
        )

    @classmethod
    def open_eye(cls, config: Any, rows: Rows, context: RunContext) -> Opened[Head]:
        """The run's eye, a new head, and what the eye says of the pictures where that is kept.

        Pictures that cannot be read leave `rows`. Raises ConfigError for a run without a trained eye.
        """
        assert isinstance(rows, AnnotatedRows)
        for split in (*config.eval.splits, *config.eval.curve_splits):
            cls.open_set(config, split)  # a wrong name is better known before the training than after
        if not config.initial.weights:
            raise ConfigError("initial.weights: expected a trained model as the eye; give one by --from RUN")
        device = context.world.device()
        clip = cast(Clip, config.model.build())
        with context.world.first_on_each_machine():
            load_initial(clip, config.initial, note=context.say)
        clip.requires_grad_(False).eval().to(device)
        if cls.needs_dense(config):
            check_dense(clip)
        torch.manual_seed(config.seed)  # loading may draw
        model = cls.beside(config, clip.image).to(device)
        kept = None
        if config.keep_seen:
            with context.world.first_on_each_machine():
                kept = _see_all(config, model.image, cls.maps_of(config, model.head), rows, context)
            # the mirror image of a picture lies behind it, and is not there where nothing is mirrored
            rows.leave_out({place // 2 for place in kept.lacking() if place % 2 == 0} & set(rows.used))
        return Opened(clip, model, kept)

    @classmethod
    def from_weights(cls, config: Any, source: str) -> Any:
        """A run with the source's model as its eye."""
        found = type(config).from_eye(source, name=config.name, data=config.data)
        return replace(config, model=found.model, initial=found.initial)

    @classmethod
    def skeleton(cls, config: Any) -> nn.Module:
        with torch.device("meta"):
            return cls.new_model(config).to("meta")  # other packages make a table where they like

    @classmethod
    def plan_of(cls, config: Any, model: Seeing[Head], head_macs: float, note: str) -> ImagePlan:
        """The eye's passes over its windows, once a picture where they are kept, and the head with its gradient.

        note: what the head's operations are called, with what is not among them.
        """
        eye, view = model.image, config.view
        count = eye.num_windows if isinstance(eye, SlidingEncoder) else 1
        side = view.window_px or view.side_px
        window = encoder_cost(replace(config.model.image, image_size=(side, side))).tower.macs
        times = 2 / config.epochs if config.keep_seen else 1.0  # mirrored too
        shown = f"{count} windows of {side} px" if count > 1 else f"{side} px whole"
        kept = ", once and mirrored, and keeps it" if config.keep_seen else ", without gradient"
        return ImagePlan(
            flops=2.0 * count * window * times + PASSES * head_macs,
            notes=(
                f"the eye sees {shown} of a picture of {view.side_px} px{kept}: {2e-9 * count * window:,.1f} GFLOP; "
                + note.format(f"{PASSES * head_macs * 1e-9:,.1f} GFLOP"),
            ),
        )

    @classmethod
    def training_source(cls, config: Any) -> SampleSource:
        raise ConfigError(
            f"{config.data.path}: a plan of a {config.kind} needs data.epoch_samples, the pictures of an epoch; set it"
        )

    def teachers(self) -> Mapping[str, nn.Module]:
        return {"initial.weights": self.clip}

    def blocks(self) -> list[nn.Module]:
        return []

    def watched(self) -> dict[str, nn.Module]:
        return {}

    def row_outputs(self) -> list[nn.Module]:
        return []

    def flops(self, text_len: int | None) -> float | None:
        return None  # what a head does varies, and the eye's maps may be kept

    def prepare(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """kept: fp16 [b, all numbers of the maps], where they are kept."""
        if self._kept is None:
            return {}
        assert batch.indices is not None
        return {"kept": self._kept.read(2 * batch.indices + batch.extra["flips"].long())[:, 0]}

    def maps(self, part: Batch) -> dict[str, Tensor]:
        """The eye's maps of some pictures, kept or seen now, by name."""
        names = self.maps_of(self.config, self.model.head)
        if "kept" in part.extra:
            return _unpacked(part.extra["kept"], self.eye, names)
        return _seen(self.eye, names, part.pixels)

    def save(self, folder: Path, model: nn.Module, *, config: dict[str, Any]) -> None:
        save_head(folder, cast(Seeing[Head], model).head, self.clip, config=config)


def _see_all(
    config: OnEyeConfig, eye: FrozenEncoder, names: Sequence[str], rows: AnnotatedRows, context: RunContext
) -> KeptFeatures:
    """The maps of every picture and its mirror image, computed now or found on disk."""
    device = context.world.device()
    facts = [eye.identity(), to_dict(config.view), list(names), rows.images_hash(), rows.fingerprint(), decoders()]
    facts.append(config.jitter.flip_prob > 0)
    return keep_features(
        lambda pixels: torch.cat([one.flatten(1) for one in _seen(eye, names, pixels).values()], 1)[:, None],
        lambda: rows.views(PICTURES),
        num_samples=2 * len(rows.data),
        facts=["maps", *facts],
        field="keep_seen",
        precision=choose_precision(config.precision, device),
        device=device,
    )


def _seen(eye: FrozenEncoder, names: Sequence[str], pixels: Tensor) -> dict[str, Tensor]:
    found = eye.pyramid(pixels, [name for name in names if name != LAST])
    return {**found, LAST: eye.dense(pixels)} if LAST in names else found


def _unpacked(kept: Tensor, eye: FrozenEncoder, names: Sequence[str]) -> dict[str, Tensor]:
    """fp32 maps of [b, all numbers]."""
    last = list(eye.taps.values())[-1]
    height, width = eye.image_size
    taps = [last if name == LAST else eye.taps[name] for name in names]
    sizes = [(tap.channels, height // tap.stride, width // tap.stride) for tap in taps]
    parts = kept.float().split([c * h * w for c, h, w in sizes], 1)
    return {name: part.unflatten(1, size) for name, part, size in zip(names, parts, sizes, strict=True)}
