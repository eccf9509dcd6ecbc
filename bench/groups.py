"""The groups of comparisons by name."""

from collections.abc import Callable
from importlib import import_module

from bench.pairs import Row


def _rows_of(module: str) -> Callable[[], list[Row]]:
    """`rows` of a module of this package, imported when called: each group needs other packages."""
    return lambda: import_module(f"bench.{module}").rows()


_MODULES = {name: name for name in ("tokenizer", "models", "gpu", "loss", "loader", "step", "curate", "dense")} | {
    "eval": "evaluation"
}
GROUPS: dict[str, Callable[[], list[Row]]] = {name: _rows_of(module) for name, module in _MODULES.items()}


def run(name: str) -> list[Row]:
    """Measure one group. Raises KeyError for an unknown name."""
    return GROUPS[name]()
