from eyesmith.runs.plan.cluster import Cluster
from eyesmith.runs.plan.plan import Plan, plan
from eyesmith.runs.plan.teacher import teacher_config

__all__ = ["Cluster", "Plan", "plan", "teacher_config"]
