from eyesmith.optim.groups import TrainedRow, freeze, parameter_groups, trained_table
from eyesmith.optim.schedule import warmup_constant, warmup_cosine

__all__ = ["TrainedRow", "freeze", "parameter_groups", "trained_table", "warmup_constant", "warmup_cosine"]
