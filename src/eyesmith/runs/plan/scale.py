"""What a run asks of the machines around its GPUs: bytes to fetch, states to write, time that failures take."""

import math
from dataclasses import dataclass

from torch import nn

from eyesmith.data.stream import default_lanes
from eyesmith.optim.config import OptimConfig
from eyesmith.runs.plan.cluster import Cluster
from eyesmith.train.config import RunConfig

MOMENTS = {"adamw": 2, "lamb": 2, "sgd": 1, "lion": 1, "muon": 2}
"""Tensors as large as the parameter that each optimiser keeps of it."""
_FP32 = 4  # bytes
_REMOTE = ("s3://shards",)  # a plan is made before the data are there
_ENDS = 2  # shards of a lane that are cut at its ends, and fetched whole


@dataclass(frozen=True, kw_only=True)
class FetchPlan:
    """What the machines fetch of remote shards.

    lanes: of the run, or those it would begin with if its shards are remote. shards: of an epoch. machine_bytes: of one
    machine in an epoch, at most. one_lane_bytes: the same with one lane. start_reads: small files with the counts of
    shards that one process reads for all, at most: one a shard, or one in all where there is a sizes.json.
    """

    machines: int
    lanes: int
    shards: int
    machine_bytes: int
    one_lane_bytes: int
    start_reads: int

    @property
    def total_bytes(self) -> int:
        """Of all machines in an epoch."""
        return self.machines * self.machine_bytes


@dataclass(frozen=True, kw_only=True)
class SavePlan:
    """A saved state, and what failures and saving cost together.

    save_s: to write it, while training waits unless it is written in the background. interval_s: between two saves.
    mtbf_s: mean time between failures of all GPUs together. save_frac: share of the time that saving takes. lost_frac:
    share that is lost to failures: half an interval each, and the restart. best_interval_s: that loses least.
    """

    state_bytes: int
    save_s: float
    interval_s: float
    mtbf_s: float
    save_frac: float
    lost_frac: float
    best_interval_s: float


def fetch_plan(config: RunConfig, cluster: Cluster, samples_per_epoch: int) -> FetchPlan | None:
    """What an epoch fetches; None for a run that does not read shards.

    A machine with lanes of its own reads their shards. Machines that share a lane have rows of every window of it,
    drawn without regard to shards, so each reads all shards of which it has a sample: one of k machines has none of a
    shard's n samples with the chance (1 - 1/k)^n.
    """
    if config.transform is None:
        return None
    machines = cluster.machines
    lanes = config.data.lanes or default_lanes(_REMOTE, num_machines=machines, batch_size=config.batch_size)
    shards = -(-samples_per_epoch // cluster.shard_samples)
    of_one = lambda count: round(_shards_of_machine(shards, count, cluster) * cluster.shard_bytes)  # noqa: E731
    return FetchPlan(
        machines=machines,
        lanes=lanes,
        shards=shards,
        machine_bytes=of_one(lanes),
        one_lane_bytes=of_one(1),
        start_reads=shards,
    )


def _shards_of_machine(shards: int, lanes: int, cluster: Cluster) -> float:
    """Shards that one machine fetches in an epoch, at most."""
    own = max(1, lanes // cluster.machines)
    sharers = max(1, cluster.machines // lanes)
    in_lane = min(float(shards), shards / lanes + (_ENDS if lanes > 1 else 0))
    has_one = -math.expm1(cluster.shard_samples * math.log1p(-1 / sharers)) if sharers > 1 else 1.0
    return min(float(shards), own * in_lane * has_one)


def save_plan(model: nn.Module, config: RunConfig, cluster: Cluster, *, num_extra: int, step_s: float) -> SavePlan:
    """The state of a run, and what is lost to failures with the interval that it is saved in.

    model: on the meta device, what does not train frozen. num_extra: numbers that train beside it. step_s: seconds of a
    step. A failure loses on the average half of what was done since the last state, and the restart; saving takes
    save_s each time, or nothing in the background.

    First order in the interval over the mean time between failures. Source: Young 1974 (CACM 17, 530), with the restart
    as in Daly 2006 (FGCS 22, 303); the best interval is sqrt(2 save_s mtbf_s).
    """
    state_bytes = saved_bytes(model, config.optim, num_extra=num_extra)
    save_s = state_bytes / (cluster.write_gb_s * 1e9)
    waits_s = 0.0 if config.parallel.async_save else save_s
    interval_s = config.save_every_steps * step_s
    mtbf_s = cluster.gpu_mtbf_hours * 3600 / cluster.gpus
    return SavePlan(
        state_bytes=state_bytes,
        save_s=save_s,
        interval_s=interval_s,
        mtbf_s=mtbf_s,
        save_frac=waits_s / interval_s,
        lost_frac=(interval_s / 2 + cluster.restart_minutes * 60) / mtbf_s,
        best_interval_s=math.sqrt(2 * save_s * mtbf_s),
    )


def saved_bytes(model: nn.Module, optim: OptimConfig, *, num_extra: int = 0) -> int:
    """Of a saved state: what trains, its moments and average, running statistics; frozen weights are none of it."""
    trained = num_extra + sum(value.numel() for value in model.parameters() if value.requires_grad)
    copies = 1 + MOMENTS[optim.name] + (1 if optim.ema_decay else 0)
    names = set(dict(model.named_parameters()))
    held = sum(value.numel() * value.element_size() for name, value in model.state_dict().items() if name not in names)
    return _FP32 * copies * trained + held
