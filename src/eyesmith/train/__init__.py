from eyesmith.train.batches import Batch, Batches
from eyesmith.train.config import DataConfig, EvalConfig, OptimConfig, TrainConfig
from eyesmith.train.log import LOG_FILE, LogSteps, append_line, truncate_after
from eyesmith.train.loop import Hook, StepFacts, new_state, total_steps, train
from eyesmith.train.state import STATE_FILE, TrainState
from eyesmith.train.stop import StopSignal
from eyesmith.train.text_bank import TextBank

__all__ = [
    "LOG_FILE",
    "STATE_FILE",
    "Batch",
    "Batches",
    "DataConfig",
    "EvalConfig",
    "Hook",
    "LogSteps",
    "OptimConfig",
    "StepFacts",
    "StopSignal",
    "TextBank",
    "TrainConfig",
    "TrainState",
    "append_line",
    "new_state",
    "total_steps",
    "train",
    "truncate_after",
]
