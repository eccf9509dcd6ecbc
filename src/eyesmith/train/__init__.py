from eyesmith.train.batches import Batch, Batches, BatchReader
from eyesmith.train.config import DataConfig, EvalConfig, OptimConfig, ParallelConfig, RunConfig, TrainConfig
from eyesmith.train.contrastive import Contrastive
from eyesmith.train.distributed import World, joined
from eyesmith.train.kinds import run_from_dict, run_to_dict
from eyesmith.train.log import LOG_FILE, Log, LogSteps, append_line, truncate_after
from eyesmith.train.loop import Hook, new_state, total_steps, train
from eyesmith.train.masked import Masked
from eyesmith.train.masked_config import MaskedConfig, TargetConfig
from eyesmith.train.masks import MaskConfig
from eyesmith.train.objective import Objective, StepLoss
from eyesmith.train.readings import Readings, StepFacts
from eyesmith.train.state import TrainState
from eyesmith.train.stop import StopSignal
from eyesmith.train.stream_batches import StreamBatches
from eyesmith.train.text_bank import TextBank

__all__ = [
    "LOG_FILE",
    "Batch",
    "BatchReader",
    "Batches",
    "Contrastive",
    "DataConfig",
    "EvalConfig",
    "Hook",
    "Log",
    "LogSteps",
    "MaskConfig",
    "Masked",
    "MaskedConfig",
    "Objective",
    "OptimConfig",
    "ParallelConfig",
    "Readings",
    "RunConfig",
    "StepFacts",
    "StepLoss",
    "StopSignal",
    "StreamBatches",
    "TargetConfig",
    "TextBank",
    "TrainConfig",
    "TrainState",
    "World",
    "append_line",
    "joined",
    "new_state",
    "run_from_dict",
    "run_to_dict",
    "total_steps",
    "train",
    "truncate_after",
]
