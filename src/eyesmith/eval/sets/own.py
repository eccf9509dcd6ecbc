"""A user's own folder or table as a task of its own: class folders, a table of images, a caption test, hub shards."""

import os
from pathlib import Path

from eyesmith.data.evaluation.captions import caption_test_kind
from eyesmith.data.evaluation.evaluation_set import EvaluationSet, Layout
from eyesmith.data.evaluation.opening import open_evaluation_set
from eyesmith.eval.kinds.registry import KINDS, kind_of
from eyesmith.eval.sets.job import Job
from eyesmith.eval.sets.task import Task

OWN = "own:"  # before the name of a user's folder, so that none is taken for a published set
_PERSON = ("age", "gender", "race", "race_binary")


def own_job(path: str | os.PathLike[str], *, split: str = "test") -> Job:
    """What is measured on a path: its key is own:NAME, whatever the folder is called.

    Prompts are the folder's own templates, the model's where it has none. Raises DataError for whatever would make a
    number meaningless: an empty class, one class, equal names.
    """
    place = Path(path).resolve()
    kind = caption_test_kind(place) if place.exists() else None
    name = place.stem if place.is_file() else place.name
    if kind is not None:
        task = _task(name, place, kind)
        return Job(task=task, place=place, split="all", open=lambda: kind_of(task).open(task, place, split))
    found = open_evaluation_set(place, split=split)
    task = _task(name, place, found.layout, found)
    return Job(task=task, place=place, split=split, open=lambda: found)


def _task(name: str, place: Path, layout: Layout, found: EvaluationSet | None = None) -> Task:
    key = f"{OWN}{name}"
    bare = Task(key=key, name=key, size=None, layout=layout, folder=place.name)
    return Task(
        key=bare.key,
        name=bare.name,
        size=None,
        num_classes=(len(found.classes) or None) if found else None,
        metric=KINDS[bare.scored_as].main,
        layout=layout,
        folder=place.name,
        metadata=_PERSON if layout == "attributes" else (),
        is_published=layout == "retrieval",  # a caption that is missing is an error here too
    )
