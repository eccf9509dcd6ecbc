"""In which words the classes of a set are put to the model: its own, another language's, or a user's sentences."""

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from eyesmith.data.evaluation.evaluation_set import EvaluationSet
from eyesmith.data.evaluation.names import IMAGENET, LANGUAGES, class_names, templates_for
from eyesmith.data.text import read_lines
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.heads.imagenet_variants import subset_classes
from eyesmith.eval.sets.task import Task

_LAYOUTS = ("classification", "multilabel", "video")  # whose classes are put into sentences


@dataclass(frozen=True, kw_only=True)
class Wording:
    """language: of class names and sentences; all but "en" are there for ImageNet's sets alone. templates: sentences
    with {c} or {} for the name in the place of those of every classification set; () keeps them."""

    language: str = "en"
    templates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise ConfigError(f"language: expected one of {', '.join(LANGUAGES)}, got {self.language!r}")
        for text in self.templates:
            if "{c}" not in text and "{}" not in text:
                raise ConfigError(f"templates: {text!r} has no place for the class name, {{c}} or {{}}")

    @property
    def name(self) -> str | None:
        """What says that results are comparable; None for each set's own words."""
        if self == Wording():
            return None
        digest = hashlib.sha256(json.dumps(self.templates).encode()).hexdigest()[:12]
        return f"{self.language}:{digest if self.templates else 'own'}"

    def applied(self, task: Task, found: EvaluationSet) -> EvaluationSet:
        """The set in these words. Raises DataError where a language has no names for it."""
        if found.layout not in _LAYOUTS:
            return found
        if self.language != "en":
            names = class_names(IMAGENET, language=self.language)
            if task.key in ("imagenet-a", "imagenet-r"):
                names = tuple(names[index] for index in subset_classes(task.key))
            elif task.class_list != IMAGENET:
                raise DataError(f"{task.name}: no class names in language {self.language!r}; there are ImageNet's only")
            if len(names) != len(found.classes):
                raise DataError(f"{task.name}: has {len(found.classes)} classes, the language's list {len(names)}")
            found = replace(found, classes=names, templates=templates_for(IMAGENET, language=self.language))
        return replace(found, templates=self.templates) if self.templates else found


def read_templates(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Sentences out of a text file, one a line; empty lines are left out. Raises DataError when there is none."""
    texts = tuple(line for line in read_lines(Path(path)) if line)
    if not texts:
        raise DataError(f"{path}: holds no sentence; expected lines such as: a photo of a {{c}}.")
    return texts


def words_of(found: EvaluationSet) -> str:
    """A digest of everything a set's texts are made of, but captions (which its source's fingerprint covers)."""
    objectives = {name: [one.classes, one.templates] for name, one in found.objectives.items()}
    cues = [[one.cue, list(map(int, one.candidates))] for one in found.instances]
    items = [[one.images, one.captions] for one in found.pairs]
    items += [[one.image, one.caption, one.negatives] for one in found.choices]
    content = [found.classes, found.templates, objectives, cues, *([items] if items else [])]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
