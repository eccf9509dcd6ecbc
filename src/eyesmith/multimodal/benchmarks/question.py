"""One question of a benchmark."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class BenchQuestion:
    """One question.

    text: as it is asked, its suffix included; image: a file, None for a question without one; truth: right answers, by
    people or of the set, none where a server keeps them; group: the subtask or the pair it belongs to; facts: what a
    submission repeats.
    """

    key: str
    text: str
    image: Path | None
    truth: tuple[str, ...] = ()
    group: str = ""
    choices: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
