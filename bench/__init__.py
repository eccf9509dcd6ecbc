"""Our speed beside our peers': both sides in one process, the same inputs, outputs compared in the same run."""

from bench.groups import GROUPS, run

__all__ = ["GROUPS", "run"]
