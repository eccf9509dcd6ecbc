"""The losses on 2 processes and on 4 with uneven rows, against the slow loop; what exchanges cost."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from loss_process import SIZES, Towers, cases, rows_of
from slow_loss import inputs, relative_error, value_and_grads
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from eyesmith.errors import ConfigError, ShapeError
from eyesmith.losses import Same, sigmoid_loss, softmax_loss
from eyesmith.losses.distill import affinity_distillation, feature_distillation, logit_distillation
from eyesmith.losses.exchange import Ranks

BOUND = {torch.float32: 2e-6, torch.float64: 1e-12}  # as in test_softmax
WORLD_SIZE = 4


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of four processes measured: in a group of all, and in two groups of two."""
    folder = tmp_path_factory.mktemp("ranks")
    program = Path(__file__).with_name("loss_process.py")
    with ExitStack() as stack:
        logs = [stack.enter_context((folder / f"{rank}.log").open("w+")) for rank in range(WORLD_SIZE)]
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-W", "error", program, str(rank), str(WORLD_SIZE), folder], stderr=log
                )
            )
            for rank, log in enumerate(logs)
        ]
        while any(process.poll() is None for process in processes):
            if any(process.poll() for process in processes):  # one has failed: the others would wait for it
                for process in processes:
                    process.kill()
            time.sleep(0.05)
        assert [process.returncode for process in processes] == [0] * WORLD_SIZE, "\n".join(
            (folder / f"{rank}.log").read_text() for rank in range(WORLD_SIZE)
        )
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD_SIZE)]


def _groups(found: list[dict[str, Any]]) -> list[list[dict[str, list[torch.Tensor]]]]:
    """Ranks' results by group: all four, the first two, the last two."""
    return [[rank["all"] for rank in found], [rank["pair"] for rank in found[:2]], [rank["pair"] for rank in found[2:]]]


def _check(group: list[dict[str, list[torch.Tensor]]], key: str, exact: list[torch.Tensor], bound: float) -> None:
    """Value equal on every rank; gradients of one process are features' over world size, and the mean of scalars'."""
    values, *grads = zip(*(rank[key] for rank in group), strict=True)
    assert all(torch.equal(value, values[0]) for value in values)
    assert relative_error(values[0], exact[0]) <= bound
    for parts, whole in zip(grads, exact[1:], strict=True):
        joined = torch.cat(parts) / len(group) if parts[0].ndim else torch.stack(parts).mean()
        assert relative_error(joined, whole) <= bound, key


@pytest.mark.parametrize("case", cases(), ids=str)
def test_ranks_equal_the_slow_loop(
    found: list[dict[str, Any]], case: tuple[str, int | None, bool, torch.dtype]
) -> None:
    loss, _, has_same, dtype = case
    for group in _groups(found):
        exact = value_and_grads(loss, inputs(sum(SIZES[len(group)])), has_same=has_same)
        _check(group, str(case), exact, BOUND[dtype])


def test_without_a_gradient_for_texts(found: list[dict[str, Any]]) -> None:
    for group in _groups(found):
        value, image, _, scale = value_and_grads("softmax", inputs(sum(SIZES[len(group)])), has_same=False)
        _check(group, "frozen text", [value, image, scale], 1e-12)


@pytest.mark.parametrize("name", ["feature", "logit", "affinity"])
def test_distillation_equals_one_process(found: list[dict[str, Any]], name: str) -> None:
    for group in _groups(found):
        count = sum(SIZES[len(group)])
        student, teacher = inputs(count), inputs(count, seed=1, width=8 if name == "feature" else 5)
        leaves = [student[key].clone().requires_grad_() for key in ("image", "text", "scale")]
        targets = teacher["image"], teacher["text"]
        if name == "feature":
            value = feature_distillation(*leaves[:2], *targets)
        elif name == "logit":
            value = logit_distillation(*leaves, *targets, torch.tensor(9.0), temperature=1.5)
        else:
            value = affinity_distillation(*leaves[:2], *targets)
        value.backward()
        _check(group, name, [value.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)], 1e-12)


def test_steps_on_four_processes_equal_those_on_one(found: list[dict[str, Any]]) -> None:
    towers = Towers()
    for step in range(3):
        values = inputs(sum(SIZES[WORLD_SIZE]), seed=step)
        softmax_loss(*towers(values["image"], values["text"])).backward()
        towers.descend()
    for rank in found:
        for theirs, ours in zip(rank["trained"], towers.parameters(), strict=True):
            torch.testing.assert_close(theirs, ours.detach(), rtol=1e-12, atol=1e-14)


