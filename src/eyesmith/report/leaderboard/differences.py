"""Two models task by task: which is better where, and by how much."""

from collections.abc import Sequence
from dataclasses import dataclass

from eyesmith.config import closest
from eyesmith.errors import ConfigError
from eyesmith.eval.sets import TASKS
from eyesmith.report.leaderboard.board import Entry, SuiteBoard


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One task of two models, fractions. is_clear: whether their 95 % intervals lie apart, None where one has none."""

    key: str
    name: str
    one: float
    two: float
    is_clear: bool | None

    @property
    def gap(self) -> float:
        """How much the first model is better."""
        return self.one - self.two


def choose_pair(board: SuiteBoard, names: Sequence[str] = ()) -> tuple[Entry, Entry] | None:
    """The two lines to compare: those named, else the two best measured ones, else a measured and a printed one.

    Models of whole sets go before those of parts. None where no two lines share a task. Raises ConfigError for a name
    that no line has.
    """
    if names:
        return _named(board, names[0]), _named(board, names[1])
    with_tasks = sorted((entry for entry in board.entries if entry.tasks), key=lambda entry: bool(entry.partial))
    ours = [entry for entry in with_tasks if entry.role == "ours"]
    others = [entry for entry in with_tasks if entry.role != "ours"]
    if not ours:
        return None
    for partner in (*ours[1:], *others):
        if set(partner.tasks) & set(ours[0].tasks):
            return ours[0], partner
    return None


def differences(one: Entry, two: Entry) -> list[Difference]:
    """Every task that both have, the first model's greatest advantage first."""
    found = []
    for key in one.tasks:
        if key not in two.tasks:
            continue
        a, b = one.tasks[key], two.tasks[key]
        is_clear = None
        if a.low is not None and a.high is not None and b.low is not None and b.high is not None:
            is_clear = a.low > b.high or b.low > a.high
        found.append(Difference(key=key, name=TASKS[key].name, one=a.value, two=b.value, is_clear=is_clear))
    return sorted(found, key=lambda difference: -difference.gap)


def _named(board: SuiteBoard, name: str) -> Entry:
    for entry in board.entries:
        if name == entry.label:
            if not entry.tasks:
                raise ConfigError(f"{name}: its source gives averages only, no task to compare by")
            return entry
    raise ConfigError(f"{board.suite.title} has no model {name!r}{closest(name, [e.label for e in board.entries])}")
