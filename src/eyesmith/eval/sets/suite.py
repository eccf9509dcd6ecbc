"""Suites: which tasks run together, and the averages that the papers print of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from eyesmith.config import closest
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.sets.datacomp import DATACOMP
from eyesmith.eval.sets.eva02 import VIDEO
from eyesmith.eval.sets.registry import TASKS, find_task
from eyesmith.eval.sets.task import Task


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """The plain mean of the main metrics of `keys`; with `gap_to`, that task's value minus it (Table 6's delta).

    is_extra: not shown in tables of many models.
    """

    name: str
    title: str
    keys: tuple[str, ...]
    gap_to: str | None = None
    is_extra: bool = False

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller value is the better one."""
        return self.gap_to is not None


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tasks that run together.

    metric: one main metric for all of them, in place of each task's own. note: what a reader must know to compare.
    """

    name: str
    title: str
    keys: tuple[str, ...]
    aggregates: tuple[Aggregate, ...]
    metric: str | None = None
    note: str = ""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks, in the order they are run and written."""
        return tuple(TASKS[key] for key in self.keys)

    def main_metric(self, task: Task) -> str | None:
        """The key of the metric of `task` that the suite averages; None for a task without one."""
        return task.metric if self.metric is None or task.metric is None else self.metric


def _keys(tasks: tuple[Task, ...], *, group: str | None = None, layout: str | None = None) -> tuple[str, ...]:
    return tuple(
        task.key
        for task in tasks
        if (group is None or group in task.groups) and (layout is None or task.layout == layout)
    )


_AVERAGED = tuple(task for task in DATACOMP if task.metric is not None)
_RETRIEVAL = _keys(DATACOMP, group="retrieval")

DATACOMP_SUITE = Suite(
    name="datacomp",
    title="DataComp, 38 tasks",
    keys=_keys(DATACOMP),
    aggregates=(
        Aggregate(name="average", title="Average of 38", keys=_keys(_AVERAGED)),
        Aggregate(name="imagenet", title="ImageNet", keys=("imagenet1k",)),
        Aggregate(name="shift", title="ImageNet dist. shifts", keys=_keys(DATACOMP, group="shift")),
        Aggregate(name="vtab", title="VTAB", keys=_keys(DATACOMP, group="vtab")),
        Aggregate(name="retrieval", title="Retrieval", keys=_RETRIEVAL),
        Aggregate(
            name="classification",
            title="Classification, 35",
            keys=_keys(_AVERAGED, layout="classification"),
            is_extra=True,
        ),
        Aggregate(  # one of FMoW's four "Other" images moves the 38-average by 0.66 points
            name="average_without_fmow",
            title="Average without FMoW",
            keys=tuple(key for key in _keys(_AVERAGED) if key != "wilds/fmow"),
            is_extra=True,
        ),
    ),
)

_EVA02_KEYS = (
    "imagenet1k imagenetv2 imagenet-a imagenet-r imagenet_sketch objectnet cifar10 vtab/cifar100 mnist vtab/caltech101 "
    "sun397 fgvc_aircraft country211 cars birdsnap vtab/dtd vtab/eurosat fer2013 vtab/flowers food101 gtsrb vtab/pcam "
    "vtab/pets renderedsst2 vtab/resisc45 stl10 voc2007"
)  # the columns of the EVA-02 paper's Table 9, in order

EVA02_SUITE = Suite(
    name="eva02",
    title="EVA-02, 27 sets",
    keys=tuple(_EVA02_KEYS.split()),
    aggregates=(
        Aggregate(name="average", title="Average of 27", keys=tuple(_EVA02_KEYS.split())),
        Aggregate(name="imagenet", title="ImageNet", keys=("imagenet1k",)),
    ),
    metric="acc1",
)

_VARIANTS = ("imagenet1k", "imagenetv2", "imagenet-real", "imagenet-a", "imagenet-r", "imagenet_sketch")

