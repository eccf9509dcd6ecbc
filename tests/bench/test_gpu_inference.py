"""The measurement for a GPU, taken whole on a processor: a ViTamin of reduced depth and size, a few steps."""

import json
import logging
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from bench import __main__ as program
from bench import gpu_inference
from bench.gpu import rows
from bench.gpu_inference import CASES, Case, Plan, inference_rows, interleaved, pictures, unit
from torch import nn

from eyesmith.errors import EyesmithError
from eyesmith.models.cost import encoder_cost
from eyesmith.models.vitamin.model import VITAMIN

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")
TINY = Case(
    row="tiny",
    config=replace(VITAMIN["small"], depths=(2, 4, 1), image_size=(32, 32)),
    peer="vitamin_small_224",
    batch=3,
)
PLAN = Plan(device="cpu", num_warmups=1, num_steps=2, turn=1, backend="eager")


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "handlers", [])  # pytest would have it write every step
    yield
    torch.compiler.reset()


@pytest.mark.slow
@needs_timm
def test_the_whole_path_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gpu_inference, "peak_flops", lambda _: 1e12)
    speed, share = inference_rows([TINY], PLAN)
    assert (speed.row, speed.unit) == ("tiny", "images/s")
    assert (share.row, share.unit) == ("tiny_mfu", "of peak")
    assert speed.equal
    assert 0 < speed.low <= speed.ratio <= speed.high
    flops = 2 * encoder_cost(TINY.config).tower.macs
    assert share.ours == pytest.approx(speed.ours * flops / 1e12)
    assert share.theirs == pytest.approx(speed.theirs * flops / 1e12)
    for fact in ("timm", "batch 3", torch.__version__, "blocks"):
        assert fact in speed.peer
    assert "tiny_mfu" in capsys.readouterr().err
    fields = ["row", "ours", "theirs", "unit", "ratio", "low", "high", "equal", "peer"]
    assert list(json.loads(json.dumps(speed.to_json()))) == fields


@needs_timm
@pytest.mark.parametrize("what", ["weights", "compiled"])
def test_another_result_is_not_called_equal(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: Any = gpu_inference.from_timm if what == "weights" else gpu_inference.prepare_for_inference

    def wrong_weights(*args: Any) -> Any:
        state = kept(*args)
        return state | {"stem.norm.bias": state["stem.norm.bias"] + 1e-4}

    def wrong_run(encoder: nn.Module, **options: Any) -> Any:
        run = kept(encoder, **options)
        return lambda pixels: run(pixels.roll(1, dims=0))  # each image gets its neighbour's feature

    if what == "weights":
        monkeypatch.setattr(gpu_inference, "from_timm", wrong_weights)
    else:
        monkeypatch.setattr(gpu_inference, "prepare_for_inference", wrong_run)
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    (row,) = inference_rows([replace(TINY, scope="none")], PLAN)
    assert not row.equal


def test_steps_are_taken_in_turns() -> None:
    order: list[str] = []
    plan = replace(PLAN, num_warmups=2, num_steps=5, turn=2)
    inputs = [torch.zeros(1), torch.zeros(2)]
    pairs = interleaved(lambda _: order.append("a"), lambda _: order.append("b"), inputs, plan)
    assert "".join(order) == "aabb" + "aabb" + "aabb" + "ab"
    assert len(pairs) == 5


def test_pictures_are_alike_for_one_seed_only_and_far_apart() -> None:
    first = pictures(4, (32, 48), seed=0)
    assert first.shape == (4, 3, 32, 48)
    assert torch.equal(first, pictures(4, (32, 48), seed=0))
    assert not torch.equal(first, pictures(4, (32, 48), seed=1))
    rows = unit(first.flatten(1))
    assert float((rows @ rows.mT).fill_diagonal_(0).abs().max()) < 0.5


def test_the_measured_models_are_the_published_ones() -> None:
    names = {case.peer: case.config for case in CASES}
    assert list(names) == ["vitamin_small_224", "vitamin_base_224", "vitamin_large_224"]
    gflops = [round(2 * encoder_cost(config).tower.macs / 1e9, 1) for config in names.values()]
    assert gflops == [11.8, 45.2, 149.8]  # twice the true MACs of the published configurations


def test_without_a_gpu_one_message_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EyesmithError, match="needs a CUDA device"):
        rows()
    monkeypatch.setattr("sys.argv", ["bench", "gpu", "--json"])
    assert program.main() == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "eyesmith bench models" in err


@pytest.mark.gpu
@needs_timm
def test_on_a_gpu() -> None:
    plan = Plan(num_warmups=3, num_steps=6, turn=3)
    found = inference_rows([replace(CASES[0], batch=32)], plan)
    assert all(row.equal for row in found)
