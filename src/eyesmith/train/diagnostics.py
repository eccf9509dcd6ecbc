"""Does a run go well? Its log line by line in, plain sentences out, each with a hint.

What is said depends on the lines alone, so a resumed run that reads its old lines goes on as if it had not stopped.
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from eyesmith.config import check_least
from eyesmith.errors import ConfigError
from eyesmith.train.symptoms import RULES, Course, Finding, RunShape

MIN_LINES = 20  # logged steps whose median is no accident
REPEAT = 4  # patiences before a symptom that went away and came back is told again


@dataclass(frozen=True, kw_only=True)
class HealthConfig:
    """When a symptom is worth a sentence. The maths of the run does not depend on it."""

    patience_steps: int = 500
    """Steps that a symptom must last; a fifth of the run if that is less, but never less than 20 logged steps."""
    max_wait_frac: float = 0.25
    """Share of the time in steps that may be spent waiting for data."""
    ignore: tuple[str, ...] = ()
    """Rules that say nothing; docs/health.md lists them."""

    def __post_init__(self) -> None:
        check_least(self, "health.", patience_steps=1)
        if not 0 < self.max_wait_frac <= 1:
            raise ConfigError(f"health.max_wait_frac: expected above 0 and up to 1, got {self.max_wait_frac}")
        if unknown := [name for name in self.ignore if name not in RULES]:
            raise ConfigError(f"health.ignore: there is no rule {unknown[0]!r}; there are: {', '.join(RULES)}")


@dataclass
class Health:
    """Reads a run's log lines in order. `observe` says what a line shows that was not said before."""

    config: HealthConfig
    shape: RunShape
    _course: Course = field(init=False)
    _is_said: dict[str, int] = field(default_factory=dict)
    _is_on: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        patience = min(self.config.patience_steps, self.shape.steps // 5)
        patience = max(patience, MIN_LINES * self.shape.log_every_steps)
        self._course = Course(shape=self.shape, patience=patience, max_wait_frac=self.config.max_wait_frac)

    def observe(self, line: dict[str, Any]) -> list[Finding]:
        """Findings of one line of log.jsonl: a logged step or a check; other lines show nothing."""
        if not self._course.add(line):
            return []
        step, found = line["step"], []
        for name, rule in RULES.items():
            if name in self.config.ignore:
                continue
            said = rule(self._course)
            if said is None:
                self._is_on.discard(name)
                continue
            silent = step - self._is_said.get(name, -math.inf)
            is_new = name not in self._is_on and silent >= REPEAT * self._course.patience
            self._is_on.add(name)
            if is_new:
                self._is_said[name] = step
                found.append(Finding(rule=name, step=step, message=said[0], hint=said[1]))
        return found


def as_line(finding: Finding) -> dict[str, Any]:
    """The line of log.jsonl that tells a finding."""
    return {"event": "health", **asdict(finding)}
