"""A GPU's host must not wait for it between logged steps: counted by the operations that would make it wait."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny
import torch
from torch.profiler import ProfilerActivity, profile

from eyesmith.models.text import model as text_model
from eyesmith.train import StepFacts, TrainState, new_state, train
from eyesmith.train.callbacks.logging import Log, LogSteps
from eyesmith.train.metrics import Metrics, Throughput

WAITS = {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::masked_select"}


class Packed(NamedTuple):
    """All texts in one group, which is none."""

    groups: tuple[tuple[int, int], ...]


def _within(event: Any) -> str:
    """An operation with those that it is part of. The fused AdamW of a CPU reads its step count there, on a GPU not."""
    names = []
    while event is not None:
        names.append(event.name)
        event = event.cpu_parent
    return " < ".join(names)


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [*((name, "adamw") for name in tiny.CONFIGS), *(("classify", name) for name in ("lamb", "sgd", "lion", "muon"))],
)
def test_the_host_waits_once_in_a_logged_step_and_never_between(
    tmp_path: Path, name: str, optimizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps 3 to 5 are looked at, of which the fourth is logged: its values are fetched in one copy."""
    config = tiny.CONFIGS[name]
    config = replace(config, optim=replace(config.optim, name=optimizer), epochs=1, log_every_steps=4)
    objective = tiny.objective_of(config)
    state = new_state(objective, config)
    fetched: list[int] = []
    fetch = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: (fetched.append(state.step), fetch(self))[1])
    # on a CPU texts are packed by their lengths, which lie there already
    monkeypatch.setattr(text_model, "pack_texts", lambda lengths, spare: Packed(((len(lengths), max(lengths)),)))
    counts: dict[int, list[str]] = {}
    running: list[Any] = []

    def look(state: TrainState, facts: StepFacts) -> None:
        if running:
            found = running.pop()
            found.stop()
            waits = [_within(event) for event in found.events() if event.name in WAITS]
            counts[facts.step] = [within for within in waits if "aten::_fused_adamw_" not in within]
        if facts.step in (2, 3, 4):
            running.append(profile(activities=[ProfilerActivity.CPU], acc_events=True))
            running[0].start()

    metrics = Metrics(objective, state, every_steps=4, last_step=10, clip_norm=config.optim.clip_norm)
    log = LogSteps(Log(tmp_path), metrics, Throughput(state, world_size=1, precision="fp32"))
    with metrics:
        train(
            state,
            objective,
            tiny.Noise(10, objective.prepare),
            config,
            hooks=[log, look],
            should_stop=lambda: state.step == 6,
        )
    assert counts == {3: [], 4: [], 5: []}
    assert fetched == [4, 6]  # the second as it stops
    assert (tmp_path / "log.jsonl").read_text().count('"loss"') == 1
