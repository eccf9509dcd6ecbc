from eyesmith.train.batches import Batch, Batches, BatchReader
from eyesmith.train.config import DataConfig, EvalConfig, OptimConfig, ParallelConfig, TrainConfig
from eyesmith.train.log import LOG_FILE, Log, LogSteps, append_line, truncate_after
from eyesmith.train.loop import Hook, StepFacts, new_state, total_steps, train
from eyesmith.train.processes import World, joined
from eyesmith.train.state import STATE_FILE, TrainState
from eyesmith.train.stop import StopSignal
from eyesmith.train.stream_batches import StreamBatches
from eyesmith.train.text_bank import TextBank

__all__ = [
    "LOG_FILE",
    "STATE_FILE",
    "Batch",
    "BatchReader",
    "Batches",
    "DataConfig",
    "EvalConfig",
    "Hook",
    "Log",
    "LogSteps",
    "OptimConfig",
    "ParallelConfig",
    "StepFacts",
    "StopSignal",
    "StreamBatches",
    "TextBank",
    "TrainConfig",
    "TrainState",
    "World",
    "append_line",
    "joined",
    "new_state",
    "total_steps",
    "train",
    "truncate_after",
]
