"""Training by classes: the cross-entropy of labelled images, from any encoder; it leaves a classifier."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, cast

from torch import Tensor, nn

from eyesmith.config import check_least, closest
from eyesmith.data.evaluation.imagenet import wordnet_ids
from eyesmith.data.indexed import ClassViews, IndexedRows
from eyesmith.data.labelled import LabelledSets, open_labelled
from eyesmith.data.loader import Batch, Rows
from eyesmith.data.sample import Source
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.eval import ResultRow
from eyesmith.eval.features.classified import accuracy_rows
from eyesmith.hub.initial import InitialConfig, load_image
from eyesmith.hub.stored import ANY, read_stored
from eyesmith.hub.weights import load_tensors
from eyesmith.images.augment import AugmentConfig
from eyesmith.images.class_views import ClassViewConfig
from eyesmith.losses.class_labels import class_losses
from eyesmith.models.classifier import HEAD_SCALE, Classifier, ClassifierConfig, classifier_config
from eyesmith.models.clip import ClipConfig
from eyesmith.models.encoder import Encoder
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.models.families import EncoderConfig
from eyesmith.models.registry import config as model_config
from eyesmith.models.registry import encoder_config, list_encoders, list_models
from eyesmith.models.vitamin.model import STRIDE, ViTaminConfig
from eyesmith.optim import freeze
from eyesmith.tasks.task import FP32, EncoderRunConfig, MeanTask, RunContext
from eyesmith.train.config import DataConfig
from eyesmith.train.distributed import World
from eyesmith.train.objective import Wrapped

ALL_SPLITS = "all"


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(EncoderRunConfig):
    """A complete run that trains, or fine-tunes, an encoder to tell classes. Captions are not read.

    eval.splits and eval.curve_splits: names of splits, or `all` for every labelled one but that which is trained on.
    """

    model: EncoderConfig
    num_classes: int = 0
    """Classes that the data must have; 0 takes what they have."""
    val_frac: float = 0.1
    """Share of each class held out to measure on, where the data have no splits."""
    views: ClassViewConfig = field(default_factory=ClassViewConfig)
    """Crops, RandAugment, erasing, mixing."""
    label_smoothing: float = 0.1
    """Share of the target that is spread over all classes."""
    fresh_norm: bool = True
    """Start the encoder's last norm anew: it pooled otherwise before (the release); False keeps it (timm)."""
    head_scale: float = HEAD_SCALE
    """Factor on the deviation, 0.02, that a new head is drawn with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augment != AugmentConfig() or self.transform is not None:
            raise ConfigError("augment and transform: a run by classes has `views` instead; leave them out")
        if (self.data.decode_px, self.data.memory_mib) != (DataConfig.decode_px, DataConfig.memory_mib):
            raise ConfigError(
                "data.decode_px and data.memory_mib: views are cut from whole images as these are read; leave them out"
            )
        if self.num_classes < 0 or self.num_classes == 1:
            raise ConfigError(f"num_classes: expected 2 or more, or 0 for those of the data, got {self.num_classes}")
        if not 0 <= self.val_frac < 1:
            raise ConfigError(f"val_frac: expected 0 <= share < 1, got {self.val_frac}")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"label_smoothing: expected 0 <= share < 1, got {self.label_smoothing}")
        check_least(self, head_scale=0)
        if self.eval.curve_data:
            raise ConfigError("eval.curve_data: a run by classes is measured on splits of its own data; leave it out")


class LabelledRows(IndexedRows):
    """Labelled images by index, and what else the data set has: the splits to measure, the classes."""

    def __init__(self, config: ClassifyConfig, world: World) -> None:
        """Raises ConfigError when the processes cannot share a batch evenly, or for another number of classes."""
        data = config.data
        if data.more_paths or data.weights:
            raise ConfigError("data.more_paths and data.weights: a run by classes reads one data set; leave them out")
        own = world.share(config.batch_size)
        self.sets: LabelledSets = open_labelled(data.path, split=data.split, val_frac=config.val_frac)
        if config.num_classes not in (0, len(self.sets.classes)):
            raise ConfigError(
                f"num_classes: {data.path} has {len(self.sets.classes)} classes, expected {config.num_classes}; "
                "set num_classes=0 to take those of the data"
            )
        super().__init__(
            self.sets.train,
            ClassViews(config.views, config.image_size, seed=config.seed),
            config.batch_size,
            own=own,
            seed=config.seed,
            require_text=False,
            num_workers=data.num_workers,
            max_skipped_frac=data.max_skipped_frac,
            epoch_steps=data.epoch_steps(config.batch_size),
        )


class Classify(MeanTask[Classifier]):
    """Labelled images, a mean over all rows of the global batch; measured by top-1 and top-5 on other images."""

    config_type = ClassifyConfig
    config: ClassifyConfig

    def __init__(self, classifier: Classifier, config: ClassifyConfig, sets: LabelledSets) -> None:
        super().__init__(classifier, config)
        self.sets = sets

    @classmethod
    def new_model(cls, config: ClassifyConfig) -> Classifier:
        """With numbers for the classes' names, as many as the config says."""
        return classifier_config(config.name, config.model, tuple(map(str, range(config.num_classes)))).build()

    @classmethod
    def open_rows(cls, config: ClassifyConfig, world: World) -> LabelledRows:
        return LabelledRows(config, world)

    @classmethod
    def load(cls, model: Classifier, config: ClassifyConfig, context: RunContext) -> None:
        model.start_head(config.head_scale)
        if config.initial.weights:
            _load(model, config, context)

    @classmethod
    def build(cls, config: ClassifyConfig, rows: Rows, context: RunContext) -> Self:
        assert isinstance(rows, LabelledRows)
        for note in rows.sets.notes:
            context.say(note)
        described = classifier_config(config.name, config.model, rows.sets.classes)
        classifier = cls.first_model(config, context, described.build)
        freeze(classifier, config.optim.freeze)
        context.say(_frozen(classifier, config))
        task = cls(classifier, config, rows.sets)
        task._splits(config.eval.splits)  # a wrong name is better known before the training than after
        task._splits(config.eval.curve_splits)
        return task

    @classmethod
    def skeleton(cls, config: ClassifyConfig) -> nn.Module:
        if not config.num_classes:
            config = replace(config, num_classes=len(open_labelled_of(config).classes))
        return super().skeleton(config)

    @classmethod
    def from_weights(cls, config: ClassifyConfig, source: str) -> ClassifyConfig:
        return classify_from(config, source)

    @classmethod
    def loss_bytes(cls, config: ClassifyConfig, gpus: int) -> int:
        """Logits, their logarithms and gradients."""
        rows = -(-config.batch_size // (gpus * config.accumulate))
        return 4 * FP32 * rows * config.num_classes

    @classmethod
    def training_source(cls, config: ClassifyConfig) -> Source:
        return open_labelled_of(config).train

    def rebuild(self) -> Classifier:
        return self.model.config.build()

    def blocks(self) -> list[nn.Module]:
        return self.model.blocks()

    def chance_loss(self) -> float:
        return math.log(self.model.embed_dim)

    def outputs(self, model: Wrapped, part: Batch) -> Tensor:
        """Logits, [b, K]."""
        return model(part.pixels)

    def terms(self, outputs: Tensor, part: Batch) -> Tensor:
        assert part.labels is not None
        partners, share = part.extra.get("partners"), part.extra.get("share")
        smoothing = self.config.label_smoothing
        return class_losses(outputs, part.labels, smoothing=smoothing, partners=partners, share=share)

    def facts(self) -> dict[str, Any]:
        frozen = [name for name, value in self.model.named_parameters() if not value.requires_grad]
        held = {name: len(source) for name, source in self.sets.tests.items()}
        return {"frozen": frozen, "classes": len(self.sets.classes), "measured": held}

    def measured(self, model: nn.Module, context: RunContext) -> list[ResultRow]:
        if not self.config.eval.splits or not self.sets.tests:
            context.say("nothing is measured: no labelled images are held out")
        return super().measured(model, context)

    def rows(self, model: nn.Module, splits: Sequence[str], context: RunContext) -> list[ResultRow]:
        classifier, tests = cast(Classifier, model), self.sets.tests
        how: dict[str, Any] = {
            "model_name": self.config.name,
            "num_workers": self.config.data.num_workers,
            "world": context.world,
        }
        return [row for name in self._splits(splits) for row in accuracy_rows(classifier, tests[name], name, **how)]

    def _splits(self, wanted: Sequence[str]) -> list[str]:
        known = self.sets.tests
        if ALL_SPLITS in wanted:
            return list(known)
        for name in wanted:
            if name not in known:
                raise ConfigError(f"eval.splits: no labelled split is called {name!r}{closest(name, [*known, 'all'])}")
        return list(wanted)


def _frozen(classifier: Classifier, config: ClassifyConfig) -> str:
    """What does not train, in words."""
    still = [value.numel() for value in classifier.parameters() if not value.requires_grad]
    total = sum(value.numel() for value in classifier.parameters())
    if not still:
        return f"nothing is frozen: all {total:,} parameters train"
    patterns = ", ".join(config.optim.freeze)
    return f"frozen: {patterns}, {sum(still):,} of {total:,} parameters; optim.freeze= (nothing) trains them too"


def open_labelled_of(config: ClassifyConfig) -> LabelledSets:
    """The data of a run, for a plan. Raises ConfigError where they are not there."""
    if not Path(config.data.path).exists():
        raise ConfigError(
            f"data.path: {config.data.path} is not there, so neither the classes nor the length of the run are known; "
            "set it, or num_classes and data.epoch_samples"
        )
    return open_labelled(config.data.path, split=config.data.split, val_frac=config.val_frac)


def classify_from(config: ClassifyConfig, source: str | os.PathLike[str]) -> ClassifyConfig:
    """`config` on another encoder: one with weights, as `eyesmith.load` takes it, or a model's name (random weights).

    Of an image-text model its image tower is taken, of a classifier its encoder (and its head, where the classes are
    the same), without projections. A TrV is pooled by the mean of its patches, under a new norm unless it was a
    classifier's, and its patch embedding is frozen: what EVA-02's release does. Other encoders keep their pooling and
    norm, and train whole; so does one with random weights, at one rate in all layers. Images are as large as the
    recipe's or the source's, whichever is larger.
    """
    text = os.fspath(source)
    weights, was_classifier, own_name = text, False, Path(text.rstrip("/")).name or text
    if not os.path.exists(text) and text in list_models():
        found, weights = model_config(text).image, ""
    elif not os.path.exists(text) and text in list_encoders():
        found, weights = encoder_config(text), ""
    else:
        stored = read_stored(source).config
        found = stored.image if isinstance(stored, ClipConfig | ClassifierConfig) else stored
        was_classifier = isinstance(stored, ClassifierConfig)
        own_name = stored.name if isinstance(stored, ClipConfig | ClassifierConfig) else own_name
    image = _for_classes(found, config.model)
    is_trv = isinstance(image, Eva02Config)
    name = config.name if type(found) is type(config.model) and _same_kind(found, config.model) else own_name
    optim = replace(config.optim, no_decay=undecayed_patterns(image))
    if weights:
        optim = replace(optim, freeze=("image.patch.*",) if is_trv else ())
    else:  # there is nothing to be careful with
        optim = replace(optim, freeze=(), layer_decay=1.0)
    initial = InitialConfig(weights=weights, part="image") if weights else InitialConfig()
    fresh = is_trv and not was_classifier
    return replace(config, model=image, name=name, optim=optim, initial=initial, fresh_norm=fresh)


def undecayed_patterns(image: EncoderConfig) -> tuple[str, ...]:
    """Tables that are not decayed: class token and positions of our own families."""
    if isinstance(image, Eva02Config):
        return (*(("image.position",) if image.has_position else ()), "image.class_token")
    return ("image.position",) if isinstance(image, ViTaminConfig) and image.has_position else ()


def _for_classes(found: EncoderConfig, wanted: EncoderConfig) -> EncoderConfig:
    stride = found.patch_px if isinstance(found, Eva02Config) else STRIDE if isinstance(found, ViTaminConfig) else 0
    size = tuple(max(pair) for pair in zip(found.image_size, wanted.image_size, strict=True))
    if stride:
        size = tuple(-(-side // stride) * stride for side in size)
    else:  # timm's networks may know one size only, and a user's own
        size = found.image_size
    changes: dict[str, Any] = {"embed_dim": 0, "image_size": size}
    if hasattr(found, "drop_path_prob"):  # others have what regularises them among their sizes
        changes["drop_path_prob"] = getattr(wanted, "drop_path_prob", 0.0)
    if isinstance(found, Eva02Config):
        changes["pooling"] = "mean"
    return replace(found, **changes)


def _same_kind(one: EncoderConfig, other: EncoderConfig) -> bool:
    names = ("width", "depth", "widths", "depths", "model_name", "sha256", "size")
    return all(getattr(one, name, None) == getattr(other, name, None) for name in names)


def _load(classifier: Classifier, config: ClassifyConfig, context: RunContext) -> None:
    """The encoder's weights; the head's too where they are a classifier's of the same classes."""
    source = config.initial.weights
    with context.world.first_on_each_machine():  # one fetches from the hub, the others find it
        stored = read_stored(source, pooling=ANY)
        load_image(classifier.image, source, note=context.say)
    if isinstance(stored.config, ClassifierConfig):
        if classifier.classes in (stored.config.classes, wordnet_ids(stored.config.classes)):
            head = {name.removeprefix("head."): v for name, v in stored.tensors.items() if name[:5] == "head."}
            load_tensors(classifier.head, head, where=stored.where)
            context.say(f"{source}: its head is kept, the classes are the same")
        else:
            context.say(f"{source}: its head starts anew, its {len(stored.config.classes)} classes are others")
    if config.fresh_norm:
        context.say(f"the norm before the head starts anew ({fresh_norm(classifier.image)})")


def fresh_norm(image: Encoder) -> str:
    """Give the norm before the projection weights of 1 and biases of 0; returns its name.

    Raises CheckpointError for an encoder in which it cannot be told.
    """
    norm = getattr(image, "norm", None)
    if not isinstance(norm, nn.LayerNorm):
        raise CheckpointError("fresh_norm: this encoder has no norm of its own before the head; set fresh_norm=false")
    nn.init.ones_(norm.weight)
    nn.init.zeros_(norm.bias)
    return "image.norm"
