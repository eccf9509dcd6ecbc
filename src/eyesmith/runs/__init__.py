from eyesmith.runs.train import Interrupted, RunSummary, resume, start, start_or_resume

__all__ = ["Interrupted", "RunSummary", "resume", "start", "start_or_resume"]
