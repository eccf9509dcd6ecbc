from eyesmith.runs.plan.plan import Cluster, Plan, plan
from eyesmith.runs.plan.teacher import teacher_config

__all__ = ["Cluster", "Plan", "plan", "teacher_config"]
