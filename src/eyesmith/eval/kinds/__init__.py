from eyesmith.eval.kinds.kind import Answered, Asked, Kind, Metrics, PairedValues, Records, Span
from eyesmith.eval.kinds.registry import KINDS, kind_of, register_kind

__all__ = [
    "KINDS",
    "Answered",
    "Asked",
    "Kind",
    "Metrics",
    "PairedValues",
    "Records",
    "Span",
    "kind_of",
    "register_kind",
]
