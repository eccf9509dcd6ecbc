from eyesmith.optim.groups import decay_groups
from eyesmith.optim.schedule import warmup_cosine

__all__ = ["decay_groups", "warmup_cosine"]
