import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from eyesmith.errors import MissingDependencyError
from eyesmith.train.callbacks.trackers import TRACKERS, Tracker, Trackers

LINES = [
    {"event": "start", "steps": 10},
    {"step": 1, "loss": 2.0, "lr": 0.1},
    {"event": "health", "step": 1, "rule": "stuck", "message": "it is stuck", "hint": "look"},
    {"step": 1, "time_s": 1.0, "check_s": 0.5, "eval": {"val/top1": 0.25, "val/broken": None}},
    {"event": "end", "step": 10, "time_s": 3.0},
]


class Fake(ModuleType):
    """wandb's and trackio's interface, that notes what it is told."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[Any] = []

    def init(self, **settings: Any) -> "Fake":
        self.calls.append(("init", settings))
        return self

    def log(self, values: dict[str, Any], step: int) -> None:
        self.calls.append((step, values))

    def alert(self, title: str, text: str) -> None:
        self.calls.append((title, text))

    def finish(self) -> None:
        self.calls.append("finish")


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_client_hears_every_number_at_its_step(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(name)
    monkeypatch.setitem(sys.modules, name, fake)
    folder = tmp_path / "mine"
    folder.mkdir()
    for _ in range(2):  # a run, and the same resumed
        trackers = Trackers.open([name], folder, project="p", config={"seed": 1}, note=print)
        for line in LINES:
            assert trackers(line) == ()
        trackers.close()
    kind, settings = fake.calls[0]
    assert kind == "init"
    assert (settings["project"], settings["name"], settings["config"]) == ("p", "mine", {"seed": 1})
    assert settings["resume"] == "allow"
    assert (1, {"loss": 2.0, "lr": 0.1}) in fake.calls
    assert (1, {"time_s": 1.0, "check_s": 0.5, "check/val/top1": 0.25}) in fake.calls
    assert any("it is stuck; look" in str(call) for call in fake.calls)
    assert fake.calls.count("finish") == 2
    if name == "wandb":
        first, second = (call[1]["id"] for call in fake.calls if call[0] == "init")
        assert first == second == (folder / "wandb_id").read_text()


def test_tensorboard_writes_what_its_reader_finds(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trackers = Trackers.open(["tensorboard"], tmp_path, project="p", config={}, note=print)
    for line in LINES:
        trackers(line)
    trackers.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(one.step, one.value) for one in events.Scalars("loss")] == [(1, 2.0)]
    assert [one.value for one in events.Scalars("check/val/top1")] == [0.25]


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_a_tracker_that_is_not_installed_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (name, "torch.utils.tensorboard.writer"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"eyesmith\[{name}\]"):
        Trackers.open([name], tmp_path, project="p", config={}, note=print)


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on() -> None:
    class Counting(Tracker):
        name = "counting"

        def __init__(self, *, fails: bool) -> None:
            self.fails, self.heard = fails, 0

        def values(self, step: int, values: dict[str, float]) -> None:
            self.heard += 1
            if self.fails:
                raise OSError("no network")

        def text(self, step: int, message: str) -> None: ...

        def close(self) -> None: ...

    good, bad, said = Counting(fails=False), Counting(fails=True), []
    trackers = Trackers([bad, good], said.append)
    for _ in range(3):
        trackers({"step": 1, "loss": 1.0})
    assert (good.heard, bad.heard) == (3, 1)
    assert said == ["counting failed and is left out from now on (no network); log.jsonl has every line"]
