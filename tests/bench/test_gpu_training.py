"""The training measurements for a GPU, taken on a processor at reduced size."""

import logging
from importlib.util import find_spec

import pytest
import torch
from bench import gpu_training
from bench.gpu_training import CASES, StepCase, StepPlan, training_rows
from bench.step import config

from eyesmith.models.cost import encoder_cost

pytestmark = pytest.mark.skipif(find_spec("open_clip") is None, reason="needs open_clip")
PLAN = StepPlan(
    device="cpu",
    num_warmups=1,
    num_steps=2,
    turn=1,
    compile_blocks=False,
    loss_pairs=96,
    loss_width=32,
    batches=(4, 8),
    part=4,
)


@pytest.mark.slow
def test_the_whole_path_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gpu_training, "peak_flops", lambda _: 1e12)
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "handlers", [])
    case = StepCase(row="tiny", name="vitamin_s", batch=4)
    step, share, loss, largest = training_rows((case,), PLAN)
    assert (step.row, share.row, loss.row, largest.row) == ("tiny", "tiny_mfu", "gpu_loss_time", "gpu_largest_batch")
    assert step.equal
    assert share.ours / share.theirs == pytest.approx(step.ours / step.theirs)
    assert 0 < step.low <= step.ratio <= step.high
    assert (largest.ours, largest.theirs) == (8, 8)
    assert "tiny_mfu" in capsys.readouterr().err


def test_the_loss_row_compares_gradients() -> None:
    (row,) = gpu_training.loss_rows(PLAN)
    assert row.equal
    assert row.unit == "steps/s"


def test_a_large_batch_repeats_pictures_and_no_caption() -> None:
    made = gpu_training._repeated(12, (32, 32), 4)
    assert made.pixels.shape == (12, 3, 32, 32)
    assert torch.equal(made.pixels[:4], made.pixels[8:])
    assert len(set(made.texts)) == 12


def test_the_measured_models_have_the_published_cost() -> None:
    gflops = {case.name: 2 * encoder_cost(config(case.name).image).tower.macs / 1e9 for case in CASES}
    expected = {
        "vitamin_l": 149.8,
        "vitamin_b": 45.2,
        "vitamin_s": 11.8,
        "vit_l14": 162,
        "eva02_l14": 162,
        "vit_b16": 35,
        "vit_b32": 8.8,
    }
    assert gflops == pytest.approx(expected, rel=0.02)
