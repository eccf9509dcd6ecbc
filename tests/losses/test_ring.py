"""The losses on 2 and 4 processes, with rows spread unevenly, against the slow loop over the whole batch."""

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from ring_process import SIZES, Towers, cases, rows_of
from slow_loss import inputs, relative_error, value_and_grads

from eyesmith.losses import softmax_loss
from eyesmith.losses.distill import affinity_distillation, feature_distillation, logit_distillation
from eyesmith.losses.ring import Ring, world_size_of

BOUND = {torch.float32: 1e-6, torch.float64: 1e-12}
WORLD_SIZE = 4


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of four processes measured: a ring of all, and two rings of two."""
    folder = tmp_path_factory.mktemp("ring")
    program = Path(__file__).with_name("ring_process.py")
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


def _rings(found: list[dict[str, Any]]) -> list[list[dict[str, list[torch.Tensor]]]]:
    """Ranks' results by ring: all four, the first two, the last two."""
    return [[rank["all"] for rank in found], [rank["pair"] for rank in found[:2]], [rank["pair"] for rank in found[2:]]]


def _check(ring: list[dict[str, list[torch.Tensor]]], key: str, exact: list[torch.Tensor], bound: float) -> None:
    """Value equal on every rank; gradients of one process are features' over world size, and the mean of scalars'."""
    values, *grads = zip(*(rank[key] for rank in ring), strict=True)
    assert all(torch.equal(value, values[0]) for value in values)
    assert relative_error(values[0], exact[0]) <= bound
    for parts, whole in zip(grads, exact[1:], strict=True):
        joined = torch.cat(parts) / len(ring) if parts[0].ndim else torch.stack(parts).mean()
        assert relative_error(joined, whole) <= bound, key


@pytest.mark.parametrize("case", cases(), ids=str)
def test_every_form_equals_the_slow_loop(found: list[dict[str, Any]], case: tuple[str, str, bool, torch.dtype]) -> None:
    loss, _, has_same, dtype = case
    for ring in _rings(found):
        exact = value_and_grads(loss, inputs(sum(SIZES[len(ring)])), has_same=has_same)
        _check(ring, str(case), exact, BOUND[dtype])


def test_without_a_gradient_for_texts(found: list[dict[str, Any]]) -> None:
    for ring in _rings(found):
        value, image, _, scale = value_and_grads("softmax", inputs(sum(SIZES[len(ring)])), has_same=False)
        _check(ring, "frozen text", [value, image, scale], 1e-12)


@pytest.mark.parametrize("name", ["feature", "logit", "affinity"])
def test_distillation_equals_one_process(found: list[dict[str, Any]], name: str) -> None:
    for ring in _rings(found):
        count = sum(SIZES[len(ring)])
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
        _check(ring, name, [value.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)], 1e-12)


def test_steps_on_four_processes_equal_those_on_one(found: list[dict[str, Any]]) -> None:
    towers = Towers()
    for step in range(3):
        values = inputs(sum(SIZES[WORLD_SIZE]), seed=step)
        softmax_loss(*towers(values["image"], values["text"]), form="dense").backward()
        towers.descend()
    for rank in found:
        for theirs, ours in zip(rank["trained"], towers.parameters(), strict=True):
            torch.testing.assert_close(theirs, ours.detach(), rtol=1e-12, atol=1e-14)


def test_one_process_is_a_ring_of_one() -> None:
    assert world_size_of(None) == 1
    ring = Ring.of(5, torch.device("cpu"))
    assert (ring.rank, ring.sizes, ring.num_rows, ring.own_rows()) == (0, (5,), 5, slice(0, 5))
    rows = torch.arange(5.0)
    assert [(owner, block[0] is rows) for owner, block in ring.blocks([rows])] == [(0, True)]
    sums = ring.sums()
    sums.add(rows)
    assert sums.home() is rows
    assert torch.equal(ring.gather(rows), rows)


def test_rows_of_all_ranks_are_the_batch() -> None:
    for sizes in SIZES.values():
        assert [i for rank in range(len(sizes)) for i in range(100)[rows_of(rank, sizes)]] == list(range(sum(sizes)))
