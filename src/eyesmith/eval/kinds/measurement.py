"""One task on one opened set: its result lines, and its values as an evaluator of a training run."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from eyesmith.data.evaluation.evaluation_set import EvaluationSet
from eyesmith.eval.features.images import ImageFeatures, encode_source
from eyesmith.eval.features.texts import TextFeatures
from eyesmith.eval.kinds.kind import Answered, Asked
from eyesmith.eval.kinds.registry import kind_of
from eyesmith.eval.results.rows import ResultRow
from eyesmith.eval.sets.task import Task
from eyesmith.models.clip import Clip


class Measurement:
    """task: what is scored; found: its set; split: as named in result lines; source: the images of the set."""

    def __init__(self, task: Task, found: EvaluationSet, *, split: str) -> None:
        self.task, self.found, self.split = task, found, split
        self.key, self.source = task.key, found.source
        self._texts: TextFeatures | None = None

    def run(self, clip: Clip) -> Iterator[tuple[str, float]]:
        """Yield ("split/acc1", fraction) and so on; text features are kept from call to call while they hold."""
        if self._texts is None or not self._texts.is_current(clip):
            self._texts = TextFeatures(clip)
        for metric, value in self.values(clip, encode_source(clip, self.source), self._texts).items():
            yield f"{self.split}/{metric}", value

    def values(self, clip: Clip, images: ImageFeatures, texts: TextFeatures) -> dict[str, float]:
        """The metrics that get a result line, without their intervals; features as `rows` takes them."""
        records = self.answered(clip, images, texts).records
        found = kind_of(self.task).metrics(self.task, records)
        known = kind_of(self.task).chance(self.task, records)  # also says what can be asked at all
        shown = self.task.lines or tuple(found)
        return {m: v for m, v in found.items() if v is not None and m in shown and (m in known or not self.task.lines)}

    def rows(
        self,
        clip: Clip,
        *,
        model_name: str = "",
        images: ImageFeatures | None = None,
        texts: TextFeatures | None = None,
    ) -> list[ResultRow]:
        """Result lines. images, texts: features computed before, to share them between tasks."""
        images, texts = images or encode_source(clip, self.source), texts or TextFeatures(clip)
        answered = self.answered(clip, images, texts)
        return result_rows(self.task, answered, split=self.split, model=model_name or clip.config.name)

    def answered(self, clip: Clip, images: ImageFeatures, texts: TextFeatures) -> Answered:
        """What the model says of every image."""
        return kind_of(self.task).answer(Asked(task=self.task, found=self.worded(clip), images=images, texts=texts))

    def worded(self, clip: Clip) -> EvaluationSet:
        """The set with the model's own sentences where it has none."""
        return with_sentences(self.task, self.found, clip)


def with_sentences(task: Task, found: EvaluationSet, clip: Clip) -> EvaluationSet:
    """A set that brings no sentences for its classes gets the model's; a published one must have its own."""
    if found.classes and not found.templates and not task.is_published:
        return dataclasses.replace(found, templates=tuple(clip.prompts))
    return found


def result_rows(
    task: Task,
    answered: Answered,
    *,
    split: str,
    model: str,
    main: str | None = None,
    run: Mapping[str, Any] | None = None,
) -> list[ResultRow]:
    """The lines of a task: its metrics with intervals, those of its parts (as splits), and what is beside metrics.

    main: the metric that `task.chance` is of; run: what was measured, see `ResultRow`.
    """
    kind = kind_of(task)
    metrics, chances = kind.metrics(task, answered.records), kind.chance(task, answered.records)
    if task.chance is not None and main is not None:
        chances[main] = task.chance
    facts: dict[str, Any] = {"model": model, "task": task.key, "run": run}
    rows = []
    for metric, (low, high, count) in kind.spans(task, answered.records).items():
        value = metrics[metric]
        if value is None or (task.lines and metric not in task.lines):
            continue
        ends = {"low": min(low, value), "high": max(high, value), "n": count, "chance": chances.get(metric)}
        rows.append(ResultRow(**facts, split=split, metric=metric, value=value, **ends))
    for part, records in kind.parts(answered.records).items():
        values, known = kind.metrics(task, records), kind.chance(task, records)
        for metric, (low, high, count) in kind.spans(task, records).items():
            value = values[metric]
            assert value is not None  # it has an interval
            ends = {"low": min(low, value), "high": max(high, value), "n": count, "chance": known.get(metric)}
            rows.append(ResultRow(**facts, split=part, metric=metric, value=value, **ends))
    for metric, (value, count) in answered.more.items():
        rows.append(
            ResultRow(**facts, split=split, metric=metric, value=value, low=None, high=None, n=count, chance=None)
        )
    return rows
