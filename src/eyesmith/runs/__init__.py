from eyesmith.runs.quickstart import QuickstartConfig, quickstart
from eyesmith.runs.train import Interrupted, RunSummary, resume, start, start_or_resume

__all__ = [
    "Interrupted",
    "QuickstartConfig",
    "RunSummary",
    "quickstart",
    "resume",
    "start",
    "start_or_resume",
]
