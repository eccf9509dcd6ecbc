import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import tiny
import torch

from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.cost import encoder_cost, text_cost
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.tasks.contrastive import Contrastive, TrainConfig
from eyesmith.train.config import DataConfig
from eyesmith.train.loop import new_state, train
from eyesmith.train.metrics import Metrics, Throughput, gram, rank_of
from eyesmith.train.readings import Readings, StepFacts
from eyesmith.train.sharding import Parallel
from eyesmith.train.state import TrainState
from eyesmith.train.utilisation import PEAK_BF16, StepCost, measured_flops, peak_flops, peak_memory_mib


def model(**fields: object) -> Clip:
    torch.manual_seed(0)
    return ClipConfig(
        name="tiny",
        image=ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 2), num_heads=2, embed_dim=16),
        text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16, context_len=16, vocab_size=50),
        preprocess=PreprocessConfig(image_size=(32, 32)),
        **fields,  # pyright: ignore[reportArgumentType]
    ).build()


def objective_of(clip: Clip) -> Contrastive:
    return Contrastive(clip, TrainConfig(model=clip.config, data=DataConfig(path="none")))


def rank(features: torch.Tensor) -> float:
    return rank_of(gram(features))


def facts_of(state: TrainState, grad_norm: float) -> StepFacts:
    readings = Readings({"loss": torch.zeros(()), "grad_norm": torch.tensor(grad_norm), **state.readings})
    return StepFacts(
        step=state.step,
        is_last=False,
        is_logged=True,
        epoch=0.0,
        samples=0,
        batch_size=6,
        lr=0.0,
        wait_s=0.0,
        readings=readings,
    )


def slow_rank(features: torch.Tensor) -> float:
    rows = [row / np.linalg.norm(row) for row in features.numpy().astype(np.float64)]
    values = np.linalg.svd(np.array(rows) - np.mean(rows, axis=0), compute_uv=False)
    shares = [value / values.sum() for value in values if value > 1e-9]
    return math.exp(-sum(share * math.log(share) for share in shares))


@pytest.mark.parametrize("shape", [(40, 8), (6, 30), (3, 3)])
def test_effective_rank_by_singular_values(shape: tuple[int, int]) -> None:
    features = torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.1, 3, shape[1]) + 0.3
    assert rank(features) == pytest.approx(slow_rank(features), rel=1e-6)


def test_effective_rank_at_its_ends() -> None:
    assert rank(torch.ones(8, 5)) == 0.0
    line = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(4, 1)
    assert rank(line) == pytest.approx(1.0)
    corners = torch.cat([torch.eye(4), -torch.eye(4)])
    assert rank(corners) == pytest.approx(4.0)
    assert math.isnan(rank(torch.tensor([[1.0, math.nan], [0.0, 1.0]])))


def test_a_watched_step_is_measured_and_computes_the_same() -> None:
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    ids = torch.randint(1, 49, (6, 9), generator=torch.Generator().manual_seed(3))
    ids[:, -1] = 49
    weights = []
    for is_watched in (False, True):
        clip = model().train()
        state = TrainState(model=clip, optimizer=torch.optim.SGD(clip.parameters(), lr=0.1), average={}, step=3)
        watch = Metrics(objective_of(clip), state, every_steps=4, last_step=100, clip_norm=0.5)
        for _ in range(2):  # step 4 is due, step 5 is not
            with watch if is_watched else torch.enable_grad():
                image, text, scale = clip(pixels, ids)
                (scale * (image @ text.mT)).diagonal().sum().backward()
            before = {
                name: math.sqrt(sum(p.grad.square().sum().item() for p in getattr(clip, name).parameters()))
                for name in ("image", "text")
            }
            total = torch.nn.utils.clip_grad_norm_(clip.parameters(), 0.5).item()
            state.readings.clear()
            with watch if is_watched else torch.enable_grad():
                state.optimizer.step()
            state.optimizer.zero_grad()
            state.step += 1
            if is_watched and state.step == 4:
                seen = watch.of(facts_of(state, total))
                assert seen["image_grad_norm"] == pytest.approx(before["image"], rel=1e-4)
                assert seen["text_grad_norm"] == pytest.approx(before["text"], rel=1e-4)
                with torch.no_grad():
                    fresh = model().train()
                    assert seen["image_norm"] == pytest.approx(fresh.image(pixels).norm(dim=1).mean().item(), rel=1e-5)
                    assert seen["text_rank"] == pytest.approx(slow_rank(fresh.text(ids)), rel=1e-4)
                macs = encoder_cost(clip.config.image).tower.macs
                macs += text_cost(
                    ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16, context_len=9, vocab_size=50)
                ).macs
                assert watch.flops() == 6 * macs
        if is_watched:
            assert watch.of(facts_of(state, 0.0))["image_norm"] is None  # step 5 was not looked at
        weights.append(torch.cat([value.detach().flatten() for value in clip.parameters()]))
    assert torch.equal(*weights)


