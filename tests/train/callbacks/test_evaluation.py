import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import eyesmith
from eyesmith.config import to_dict
from eyesmith.data import open_source
from eyesmith.data.make import make_miniatures
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval import Settings, encode_source, evaluate_suite, zero_shot
from eyesmith.eval.features import batches
from eyesmith.eval.sets import TASKS
from eyesmith.hub import save_model
from eyesmith.images import evaluation_pixels
from eyesmith.losses.config import LossConfig
from eyesmith.models.clip import Clip
from eyesmith.optim.config import OptimConfig
from eyesmith.tasks import RunContext
from eyesmith.tasks import curve as module
from eyesmith.tasks.contrastive import Contrastive, TrainConfig
from eyesmith.train.callbacks.evaluation import Evaluation, read_best, replace_best
from eyesmith.train.config import EvalConfig, ParallelConfig
from eyesmith.train.distributed import World
from eyesmith.train.readings import Readings, StepFacts
from eyesmith.train.state import TrainState


class Fixed:
    """An evaluator whose values are given."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def run(self, clip: Clip) -> Any:
        yield "own/score", self.values.pop(0)


def facts(step: int, *, is_last: bool = False) -> StepFacts:
    return StepFacts(
        step=step,
        is_last=is_last,
        is_logged=True,
        epoch=0.0,
        samples=0,
        batch_size=1,
        lr=0.0,
        wait_s=0.0,
        readings=Readings({}),
    )


def checks_of(
    config: TrainConfig, folder: Path, written: list[dict[str, Any]], *evaluators: Any, clip: Clip | None = None
) -> Evaluation:
    task = Contrastive(clip or config.model.build(), config)
    measure = task.curve(RunContext(folder=folder, world=World(), console=Console(quiet=True)), evaluators)
    assert measure is not None

    def save(new: Path, model: nn.Module) -> None:
        task.save(new, model, config={})

    return Evaluation(measure, config.eval, folder, steps_per_epoch=10, save=save, write=written.append)


@pytest.fixture
def state(config: TrainConfig) -> TrainState:
    torch.manual_seed(0)
    clip = config.model.build()
    return TrainState(model=clip, optimizer=torch.optim.SGD(clip.parameters(), lr=0.1), average={})


def test_values_are_those_of_the_task_by_itself(tmp_path: Path, config: TrainConfig, state: TrainState) -> None:
    written: list[dict[str, Any]] = []
    settings = EvalConfig(curve_data=(config.data.path,), every_steps=5, keep_best="none")
    checks = checks_of(replace(config, eval=settings), tmp_path, written)
    for step in (4, 5, 6, 7):
        checks(state, facts(step, is_last=step == 7))
    assert [line["step"] for line in written] == [5, 7]
    clip = state.model
    assert isinstance(clip, Clip)
    source = open_source(config.data.path, require_text=False)
    expected = {row.metric: row.value for row in zero_shot(source, split="all").rows(clip, model_name="x")}
    name = Path(config.data.path).name
    assert written[0]["eval"] == {f"{name}:all/{metric}": pytest.approx(v, abs=1e-5) for metric, v in expected.items()}
    assert written[0]["eval"] == written[1]["eval"]
    assert not (tmp_path / "best").exists()


def test_pictures_are_decoded_once_when_there_is_room(
    tmp_path: Path, config: TrainConfig, state: TrainState, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []

    def counted(*arguments: Any) -> torch.Tensor:
        decoded.append(1)
        return evaluation_pixels(*arguments)

    monkeypatch.setattr(batches, "evaluation_pixels", counted)
    settings = EvalConfig(curve_data=(config.data.path,), every_steps=1, keep_best="none")
    for room, expected in ((1 << 20, 24), (1000, 48)):
        monkeypatch.setattr(module, "KEEP_BYTES", room)
        decoded.clear()
        checks = checks_of(replace(config, eval=settings), tmp_path, [])
        checks(state, facts(1))
        checks(state, facts(2))
        assert len(decoded) == expected


def test_the_best_weights_are_kept_as_a_model(tmp_path: Path, config: TrainConfig, state: TrainState) -> None:
    written: list[dict[str, Any]] = []
    checks = checks_of(replace(config, eval=EvalConfig(every_steps=1)), tmp_path, written, Fixed(0.2, 0.5, 0.5, 0.4))
    scales = (1.0, 2.0, 3.0, 4.0)
    assert isinstance(state.model, Clip)
    for step, scale in enumerate(scales, start=1):
        with torch.no_grad():
            state.model.logit_scale.fill_(scale)
        checks(state, facts(step))
    assert read_best(tmp_path) == {"step": 2, "name": "own/score", "value": 0.5}
    assert eyesmith.load(tmp_path / "best").logit_scale.item() == 2.0
    assert [line["eval"]["own/score"] for line in written] == [0.2, 0.5, 0.5, 0.4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best"]  # nothing half-made stays


def test_a_damaged_note_of_the_best_is_made_anew(tmp_path: Path, config: TrainConfig, state: TrainState) -> None:
    assert isinstance(state.model, Clip)
    save = partial(save_model, model=state.model, config={})
    replace_best(tmp_path, save, {"step": 1, "name": "a", "value": 0.1})
    (tmp_path / "best" / "best.json").write_text("{")
    assert read_best(tmp_path) is None
    (tmp_path / ".best.new").mkdir()  # of a run that was killed
    replace_best(tmp_path, save, {"step": 2, "name": "a", "value": 0.2})
    assert json.loads((tmp_path / "best" / "best.json").read_text())["step"] == 2


def test_averaged_weights_are_measured_and_kept(tmp_path: Path, config: TrainConfig, state: TrainState) -> None:
    state.average = {name: torch.full_like(value, 0.5) for name, value in state.trained().items()}
    before = {name: value.detach().clone() for name, value in state.trained().items()}
    checks_of(replace(config, eval=EvalConfig(every_steps=1)), tmp_path, [], Fixed(0.2))(state, facts(1))
    assert eyesmith.load(tmp_path / "best").logit_scale.item() == 0.5
    assert all(torch.equal(value, before[name]) for name, value in state.trained().items())


def test_what_cannot_be_measured_or_kept_is_said(tmp_path: Path, config: TrainConfig, state: TrainState) -> None:
    settings = EvalConfig(curve_data=(config.data.path,), curve_tasks=("retrieval",))
    with pytest.raises(DataError, match=r"cannot carry retrieval \(eval\.curve_tasks\), but zero_shot"):
        checks_of(replace(config, eval=settings), tmp_path, [])
    named = EvalConfig(every_steps=1, keep_best="own/scor")
    with pytest.raises(ConfigError, match=r"'own/scor' is not measured; did you mean own/score"):
        checks_of(replace(config, eval=named), tmp_path, [], Fixed(0.2))(state, facts(1))


def test_a_picture_that_cannot_be_read_is_left_out(
    tmp_path: Path, config: TrainConfig, state: TrainState, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(config.data.path, require_text=False)
    broken = source.keys[3]
    read = type(source).image_bytes
    monkeypatch.setattr(
        type(source), "image_bytes", lambda self, i: b"none" if self.keys[i] == broken else read(self, i)
    )
    written: list[dict[str, Any]] = []
    settings = EvalConfig(curve_data=(config.data.path,), every_steps=1, keep_best="none")
    checks_of(replace(config, eval=settings), tmp_path, written)(state, facts(1))
    assert isinstance(state.model, Clip)
    images = encode_source(state.model, source, max_broken_frac=0.1)
    expected = zero_shot(source, split="all").rows(state.model, model_name="x", images=images)[0].value
    assert next(iter(written[0]["eval"].values())) == pytest.approx(expected, abs=1e-5)


RUN = """
import json, sys, torch
from eyesmith.config import from_dict
from eyesmith.runs.train import start
from eyesmith.tasks.contrastive import TrainConfig
torch.set_num_threads(1)
start(from_dict(TrainConfig, json.loads(sys.argv[1])), sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_measure_what_one_measures(tmp_path: Path, config: TrainConfig, strategy: Any) -> None:
    settings = EvalConfig(curve_data=(config.data.path,), every_steps=2, keep_best="none")
    optim = OptimConfig(peak_lr=1e-4, eps=1e-3)  # no rounding becomes a step
    shared = replace(config, batch_size=4, epochs=1, eval=settings, optim=optim)
    found = []
    for size, way in ((1, "none"), (2, strategy)):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        world = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
        run = replace(shared, parallel=ParallelConfig(strategy=way))
        folder = tmp_path / way
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", RUN, json.dumps(to_dict(run)), str(folder)],
                env=world | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(size)
        ]
        assert [process.wait(timeout=300) for process in processes] == [0] * size
        found.append([json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()])
    one, two = ([line for line in lines if "eval" in line] for lines in found)
    assert [line["eval"] for line in one] == [line["eval"] for line in two]
    one, two = ([line for line in lines if "loss" in line] for lines in found)
    assert len(one) == len(two) == 6
    for a, b in zip(one, two, strict=True):
        for name in ("loss", "grad_norm", "image_grad_norm", "text_grad_norm", "image_norm", "image_rank", "text_rank"):
            assert a[name] == pytest.approx(b[name], rel=1e-2), name


