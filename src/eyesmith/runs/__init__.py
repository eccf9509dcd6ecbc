from eyesmith.runs.train import resume, start, start_or_resume
from eyesmith.runs.work import Interrupted, RunSummary

__all__ = ["Interrupted", "RunSummary", "resume", "start", "start_or_resume"]
