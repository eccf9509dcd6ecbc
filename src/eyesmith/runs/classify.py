"""A run that trains, or fine-tunes, an encoder to tell classes; it leaves a classifier."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from eyesmith.config import closest
from eyesmith.data.evaluation.imagenet import wordnet_ids
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.eval import ResultRow
from eyesmith.eval.features.classified import accuracy_rows
from eyesmith.hub import save_model
from eyesmith.hub.run_folder import describe_classifier
from eyesmith.hub.stored import read_stored
from eyesmith.hub.weights import load_tensors
from eyesmith.models.classifier import Classifier, ClassifierConfig, classifier_config
from eyesmith.models.clip import ClipConfig
from eyesmith.models.encoder import Encoder
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.models.families import EncoderConfig
from eyesmith.models.own import OwnEncoderConfig
from eyesmith.models.registry import config as model_config
from eyesmith.models.registry import encoder_config, list_encoders, list_models
from eyesmith.models.vitamin.model import STRIDE, ViTaminConfig
from eyesmith.optim import freeze
from eyesmith.runs.checks import CurveChecks, Evaluator
from eyesmith.runs.initial import load_image
from eyesmith.runs.kind import Kind, Note, Place
from eyesmith.train.batches import BatchReader
from eyesmith.train.class_batches import ClassBatches
from eyesmith.train.classify import Classify
from eyesmith.train.classify_config import ALL_SPLITS, ClassifyConfig
from eyesmith.train.initial import InitialConfig


def classify_from(config: ClassifyConfig, source: str | os.PathLike[str]) -> ClassifyConfig:
    """`config` on another encoder: one with weights, as `eyesmith.load` takes it, or a model's name (random weights).

    Of an image-text model its image tower is taken, of a classifier its encoder (and its head, where the classes are
    the same), without projections. A TrV is pooled by the mean of its patches, under a new norm unless it was a
    classifier's, and its patch embedding is frozen: what EVA-02's release does. Other encoders keep their pooling and
    norm, and train whole; so does one with random weights, at one rate in all layers. Images are as large as the
    recipe's or the source's, whichever is larger.
    """
    text = os.fspath(source)
    weights, was_classifier, own_name = text, False, _name(text)
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
        optim = replace(optim, freeze=frozen_patterns(image))
    else:  # there is nothing to be careful with
        optim = replace(optim, freeze=(), layer_decay=1.0)
    initial = InitialConfig(weights=weights, part="image") if weights else InitialConfig()
    fresh = is_trv and not was_classifier
    return replace(config, model=image, name=name, optim=optim, initial=initial, fresh_norm=fresh)


def frozen_patterns(image: EncoderConfig) -> tuple[str, ...]:
    """What does not train in fine-tuning: the patch embedding of a TrV."""
    return ("image.patch.*",) if isinstance(image, Eva02Config) else ()


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
    if not isinstance(found, OwnEncoderConfig):  # which has what regularises it among its sizes
        changes["drop_path_prob"] = getattr(wanted, "drop_path_prob", 0.0)
    if isinstance(found, Eva02Config):
        changes["pooling"] = "mean"
    return replace(found, **changes)


def _same_kind(one: EncoderConfig, other: EncoderConfig) -> bool:
    names = ("width", "depth", "widths", "depths", "model_name", "sha256", "size")
    return all(getattr(one, name, None) == getattr(other, name, None) for name in names)


def _name(source: str) -> str:
    return Path(source.rstrip("/")).name or source


class ClassifyRun(Kind):
    """A classifier, measured by top-1 and top-5 on the labelled images that it is not trained on."""

    objective: Classify

    def __init__(self, config: ClassifyConfig, batches: BatchReader, place: Place) -> None:
        assert isinstance(batches, ClassBatches)
        self._config, self._place, self.sets = config, place, batches.sets
        for note in self.sets.notes:
            self._say(note)
        classifier = classifier_config(config.name, config.model, self.sets.classes).build()
        classifier.start_head(config.head_scale)
        if config.initial.weights:
            self._load(classifier)
        classifier.to(place.world.device())
        self.objective = Classify(classifier, config)
        freeze(classifier, config.optim.freeze)
        self._say(self.frozen())
        self._splits(config.eval.splits)  # a wrong name is better known before the training than after
        self._splits(config.eval.curve_splits)

    @property
    def folder(self) -> Path:
        """The run's."""
        return self._place.folder

    @property
    def keep_best(self) -> str:
        """The value whose best weights are kept."""
        return self._config.eval.keep_best

    def frozen(self) -> str:
        """What does not train, in words."""
        model = self.objective.model
        still = {name: value.numel() for name, value in model.named_parameters() if not value.requires_grad}
        total = sum(value.numel() for value in model.parameters())
        if not still:
            return f"nothing is frozen: all {total:,} parameters train"
        patterns = ", ".join(self._config.optim.freeze)
        return (
            f"frozen: {patterns}, {sum(still.values()):,} of {total:,} parameters; optim.freeze= (nothing) trains "
            "them too"
        )

    def facts(self) -> dict[str, Any]:
        frozen = [name for name, value in self.objective.model.named_parameters() if not value.requires_grad]
        held = {name: len(source) for name, source in self.sets.tests.items()}
        return {"frozen": frozen, "classes": len(self.sets.classes), "measured": held}

    def description(self) -> dict[str, Any]:
        return describe_classifier(self.objective.model.config)

    def measured(self, model: nn.Module, note: Note) -> list[ResultRow]:
        if not self._config.eval.splits or not self.sets.tests:
            note("nothing is measured: no labelled images are held out")
        return self._rows(cast(Classifier, model), self._config.eval.splits)

    def measured_on_curve(self, model: Classifier) -> dict[str, float]:
        """Value by SPLIT/METRIC on the splits that are measured while training."""
        return {f"{row.split}/{row.metric}": row.value for row in self._rows(model, self._config.eval.curve_splits)}

    def save(self, folder: Path, model: nn.Module, *, config: dict[str, Any]) -> None:
        save_model(folder, cast(Classifier, model), config=config)

    def checks(
        self,
        *,
        steps_per_epoch: int,
        description: dict[str, Any],
        write: Callable[[dict[str, Any]], None],
        evaluators: Sequence[Evaluator],
    ) -> CurveChecks | None:
        if evaluators:
            raise ConfigError("evaluators: they measure image-text models, and this run trains a classifier")
        if not self._splits(self._config.eval.curve_splits):
            return None
        every = self._config.eval.every_steps or max(1, round(self._config.eval.every_epochs * steps_per_epoch))
        return CurveChecks(self, every, description, write)

    def _say(self, text: str) -> None:
        if self._place.world.is_first:
            self._place.console.print(text, markup=False, soft_wrap=True)

    def _splits(self, wanted: Sequence[str]) -> list[str]:
        known = self.sets.tests
        if ALL_SPLITS in wanted:
            return list(known)
        for name in wanted:
            if name not in known:
                raise ConfigError(f"eval.splits: no labelled split is called {name!r}{closest(name, [*known, 'all'])}")
        return list(wanted)

    def _rows(self, model: Classifier, wanted: Sequence[str]) -> list[ResultRow]:
        workers = self._config.data.num_workers
        return [
            row
            for split in self._splits(wanted)
            for row in accuracy_rows(
                model, self.sets.tests[split], split, model_name=self._config.name, num_workers=workers
            )
        ]

    def _load(self, classifier: Classifier) -> None:
        """The encoder's weights; the head's too where they are a classifier's of the same classes."""
        source = self._config.initial.weights
        with self._place.world.first_on_each_machine():  # one fetches from the hub, the others find it
            stored = read_stored(source)
            load_image(classifier.image, source, note=self._say)
        if isinstance(stored.config, ClassifierConfig):
            if classifier.classes in (stored.config.classes, wordnet_ids(stored.config.classes)):
                head = {name.removeprefix("head."): v for name, v in stored.tensors.items() if name[:5] == "head."}
                load_tensors(classifier.head, head, where=stored.where)
                self._say(f"{source}: its head is kept, the classes are the same")
            else:
                self._say(f"{source}: its head starts anew, its {len(stored.config.classes)} classes are others")
        if self._config.fresh_norm:
            self._say(f"the norm before the head starts anew ({fresh_norm(classifier.image)})")


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