def test_tasks_of_a_suite_are_measured_with_the_objects_of_the_verb(config: TrainConfig, tmp_path: Path) -> None:
    sets = tmp_path / "sets"
    make_miniatures(sets, ["vtab/pets", "retrieval/flickr_1k_test_image_text_retrieval"])
    wanted = EvalConfig(suites=("vtab/pets",), suite_data=str(sets), suite_limit=6, every_steps=5)
    lines: list[dict[str, Any]] = []
    checks = checks_of(replace(config, eval=wanted), tmp_path, lines)
    clip = config.model.build().train()
    state = TrainState(model=clip, optimizer=torch.optim.SGD(clip.parameters(), lr=0.1), average={})
    checks(state, facts(4))
    checks(state, facts(5))
    (result,) = evaluate_suite(clip, [TASKS["vtab/pets"]], sets, out=None, settings=Settings(limit=6))
    assert result.main_metric is not None
    assert [line["eval"] for line in lines] == [{"vtab/pets/mean_per_class_recall": round(result.main_metric, 5)}]
    assert clip.training
    with pytest.raises(DataError, match="lacks 2 sets of retrieval: MSCOCO, WinoGAViL"):
        checks_of(replace(config, eval=replace(wanted, suites=("retrieval",))), tmp_path, lines)
    with pytest.raises(ConfigError, match="suite_data"):
        EvalConfig(suites=("retrieval",))


def test_the_best_weights_of_the_sigmoid_loss_keep_its_bias(config: TrainConfig, tmp_path: Path) -> None:
    clip = config.model.build()
    config = replace(config, loss=LossConfig(kind="sigmoid", init_bias=-7.5))
    checks = checks_of(config, tmp_path, [], Fixed(0.5), clip=clip)
    state = TrainState(model=clip, optimizer=torch.optim.SGD(clip.parameters(), lr=0.1), average={})
    checks(state, facts(1, is_last=True))
    best = eyesmith.load(tmp_path / "best")
    assert isinstance(best, Clip)
    assert best.logit_bias is not None
    assert best.logit_bias.item() == -7.5
    assert clip.logit_bias is None
