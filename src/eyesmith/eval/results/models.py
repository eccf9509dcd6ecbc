"""What a result file says, whichever program wrote it: one model and its numbers by task."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eyesmith.errors import DataError
from eyesmith.eval.sets import TASKS, Suite

Metrics = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """The numbers of one task. key: the task's key; name: as shown; metrics: fractions by the reference's names.

    main_metric: which of `metrics` is the main one, None where the task has none or the file does not name it.
    main: its value. low, high: its 95 % interval, chance: where the file gives them. counts: of how many queries each
    metric is the mean, where the file says so; images: how many images were measured. data: a digest of the samples,
    "" where the file does not say or the task is a published set.
    """

    key: str
    name: str
    metrics: Metrics
    main_metric: str | None
    main: float | None
    low: float | None = None
    high: float | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    images: int | None = None
    chance: float | None = None
    data: str = ""

    def value(self, metric: str | None) -> float | None:
        """The metric of that name; None where the file does not have it."""
        if metric is None:
            return None
        return self.main if metric == self.main_metric else self.metrics.get(metric)


@dataclass(frozen=True, kw_only=True)
class ModelResults:
    """All that one or several files say about a model.

    pretrained: the tag of its weights, "" where it has none. source: the file. identity: what was measured (weights,
    preprocessing, prompts, precision) as a digest, "" where the file does not say; variant: what of it is not the
    usual. home: the run folder or file that the weights come from. label: what a line is called, the model's name when
    "". facts: numbers by the names of `eyesmith.eval.published.FACTS`, and words. records: by task key.
    """

    model: str
    source: str
    pretrained: str = ""
    identity: str = ""
    variant: str = ""
    home: str = ""
    label: str = ""
    facts: Mapping[str, float | str] = field(default_factory=dict)
    records: Mapping[str, TaskRecord] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        """Model and weights in one, as CLIP_benchmark's tables name them."""
        return f"{self.model} {self.pretrained}".strip()

    @property
    def line(self) -> str:
        """What its line in a table is called."""
        return self.label or self.full_name

    def is_same(self, other: "ModelResults") -> bool:
        """Whether both are of one model: by what was measured, where both say so; else by run folder, else by name."""
        if self.identity and other.identity:
            return self.identity == other.identity
        if self.home or other.home:
            return self.home == other.home
        return self.full_name == other.full_name

    def main_values(self, suite: Suite) -> dict[str, float | None]:
        """The suite's main metric by key of its tasks that are here. A task without that very metric is None."""
        return {
            task.key: self.records[task.key].value(suite.main_metric(task))
            for task in suite.tasks
            if task.key in self.records
        }


def merge(results: list[ModelResults]) -> list[ModelResults]:
    """One entry a model out of several files; facts and records of a later file stand before those of an earlier one.

    A record without a main metric does not replace one that has it; intervals of an equal value are kept.
    """
    merged: list[ModelResults] = []
    for one in results:
        place = next((place for place, known in enumerate(merged) if known.is_same(one)), None)
        if place is None:
            merged.append(one)
            continue
        known = merged[place]
        records = dict(known.records)
        for key, record in one.records.items():
            records[key] = _joined(records[key], record) if key in records else record
        merged[place] = replace(
            known,
            records=records,
            facts=dict(known.facts) | dict(one.facts),
            identity=known.identity or one.identity,
            variant=known.variant or one.variant,
            home=known.home or one.home,
            label=known.label or one.label,
        )
    return merged


def told_apart(results: Sequence[ModelResults]) -> list[ModelResults]:
    """The same with labels that no two share: what is unusual about one, else its weights, is added."""
    lines = Counter(one.line for one in results)
    found = [
        replace(one, label=f"{one.line} ({one.variant})") if lines[one.line] > 1 and one.variant else one
        for one in results
    ]
    lines = Counter(one.line for one in found)
    return [
        replace(one, label=f"{one.line} [{one.identity[:6] or one.source}]") if lines[one.line] > 1 else one
        for one in found
    ]


def key_of(key: str, run: Mapping[str, Any] | None) -> tuple[str, str]:
    """The key under which a line's numbers are kept, and the digest of its samples; run: what the line says of itself.

    The key of a task is that of one set, wherever it lies. Any other names a folder or a kind of measurement, which
    several sets share: it gets a mark of the samples, so that those of another set do not take their place.
    """
    data = (run or {}).get("samples")
    if key in TASKS or not isinstance(data, str) or not data:
        return key, ""
    return f"{key} [{data[:6]}]", data


def plain_keys(results: Sequence[ModelResults]) -> list[ModelResults]:
    """The same without the marks of `key_of` where all results of a key are of the same samples.

    Numbers of which nobody says the samples are then taken for theirs; those of the same model give way.
    """
    sets: dict[str, set[str]] = {}
    for one in results:
        for key, record in one.records.items():
            sets.setdefault(_plain(key, record), set()).update({record.data} - {""})
    found = []
    for one in results:
        records: dict[str, TaskRecord] = {}
        for key, record in sorted(one.records.items(), key=lambda pair: bool(pair[1].data)):
            plain = _plain(key, record)
            if len(sets[plain]) > 1:
                records[key] = record
                continue
            name = plain if record.name == key else record.name
            known, renamed = records.get(plain), replace(record, key=plain, name=name)
            records[plain] = renamed if known is None else _joined(known, renamed)
        order = {_plain(key, record): place for place, (key, record) in enumerate(one.records.items())}
        pairs = sorted(records.items(), key=lambda pair: order[_plain(*pair)])
        found.append(replace(one, records=dict(pairs)))
    return found


def _plain(key: str, record: TaskRecord) -> str:
    return key.removesuffix(f" [{record.data[:6]}]") if record.data else key


def _joined(old: TaskRecord, new: TaskRecord) -> TaskRecord:
    if new.main is None or old.main is None:
        best = old if new.main is None else new
        return replace(best, metrics=dict(old.metrics) | dict(new.metrics))
    same = math.isclose(old.main, new.main, abs_tol=5e-5) and old.main_metric == new.main_metric
    if not same:
        return new
    exact = new if len(new.metrics) >= len(old.metrics) else old
    return replace(
        exact,
        metrics=dict(old.metrics) | dict(new.metrics),
        low=new.low if new.low is not None else old.low,
        high=new.high if new.high is not None else old.high,
        counts=dict(old.counts) | dict(new.counts),
        images=new.images if new.images is not None else old.images,
        chance=new.chance if new.chance is not None else old.chance,
    )


def number(value: object, where: str) -> float | None:
    """A finite number of a file, or None for null and NaN (how the reference writes what is undefined)."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{where}: expected a number, got {value!r}")
    return float(value) if math.isfinite(value) else None