def test_a_locked_text_costs_nothing_and_a_frozen_image_one_pass() -> None:
    clip = model(lock_text=True)
    macs = encoder_cost(clip.config.image).tower.macs
    assert StepCost(clip).flops(None) == 6 * macs
    clip.image.requires_grad_(False)
    assert StepCost(clip).flops(None) == 2 * macs


def test_rates_are_over_the_time_in_steps() -> None:
    clip = model()
    state = TrainState(model=clip, optimizer=torch.optim.SGD(clip.parameters(), lr=0.1), average={}, elapsed_s=10.0)
    pace = Throughput(state, world_size=2, precision="fp32")
    pace.add(32, 0.25)
    pace.add(32, 0.25)
    pace._peak = 1e12  # what a device can do
    assert pace.take(12.0, 5e9) == {"images_per_s": 32.0, "wait_frac": 0.25, "mfu": pytest.approx(32 * 5e9 / 2e12)}
    pace.add(10, 0.0)
    assert pace.take(13.0, None) == {"images_per_s": 10.0, "wait_frac": 0.0, "mfu": None}


def test_peaks_by_device_name() -> None:
    assert peak_flops("NVIDIA H200") == PEAK_BF16["H200"]
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_flops("Some Other 9000") is None
    assert measured_flops(torch.device("cpu"), "fp32") > 1e8
    assert peak_memory_mib(torch.device("cpu")) > 50


@pytest.mark.parametrize("clip_by", ["all", "part"])
def test_norms_in_the_log_are_those_before_clipping(clip_by: Literal["all", "part"]) -> None:
    optim = replace(tiny.CLIP.optim, clip_norm=1e-3, clip_by=clip_by)  # every step is clipped
    config = replace(tiny.CLIP, optim=optim, log_every_steps=1, epochs=1.0)
    objective = tiny.objective_of(config)
    state = new_state(objective, config)
    wanted: list[dict[str, float]] = []
    clip = Parallel.clip_grad_norm

    def look(parallel: Parallel, parameters: Any, *given: Any, **named: Any) -> Any:
        wanted.append(
            {
                f"{part}_grad_norm": math.sqrt(
                    sum(p.grad.square().sum().item() for name, p in parameters.items() if name.startswith(part))
                )
                for part in ("image", "text")
            }
        )
        return clip(parallel, parameters, *given, **named)

    metrics = Metrics(objective, state, every_steps=1, last_step=2, clip_norm=1e-3, clip_by=clip_by)
    found: list[dict[str, float | None]] = []
    with pytest.MonkeyPatch.context() as patched, metrics:
        patched.setattr(Parallel, "clip_grad_norm", look)
        train(
            state,
            objective,
            tiny.Noise(2, objective.prepare),
            config,
            hooks=[lambda _, facts: found.append(metrics.of(facts))],
        )
    assert len(found) == 2
    for one, other in zip(found, wanted, strict=True):
        assert {name: one[name] for name in other} == pytest.approx(other, rel=2e-3)
