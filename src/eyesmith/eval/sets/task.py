"""What an evaluation task is: a set on disk, how it is scored, and which averages it belongs to."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from eyesmith.data.evaluation.evaluation_set import LAYOUTS, EvaluationSet, Layout
from eyesmith.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task. To add one, write an entry like those in this folder and put its data beside the others.

    key: the name in result files. name: as shown, and as `dataset` in `eval_results.jsonl`.
    size: images (instances of WinoGAViL) of the test set; None where copies differ, then nobody checks it.
    num_classes: None where there are no classes or several lists of them.
    metric: the key of the main number among a task's metrics; None for a task without one, which no average holds.
    groups: the averages it counts for, by our names: imagenet, shift, vtab, retrieval; wilds and fairness are labels.
    layout: how its folder is built and read. folder: that folder's name below the data root. kind: what is scored, a
    name of `eyesmith.eval.kinds`; "" for what the layout says (`scored_as`).
    metadata: columns of each sample's row of numbers. group_by: the column that group metrics use.
    left_out: values of that column that the worst group must not see.
    hub: owner/name of the data set repository it is fetched from, "" where there is none to fetch.
    prompts: the name of its templates in the installed packages, "" where only the folder has them.
    class_list: the name of its class names in the installed packages, "" where only the folder has them.
    random: the score that the reference states for guessing; `chance` falls back on the number of classes.
    lines: the metrics that get a result line, () for all. is_published: sentences and captions must be there;
    else the model's own sentences are taken, and images without a caption are only candidates. reader: opens the set
    at its folder, in place of what the layout says; code: the SHA-256 of the file that defines the task, "" for ours.
    """

    key: str
    name: str
    size: int | None
    num_classes: int | None = None
    metric: str | None = "acc1"
    groups: tuple[str, ...] = ()
    layout: Layout = "classification"
    kind: str = ""
    folder: str
    metadata: tuple[str, ...] = ()
    group_by: str | None = None
    left_out: tuple[int, ...] = ()
    hub: str = ""
    prompts: str = ""
    class_list: str = ""
    random: float | None = None
    lines: tuple[str, ...] = ()
    is_published: bool = True
    reader: Callable[[Path], EvaluationSet] | None = field(default=None, compare=False)
    code: str = ""

    def __post_init__(self) -> None:
        where = f"task {self.key!r}"
        if not self.key or not self.name or not self.folder:
            raise ConfigError(f"{where}: key, name and folder must not be empty")
        if self.layout not in LAYOUTS:
            raise ConfigError(f"{where}: layout must be one of {', '.join(LAYOUTS)}, got {self.layout!r}")
        if self.size is not None and self.size < 1:
            raise ConfigError(f"{where}: size must be at least 1, or None for unknown, got {self.size}")
        if self.num_classes is not None and self.num_classes < 2:
            raise ConfigError(f"{where}: a task needs at least 2 classes, got {self.num_classes}")
        if self.group_by is not None and self.group_by not in self.metadata:
            raise ConfigError(f"{where}: group_by is {self.group_by!r}, its columns are {', '.join(self.metadata)}")
        if self.left_out and self.group_by is None:
            raise ConfigError(f"{where}: left_out needs group_by")

    @property
    def scored_as(self) -> str:
        """The kind of measurement: `kind`, else what the layout and the metadata say."""
        if self.kind:
            return self.kind
        if self.layout == "classification":
            return "groups" if self.metadata else "classification"
        return {"video": "classification", "winogavil": "association"}.get(self.layout, self.layout)

    @property
    def chance(self) -> float | None:
        """Expected main metric of a guess, a fraction; None where nobody knows it. `random`, else from the classes."""
        if self.random is not None or self.metric is None:
            return self.random
        if self.layout == "retrieval":
            return None if self.size is None else 1 / self.size
        if self.num_classes is None or self.layout == "multilabel":
            return None
        if self.metric == "mean_acc1_acc5":
            return (1 + min(5, self.num_classes)) / 2 / self.num_classes
        return (5 if "top5" in self.metric else 1) / self.num_classes
