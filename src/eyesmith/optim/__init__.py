from eyesmith.optim.config import OptimConfig
from eyesmith.optim.groups import TrainedRow, freeze, parameter_groups, trained_table

__all__ = ["OptimConfig", "TrainedRow", "freeze", "parameter_groups", "trained_table"]
