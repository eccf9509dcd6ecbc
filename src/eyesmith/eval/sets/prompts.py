"""Files of sentences compared on one labelled set: the set's own against a user's."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from eyesmith.data.evaluation.opening import open_evaluation_set
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.engine import Settings
from eyesmith.eval.features.store import FeatureStore
from eyesmith.eval.features.texts import TextFeatures
from eyesmith.eval.heads.prompt_sets import PromptSetResult, compare_prompt_sets
from eyesmith.eval.sets.part import part_of
from eyesmith.eval.sets.task import Task
from eyesmith.eval.sets.wording import read_templates
from eyesmith.models.clip import Clip

OWN = "own"  # what the set's own sentences are called


def compare_prompt_files(
    clip: Clip,
    path: str | os.PathLike[str],
    files: Sequence[str | os.PathLike[str]],
    *,
    task: Task | None = None,
    settings: Settings | None = None,
) -> list[PromptSetResult]:
    """Top-1 with each file's sentences on the images of one set, paired with that of the first in the list.

    The first are the set's own sentences (the model's where it has none). path: a set, class folders or a table. task:
    where its lists are known by one. Raises DataError for a set without classes, ConfigError without files.
    """
    settings = settings or Settings()
    if not files:
        raise ConfigError("expected one or more files of sentences to compare")
    found = open_evaluation_set(
        path,
        layout=task and task.layout,
        prompts=task.prompts if task else "",
        class_list=task.class_list if task else "",
    )
    if found.labels is None or not found.classes:
        raise DataError(f"{found.name}: sentences are compared on images of classes, this set has none")
    found = found if settings.limit is None else part_of(found, settings.limit)
    sets: dict[str, tuple[str, ...]] = {OWN: found.templates or tuple(clip.prompts)}
    for file in files:
        name = Path(file).stem
        if name in sets:
            raise ConfigError(f"{file}: there are two sets of sentences called {name!r}; rename the file")
        sets[name] = read_templates(file)
    cache = None if settings.cache is None else Path(settings.cache)
    store = FeatureStore(
        clip,
        cache and cache / "images",
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        fresh=settings.fresh,
    )
    images = store(found.source)
    images = dataclasses.replace(images, labels=torch.from_numpy(found.labels)[list(images.indices)])
    texts = TextFeatures(clip, folder=cache and cache / "texts", fresh=settings.fresh)
    return compare_prompt_sets(images, texts, found.classes, sets, device=clip.logit_scale.device)
