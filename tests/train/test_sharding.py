import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import sharding_process as ways
import torch
from torch import nn

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.tasks.contrastive import Contrastive
from eyesmith.train.batch_norm import share_statistics
from eyesmith.train.config import ParallelConfig
from eyesmith.train.distributed import World
from eyesmith.train.loop import new_state
from eyesmith.train.sharding import choose_strategy, shard_mesh


def start_processes(arguments: list[str], world_size: int) -> list[subprocess.Popen[bytes]]:
    """Processes with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size)}
    return [
        subprocess.Popen([sys.executable, *arguments], env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(world_size)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes reached, in every way."""
    root = tmp_path_factory.mktemp("ways")
    processes = start_processes([str(Path(ways.__file__)), str(root)], 2)
    try:
        assert [process.wait(timeout=400) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return root


@pytest.mark.parametrize("way", ways.WAYS)
def test_two_processes_reach_the_weights_of_one(folder: Path, way: str) -> None:
    one, losses = ways.trained(ways.config_of(way), World(), norms="norms" in ways.WAYS[way])
    two = torch.load(folder / f"{list(ways.WAYS).index(way)}.pt", weights_only=True)
    # FSDP rounds what norms and tables hold to half precision too, which autocast alone does not
    is_half = way.endswith("16")
    assert two["losses"] == pytest.approx(losses, rel=1e-2 if is_half else 1e-5)
    assert two["weights"].keys() == one.keys()
    for name, value in one.items():
        atol, rtol = (1e-2, 2e-2) if is_half else (2e-5, 1e-4)
        torch.testing.assert_close(two["weights"][name], value, atol=atol, rtol=rtol, msg=lambda m, n=name: f"{n}: {m}")


def test_a_batch_in_parts_is_the_batch_as_a_whole() -> None:
    whole, losses = ways.trained(ways.config_of("ddp"), World())
    parts, losses_of_parts = ways.trained(ways.config_of("ddp, parts, recomputed"), World())
    assert losses_of_parts == pytest.approx(losses, rel=1e-5)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("place", ["2", "one"])
def test_a_state_in_parts_is_read_by_one_process(folder: Path, place: str) -> None:
    """As it is, and as the one file of it."""
    assert all(path.is_file() == (place == "one") for path in (folder / place / "state").iterdir())
    torch.manual_seed(1)
    clip = ways.BASE.model.build()
    state = new_state(Contrastive(clip, ways.config_of("fsdp")), ways.config_of("fsdp"))
    state.load(folder / place)
    assert state.step == ways.STEPS
    assert len(state.optimizer.state) == len(state.trained())
    state.take_average()
    expected = torch.load(folder / "2.pt", weights_only=True)["weights"]
    for name, value in clip.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_the_last_two_states_stay(folder: Path) -> None:
    assert sorted(path.name for path in (folder / "2" / "state").iterdir()) == ["step-00000003", "step-00000005"]


def test_a_damaged_state_in_parts_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "2", tmp_path / "run")
    config, said = ways.config_of("fsdp"), []
    for step in (5, 3):
        part = next((tmp_path / "run").glob(f"state/step-0000000{step}/*.distcp"))
        part.write_bytes(part.read_bytes()[:100])
        state = new_state(Contrastive(config.model.build(), config), config)
        if step == 5:
            state.load(tmp_path / "run", note=said.append)
    assert state.step == 0
    assert "is 100 bytes, and there should be more; the state before it is taken" in said[0]
    with pytest.raises(CheckpointError, match="step-00000003.* there is no older state"):
        state.load(tmp_path / "run")


def test_a_strategy_is_chosen_by_the_number_of_processes() -> None:
    assert choose_strategy("auto", World()) == "none"
    assert choose_strategy("fsdp", World()) == "none"
    assert choose_strategy("auto", World(size=2)) == "ddp"
    assert choose_strategy("fsdp", World(size=2)) == "fsdp"
    with pytest.raises(ConfigError, match=r"2 processes were started and 'none'"):
        choose_strategy("none", World(size=2))


def test_a_batch_must_divide() -> None:
    assert World(rank=1, size=4).share(8) == slice(2, 4)
    with pytest.raises(ConfigError, match="3 processes cannot share 8 pairs evenly"):
        World(size=3).share(8)


@pytest.mark.parametrize(("batch_size", "accumulate", "size"), [(8, 1, 3), (8, 8, 2), (12, 4, 2)])
def test_batch_parts_and_processes_are_checked_together(batch_size: int, accumulate: int, size: int) -> None:
    World(size=size).check_batch(size * accumulate * 2, accumulate)
    wanted = f"batch_size {batch_size}, accumulate {accumulate} and {size} processes do not go together"
    with pytest.raises(ConfigError, match=wanted):
        World(size=size).check_batch(batch_size, accumulate)
    config = ways.replace(ways.BASE, batch_size=batch_size, accumulate=accumulate)
    with pytest.raises(ConfigError, match=wanted):
        new_state(Contrastive(config.model.build(), config), config, World(size=size))


def test_copies_must_divide_the_processes() -> None:
    with pytest.raises(ConfigError, match=r"parallel\.shards: 8 processes cannot be parted into groups of 3"):
        shard_mesh(8, 3, "cpu")
    with pytest.raises(ConfigError, match=r"parallel\.shards: .*strategy=fsdp"):
        ParallelConfig(shards=2)


def test_a_batch_norm_of_its_own_kind_is_refused() -> None:
    class Own(nn.BatchNorm2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return input

    with pytest.raises(ConfigError, match="0: Own is a batch norm of its own kind"):
        share_statistics(nn.Sequential(Own(3)))


def test_recomputing_blocks_changes_no_gradient() -> None:
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        clip = ways.BASE.model.build().train()
        config = ways.replace(ways.BASE, parallel=ParallelConfig(checkpoint_blocks=recompute))
        state = new_state(Contrastive(clip, config), config)
        torch.manual_seed(1)
        clip.image_features(torch.zeros(2, 3, *ways.SIZE, dtype=torch.uint8)).square().sum().backward()
        found.append([value.grad for value in state.trained().values() if value.grad is not None])
    for plain, recomputed in zip(*found, strict=True):
        assert torch.equal(plain, recomputed)
