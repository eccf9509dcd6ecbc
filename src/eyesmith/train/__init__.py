from eyesmith.train.config import DataConfig, EvalConfig, OptimConfig, ParallelConfig, RunConfig
from eyesmith.train.loop import Hook, StepFacts, StopSignal, new_state, total_steps, train
from eyesmith.train.objective import Objective, StepLoss
from eyesmith.train.processes import World, joined
from eyesmith.train.state import STATE_FILE, TrainState

__all__ = [
    "STATE_FILE",
    "DataConfig",
    "EvalConfig",
    "Hook",
    "Objective",
    "OptimConfig",
    "ParallelConfig",
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