IMAGENET_VARIANTS = Suite(  # the EVA-02 paper's Table 6; ObjectNet is shown and not averaged
    name="imagenet-variants",
    title="ImageNet and its variants",
    keys=(*_VARIANTS, "objectnet"),
    aggregates=(
        Aggregate(name="average", title="Average of 6", keys=_VARIANTS),
        Aggregate(name="delta", title="Gap to ImageNet", keys=_VARIANTS, gap_to="imagenet1k"),
    ),
    metric="acc1",
    note="The printed lines are classifiers fine-tuned on ImageNet, not zero-shot.",
)

VIDEO_SUITE = Suite(  # the EVA-02 paper's Table 11
    name="video",
    title="Zero-shot video",
    keys=_keys(VIDEO),
    aggregates=(Aggregate(name="average", title="Average of 4", keys=_keys(VIDEO)),),
)

RETRIEVAL_SUITE = Suite(
    name="retrieval",
    title="Retrieval",
    keys=_RETRIEVAL,
    aggregates=(
        Aggregate(name="retrieval", title="Retrieval", keys=_RETRIEVAL),
        Aggregate(name="search", title="Flickr and MSCOCO", keys=_keys(DATACOMP, layout="retrieval")),
    ),
)

SUITES: dict[str, Suite] = {
    suite.name: suite for suite in (DATACOMP_SUITE, EVA02_SUITE, IMAGENET_VARIANTS, VIDEO_SUITE, RETRIEVAL_SUITE)
}


def find_suite(name: str) -> Suite:
    """The suite of that name. Raises ConfigError for an unknown one."""
    if name not in SUITES:
        raise ConfigError(f"unknown suite {name!r}{closest(name, SUITES)}")
    return SUITES[name]


def missing_tasks(suite: Suite, values: Mapping[str, float | None]) -> tuple[str, ...]:
    """Names of the tasks that some average of `suite` needs and `values` (by key or shown name) lacks."""
    known = _by_key(values)
    needed = dict.fromkeys(key for aggregate in suite.aggregates for key in aggregate.keys)
    return tuple(TASKS[key].name for key in needed if key not in known)


def aggregate(
    suite: Suite | str, values: Mapping[str, float | None], *, allow_missing: bool = False
) -> dict[str, float]:
    """The averages of a suite, by name, from its tasks' main metrics.

    values: fraction 0..1 by task key or by shown name; None, and tasks that no average holds, are as if not there.
    allow_missing: leave out the averages that lack a task. Without it, DataError names every missing task: an average
    over what happens to be there is never returned. Raises DataError also for a value that is no fraction, and for a
    task given twice with two values.
    """
    suite = find_suite(suite) if isinstance(suite, str) else suite
    known = _by_key(values)
    missing = missing_tasks(suite, values)
    if missing and not allow_missing:
        raise DataError(
            f"{suite.title}: {len(missing)} tasks are missing: {', '.join(missing)}; evaluate them too, or read their "
            "result files: an average over the others would not be comparable"
        )
    return {
        one.name: _value(one, known) for one in suite.aggregates if all(key in known for key in (*one.keys, *_gap(one)))
    }


def _gap(one: Aggregate) -> tuple[str, ...]:
    return () if one.gap_to is None else (one.gap_to,)


def _value(one: Aggregate, known: Mapping[str, float]) -> float:
    mean = math.fsum(known[key] for key in one.keys) / len(one.keys)
    return mean if one.gap_to is None else known[one.gap_to] - mean


def _by_key(values: Mapping[str, float | None]) -> dict[str, float]:
    """Values by task key, without those that are None. Names that are no task (a user's own set) are left out."""
    known: dict[str, float] = {}
    for name, value in values.items():
        if value is None:
            continue
        try:
            key = find_task(name).key
        except ConfigError:
            continue
        if not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
            raise DataError(
                f"{name}: expected a fraction from 0 to 1, got {value!r}; percentages must be divided by 100"
            )
        if known.setdefault(key, float(value)) != value:
            raise DataError(
                f"{TASKS[key].name}: two values for one task, {known[key]!r} and {value!r}; give one of them"
            )
    return known
