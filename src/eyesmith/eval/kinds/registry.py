"""Every kind of measurement by its name."""

from eyesmith.config import closest
from eyesmith.errors import ConfigError
from eyesmith.eval.kinds.association import Association
from eyesmith.eval.kinds.attributes import Attributes
from eyesmith.eval.kinds.choice import Choice
from eyesmith.eval.kinds.classification import Classification
from eyesmith.eval.kinds.groups import Groups
from eyesmith.eval.kinds.kind import Kind
from eyesmith.eval.kinds.multilabel import AnyLabel, Multilabel
from eyesmith.eval.kinds.pairs import Pairs
from eyesmith.eval.kinds.retrieval import Retrieval
from eyesmith.eval.sets.task import Task

KINDS: dict[str, Kind] = {
    "classification": Classification(),
    "groups": Groups(),
    "multilabel": Multilabel(),
    "any_label": AnyLabel(),
    "retrieval": Retrieval(),
    "retrieval_label": Retrieval(by_label=True),
    "association": Association(),
    "attributes": Attributes(),
    "pairs": Pairs(),
    "choice": Choice(),
}


def kind_of(task: Task) -> Kind:
    """What is scored on a task. Raises ConfigError for a kind that is not there."""
    if task.scored_as not in KINDS:
        raise ConfigError(
            f"task {task.key!r}: no kind of measurement {task.scored_as!r}{closest(task.scored_as, KINDS)}"
        )
    return KINDS[task.scored_as]


def register_kind(kind: Kind) -> None:
    """Add a kind of your own. Raises ConfigError when its name is taken."""
    if kind.name in KINDS:
        raise ConfigError(f"there is a kind of measurement {kind.name!r} already; choose another name")
    KINDS[kind.name] = kind
