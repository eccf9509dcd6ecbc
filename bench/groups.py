"""The groups of comparisons by name."""

from collections.abc import Callable

from bench import models, tokenizer
from bench.pairs import Row

GROUPS: dict[str, Callable[[], list[Row]]] = {
    "tokenizer": tokenizer.rows,
    "models": models.rows,
}


def run(name: str) -> list[Row]:
    """Measure one group. Raises KeyError for an unknown name."""
    return GROUPS[name]()
