"""What a plan says of data, states and failures, against numbers worked out by hand."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from eyesmith.errors import ConfigError
from eyesmith.optim.config import OptimConfig
from eyesmith.recipes import recipe
from eyesmith.runs.plan import Cluster, plan
from eyesmith.runs.plan.scale import fetch_plan, save_plan, saved_bytes
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train.config import RunConfig


def streamed(**data: object) -> TrainConfig:
    run = recipe("vitamin-xl-12.8b")
    assert isinstance(run, TrainConfig)
    return replace(run, batch_size=90_112, data=replace(run.data, **data))  # pyright: ignore[reportArgumentType]


def machines(count: int) -> Cluster:
    return Cluster(gpus=8 * count, sample_kb=30.0, shard_samples=1000)


def test_a_machine_with_a_lane_of_its_own_fetches_its_share_and_two_shards() -> None:
    found = fetch_plan(streamed(), machines(64), 1_280_000)
    assert found is not None
    assert (found.machines, found.lanes, found.shards) == (64, 64, 1280)
    assert found.machine_bytes == (1280 // 64 + 2) * 1000 * 30_000  # 20 shards, and those cut at the ends
    assert found.total_bytes == 64 * found.machine_bytes
    assert found.one_lane_bytes == pytest.approx(
        1280 * 1000 * 30_000, rel=1e-6
    )  # of 1,000 samples each machine has some


def test_a_machine_with_several_lanes_fetches_all_of_them() -> None:
    found = fetch_plan(streamed(lanes=64), machines(16), 1_280_000)
    assert found is not None
    assert found.machine_bytes == 4 * (20 + 2) * 1000 * 30_000


def test_machines_that_share_a_lane_read_the_shards_they_have_samples_of() -> None:
    few = Cluster(gpus=8 * 64, sample_kb=30.0, shard_samples=4)
    found = fetch_plan(streamed(lanes=1), few, 4096)
    assert found is not None
    # four samples over 64 machines: one has a sample of 1 - (63/64)^4 of the shards
    assert found.machine_bytes == pytest.approx(1024 * (1 - (63 / 64) ** 4) * 4 * 30_000, rel=1e-6)


def test_data_that_are_no_shards_are_not_fetched() -> None:
    assert fetch_plan(recipe("finetune"), machines(1), 1000) is None


def model() -> nn.Module:
    with torch.device("meta"):
        made = nn.Sequential(nn.Linear(10, 10), nn.BatchNorm1d(10), nn.Linear(10, 5))
    made[0].weight.requires_grad_(False)  # pyright: ignore[reportArgumentType]
    return made


@pytest.mark.parametrize(("name", "moments"), [("adamw", 2), ("lamb", 2), ("sgd", 1), ("lion", 1), ("muon", 2)])
def test_a_state_holds_what_trains_its_moments_and_running_statistics(name: str, moments: int) -> None:
    trained = 10 + 20 + 55  # a bias, a norm, a layer; the frozen matrix is not saved
    statistics = 2 * 4 * 10 + 8  # means and variances in fp32, a count in int64
    assert saved_bytes(model(), OptimConfig(name=name)) == 4 * (1 + moments) * trained + statistics  # pyright: ignore
    averaged = OptimConfig(name=name, ema_decay=0.9)  # pyright: ignore
    assert saved_bytes(model(), averaged, num_extra=1) == 4 * (2 + moments) * (trained + 1) + statistics


def test_what_failures_and_saving_cost() -> None:
    run = RunConfig(
        **{name: getattr(recipe("debug"), name) for name in ("model", "data", "parallel")},
        optim=OptimConfig(),
        save_every_steps=100,
    )
    cluster = Cluster(gpus=500, gpu_mtbf_hours=50_000, restart_minutes=10, write_gb_s=1e-6)  # 1,000 bytes a second
    found = save_plan(model(), run, cluster, num_extra=0, step_s=3.6)
    assert found.state_bytes == 12 * 85 + 88
    assert found.save_s == pytest.approx(1.108)
    assert found.interval_s == pytest.approx(360)
    assert found.mtbf_s == pytest.approx(360_000)  # 100 hours
    assert found.save_frac == pytest.approx(1.108 / 360)
    assert found.lost_frac == pytest.approx((180 + 600) / 360_000)
    assert found.best_interval_s == pytest.approx((2 * 1.108 * 360_000) ** 0.5)
    behind = replace(run, parallel=replace(run.parallel, async_save=True))
    assert save_plan(model(), behind, cluster, num_extra=0, step_s=3.6).save_frac == 0


def test_no_interval_loses_less_than_the_best() -> None:
    cluster = Cluster(gpus=512)
    run = recipe("debug")

    def lost(steps: int) -> float:
        found = save_plan(model(), replace(run, save_every_steps=steps), cluster, num_extra=0, step_s=1e-3)
        return found.save_frac + found.lost_frac

    best = save_plan(model(), run, cluster, num_extra=0, step_s=1e-3).best_interval_s
    assert lost(round(best * 1e3)) < min(lost(round(best * 500)), lost(round(best * 2000)))


def test_a_plan_of_xl_on_512_gpus() -> None:
    made = plan(streamed(), Cluster(gpus=512))
    trained = sum(part.trained for part in made.parts)
    assert made.saving.state_bytes == 12 * trained
    assert made.saving.mtbf_s == pytest.approx(50_000 / 512 * 3600)
    assert made.fetch is not None
    assert made.fetch.machine_bytes == (2000 + 2) * 350_000_000  # 128,000 shards of 350 MB over 64 machines
    assert made.hours_with_losses > made.hours
    assert made.as_dict()["saving"]["save_s"] == pytest.approx(12 * trained / 2e9)


def test_sharded_weights_are_held_in_parts_and_gathered_a_block_at_a_time() -> None:
    run = recipe("vitamin-s-128m")
    cluster = Cluster(gpus=64)

    def memory(shards: int) -> dict[str, int]:
        made = plan(replace(run, parallel=replace(run.parallel, strategy="fsdp", shards=shards)), cluster)
        return {part.part: part.num_bytes for part in made.memory}

    trained = 22_025_152 + 40_444_032 + 1
    whole, machine = memory(0), memory(8)
    assert whole["optimizer"] == 8 * trained // 64
    assert machine["optimizer"] == 8 * trained // 8  # each machine has a copy
    largest = 12 * 384**2 + 13 * 384  # of the text tower: four products and their biases, two norms
    assert whole["gathered weights"] == machine["gathered weights"] >= (2 * 2 + 4) * largest
    assert "weights in bfloat16" not in whole


@pytest.mark.parametrize(
    "name", ["machine_gpus", "sample_kb", "shard_samples", "write_gb_s", "gpu_mtbf_hours", "restart_minutes"]
)
def test_a_cluster_that_makes_no_sense_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"plan.{name}"):
        Cluster(**{name: -1})
