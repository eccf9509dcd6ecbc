"""The groups of comparisons by name."""

from collections.abc import Callable
from importlib import import_module

from bench.pairs import Row


def _rows_of(*modules: str) -> Callable[[], list[Row]]:
    """`rows` of modules of this package, imported when called: each group needs other packages."""
    return lambda: [row for module in modules for row in import_module(f"bench.{module}").rows()]


_MODULES = {
    name: name for name in ("tokenizer", "models", "gpu", "loss", "loader", "step", "curate", "eyes", "dense")
} | {"eval": "evaluation"}
_MORE = {"dense": ("dense_ap", "dense_detector")}  # rows of a group that need other packages than the rest of it
GROUPS: dict[str, Callable[[], list[Row]]] = {
    name: _rows_of(*([_MODULES[name]] if name in _MODULES else []), *_MORE.get(name, ()))
    for name in dict.fromkeys([*_MODULES, *_MORE])
}


def run(name: str) -> list[Row]:
    """Measure one group. Raises KeyError for an unknown name."""
    return GROUPS[name]()