def test_one_process_exchanges_nothing() -> None:
    rows = torch.arange(5.0)[:, None]
    for ranks in (Ranks.of(rows), Ranks.of(rows, max_rows=7)):
        assert (ranks.rank, ranks.world_size, ranks.num_rows, ranks.own) == (0, 1, 5, slice(0, 5))
        assert ranks.is_padding is None
        for found in (ranks.gather(rows), ranks.sum_to_owners(rows), ranks.total(rows), ranks.largest(rows)):
            assert found is rows
        assert ranks.total_with_grad(rows) is rows


def test_more_rows_than_told_are_refused() -> None:
    with pytest.raises(ShapeError, match="max_rows: expected 4 or more, the rows of this rank, got 3"):
        softmax_loss(torch.eye(4), torch.eye(4), torch.tensor(1.0), max_rows=3)


def test_a_matrix_among_ranks_is_refused() -> None:
    with pretended(world_size=2), pytest.raises(ConfigError, match="in one process, not .* on 2; give codes"):
        softmax_loss(torch.eye(4), torch.eye(4), torch.tensor(1.0), torch.eye(4, dtype=torch.bool))


@contextmanager
def pretended(world_size: int) -> Iterator[None]:
    """This process is rank 1 of many that do not exist: exchanges cost what they cost, and bring nothing true."""
    dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=world_size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def steps(tile_rows: int | None = None, max_rows: int | None = None) -> dict[str, Callable[[], Tensor]]:
    """Each loss of the same rows, by name."""
    values, teacher = inputs(12, width=4), inputs(12, seed=1, width=4)
    image, text, scale, bias = (values[name].float().requires_grad_() for name in ("image", "text", "scale", "bias"))
    target = teacher["image"].float(), teacher["text"].float(), torch.tensor(9.0)
    same = Same(values["labels"], values["texts"])
    options: dict[str, Any] = {"tile_rows": tile_rows, "max_rows": max_rows}
    return {
        "softmax": lambda: softmax_loss(image, text, scale, same, **options),
        "sigmoid": lambda: sigmoid_loss(image, text, scale, bias, same, **options),
        "logit": lambda: logit_distillation(image, text, scale, *target, **options),
        "affinity": lambda: affinity_distillation(image, text, *target[:2], max_rows=max_rows),
        "feature": lambda: feature_distillation(image, text, *target[:2], max_rows=max_rows),
    }


class _Counted(TorchDispatchMode):
    """Operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


# operations of a step, forward and backward, views included, and exchanges among them
MOST = {"softmax": (230, 8), "sigmoid": (150, 5), "logit": (370, 11), "affinity": (120, 7), "feature": (50, 2)}


@pytest.mark.parametrize("name", list(MOST))
def test_operations_do_not_grow_with_the_ranks(name: str) -> None:
    counts = {}
    for world_size in (2, 512):
        step = steps(max_rows=13)[name]
        with pretended(world_size), _Counted() as seen:
            step().backward()
        counts[world_size] = seen.counts
    assert counts[2] == counts[512]
    assert counts[2].total() <= MOST[name][0]
    assert sum(count for func, count in counts[2].items() if func.startswith("c10d")) == MOST[name][1]


@pytest.mark.parametrize("name", list(MOST))
def test_nothing_waits_for_the_device(name: str) -> None:
    # a tensor without data raises where a value of it is asked for, by whatever way
    with FakeTensorMode():
        with pytest.raises(RuntimeError):
            torch.ones(2).tolist()
        for tile_rows in (None, 2):
            steps(tile_rows=tile_rows)[name]().backward()
        with pretended(world_size=4):
            steps()[name]().backward()
            steps(max_rows=13)[name]().backward()


@pytest.mark.parametrize("tile_rows", [None, 2])
def test_a_profile_shows_no_wait(tile_rows: int | None) -> None:
    every = list(steps(tile_rows=tile_rows).values())
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for step in every:
            step().backward()
    names = {event.key for event in seen.key_averages()}
    assert "aten::mm" in names
    waits = {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::masked_select"}
    assert not names & waits
    assert "aten::index" not in names  # a bool mask as an index asks how many rows it keeps


def test_rows_of_all_ranks_are_the_batch() -> None:
    for sizes in SIZES.values():
        assert [i for rank in range(len(sizes)) for i in range(100)[rows_of(rank, sizes)]] == list(range(sum(sizes)))
