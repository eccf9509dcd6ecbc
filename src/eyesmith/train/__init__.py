from eyesmith.optim.config import OptimConfig
from eyesmith.train.config import DataConfig, EvalConfig, ParallelConfig, RunConfig
from eyesmith.train.distributed import World, joined
from eyesmith.train.loop import Hook, StopSignal, new_state, total_steps, train
from eyesmith.train.objective import Objective, StepLoss
from eyesmith.train.readings import Readings, StepFacts
from eyesmith.train.state import TrainState

__all__ = [
    "DataConfig",
    "EvalConfig",
    "Hook",
    "Objective",
    "OptimConfig",
    "ParallelConfig",
    "Readings",
    "RunConfig",
    "StepFacts",
    "StepLoss",
    "StopSignal",
    "TrainState",
    "World",
    "joined",
    "new_state",
    "total_steps",
    "train",
]
