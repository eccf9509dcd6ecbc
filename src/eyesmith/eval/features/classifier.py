"""A classifier in the place of an image-text model: its logits as features, its classes as their axes.

The suites compare features with one row of weights a class. For a classifier the features are its logits, of length 1,
and the rows pick the logits of a set's classes, so that every metric, file and restart is the same as for zero-shot.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.config import closest
from eyesmith.data.evaluation.evaluation_set import EvaluationSet
from eyesmith.data.evaluation.imagenet import is_wordnet_id, published_classes
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.heads.imagenet_variants import NUM_CLASSES, subset_classes
from eyesmith.eval.sets import Task
from eyesmith.files import load_json
from eyesmith.models.classifier import Classifier

OBJECTNET_FILE = "imagenet_ids.json"  # in ObjectNet's folder: of each class the ImageNet classes it stands for
_WHOLE = ("imagenet1k", "imagenetv2", "imagenet-real", "imagenet_sketch")
_SUBSETS = ("imagenet-a", "imagenet-r")


class LogitTower(nn.Module):
    """What `evaluate_suite` needs of a model, made of a classifier."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.image = classifier.eval()
        self.config, self.preprocess = classifier.config, classifier.preprocess
        self.prompts = ("{}",)
        self.register_buffer("logit_scale", torch.zeros((), device=classifier.head.weight.device), persistent=False)

    def encode_image(self, pixels: Tensor, *, batch_size: int = 64) -> Tensor:
        """Logits [B, K] fp32 brought to length 1, which keeps their order, of uint8 pixels [B, 3, H, W]."""
        return F.normalize(self.image.logits(pixels, batch_size=batch_size), dim=-1)

    def columns(self, task: Task, found: EvaluationSet) -> "ClassColumns":
        """The classes of a set among the classifier's."""
        return ClassColumns(self.image.classes, task, found)


class ClassColumns:
    """Rows of weights that pick a set's classes out of K logits.

    The classes are known by name. Those of an ImageNet classifier (`is_imagenet_order`) are known by their order on
    ImageNet's own tasks: V2, Sketch and ReaL among all classes; A and R among their 200; ObjectNet among all 1000,
    where of the ImageNet classes of an ObjectNet class the first alone counts as right.
    """

    def __init__(self, classes: Sequence[str], task: Task, found: EvaluationSet) -> None:
        self._classes, self._task, self._found = tuple(classes), task, found

    def class_weights(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """[K', K] fp32, rows of zeros and a one: those of `names` first. templates: of no use here.

        Raises DataError for a class that the classifier does not know.
        """
        del templates
        return torch.eye(len(self._classes))[self._places(names)]

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """A classifier reads no texts: raises ConfigError."""
        raise ConfigError(
            f"{self._task.name}: needs texts, and a classifier knows its {len(self._classes)} classes only; "
            "give an image-text model"
        )

    def _places(self, names: Sequence[str]) -> list[int]:
        known = {name: place for place, name in enumerate(self._classes)}
        key, is_imagenet = self._task.key, is_imagenet_order(self._classes)
        if is_imagenet and key in _WHOLE and len(names) == NUM_CLASSES:
            return list(range(NUM_CLASSES))
        if is_imagenet and key in _SUBSETS:
            subset = subset_classes(key)
            if len(names) != len(subset):
                raise DataError(f"{self._task.name}: has {len(names)} classes, expected its {len(subset)}")
            return list(subset)
        if is_imagenet and key == "objectnet":
            first = [ids[0] for ids in objectnet_ids(self._found.path, names)]
            if len(set(first)) != len(first):
                raise DataError(f"{self._task.name}: two classes have the same first ImageNet class")
            return [*first, *(place for place in range(NUM_CLASSES) if place not in set(first))]
        if unknown := [name for name in names if name not in known]:
            raise DataError(
                f"{self._task.name}: {len(unknown)} of {len(names)} classes are none of the classifier's, such as "
                f"{unknown[0]!r}{closest(unknown[0], list(known)[:20])}"
            )
        return [known[name] for name in names]


def is_imagenet_order(classes: Sequence[str]) -> bool:
    """Whether these are ImageNet's 1000 classes in its usual order: ascending WordNet ids, numbers, or known names."""
    if len(classes) != NUM_CLASSES:
        return False
    if all(map(is_wordnet_id, classes)):
        return list(classes) == sorted(classes)
    numbers = tuple(map(str, range(NUM_CLASSES)))
    return tuple(classes) in (numbers, published_classes(NUM_CLASSES))


def objectnet_ids(folder: Path, names: Sequence[str]) -> list[list[int]]:
    """The ImageNet class indices of each ObjectNet class, from `imagenet_ids.json` in its folder.

    The file holds a list in the order of the classes, or an object by class name. Raises DataError without it, or
    where a class has none.
    """
    home = folder if folder.is_dir() else folder.parent
    file = next((place / OBJECTNET_FILE for place in (home, home.parent) if (place / OBJECTNET_FILE).is_file()), None)
    if file is None:
        raise DataError(
            f"{home}: a classifier needs {OBJECTNET_FILE} there: for each class of classnames.txt the list of its "
            "ImageNet class indices, from ObjectNet's own mapping"
        )
    content = load_json(file.read_text("utf-8"))
    if isinstance(content, dict):
        plain = {_plain(name): ids for name, ids in content.items()}
        content = [plain.get(_plain(name), []) for name in names]
    if len(content) != len(names) or any(not ids or not all(0 <= i < NUM_CLASSES for i in ids) for ids in content):
        raise DataError(f"{file}: expected ImageNet class indices, 0 to 999, for each of {len(names)} classes")
    return [list(ids) for ids in content]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", name.casefold()).strip()
