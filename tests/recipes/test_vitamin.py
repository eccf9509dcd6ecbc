"""Every run of the ViTamin paper against its published settings."""

import math

import pytest

from eyesmith.recipes import LENGTHS, RECIPES, recipe
from eyesmith.recipes.vitamin import FINE_TUNES
from eyesmith.tasks.contrastive import TrainConfig

SHORT = [f"vitamin-{size}-{length}" for size in "sb" for length in LENGTHS]
# name: batch, pairs an epoch, epochs, peak rate, betas, decay, warm-up steps, side, least crop
RUNS = {
    **{name: (8192, LENGTHS[name.split("-")[-1]], 1, 5e-4, (0.9, 0.98), 0.2, 500, 224, 0.9) for name in SHORT},
    **{f"vitamin-l-{length}": (16384, LENGTHS[length], 1, 5e-4, (0.9, 0.98), 0.2, 500, 224, 0.9) for length in LENGTHS},
    "datacomp-medium": (8192, 12_800_000, 10, 5e-4, (0.9, 0.98), 0.2, 500, 224, 0.9),
    "vitamin-l-12.8b": (90160, 1_280_000_000, 10, 2e-3, (0.9, 0.95), 0.2, 782, 224, 0.4),
    "vitamin-l2-12.8b": (90160, 1_280_000_000, 10, 2e-3, (0.9, 0.95), 0.2, 4436, 224, 0.4),
    "vitamin-xl-12.8b": (90272, 1_280_000_000, 10, 2e-3, (0.9, 0.95), 0.2, 4436, 224, 0.4),
    "vitamin-xl-40b": (90272, 1_280_000_000, 30, 2e-3, (0.9, 0.95), 0.2, 4436, 256, 0.4),
    "vitamin-l-256": (90240, 200_000_000, 1, 1e-5, (0.9, 0.95), 0.0, 0, 256, 0.9),
    "vitamin-l-336": (90200, 200_000_000, 1, 1e-5, (0.9, 0.95), 0.0, 0, 336, 0.9),
    "vitamin-l-384": (90200, 200_000_000, 1, 1e-5, (0.9, 0.95), 0.0, 0, 384, 0.9),
    **{f"vitamin-l2-{px}": (90160, 512_000_000, 1, 1e-5, (0.9, 0.95), 0.0, 0, px, 0.9) for px in (256, 336, 384)},
    "vitamin-xl-256": (90272, 512_000_000, 1, 1e-5, (0.9, 0.95), 0.0, 0, 256, 0.9),
    "vitamin-xl-336": (90270, 512_000_000, 1, 1e-5, (0.9, 0.95), 0.0, 0, 336, 0.9),
    "vitamin-xl-384": (90270, 512_000_000, 1, 1e-5, (0.9, 0.95), 0.0, 0, 384, 0.9),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_has_the_published_settings(name: str) -> None:
    batch_size, samples, epochs, lr, betas, decay, warmup_steps, side, least = RUNS[name]
    run = recipe(name)
    assert (run.batch_size, run.data.epoch_samples, run.epochs) == (batch_size, samples, epochs)
    optim = run.optim
    assert (optim.name, optim.peak_lr, optim.betas, optim.eps) == ("adamw", lr, betas, 1e-6)
    assert (optim.weight_decay, optim.warmup_steps) == (decay, warmup_steps)
    assert (optim.clip_norm, optim.ema_decay, optim.freeze, optim.no_decay) == (0, 0, (), ())
    assert run.model.image.image_size == run.model.preprocess.image_size == (side, side)
    assert run.transform is not None
    assert (run.transform.image_size, run.transform.scale) == ((side, side), (least, 1.0))
    assert run.transform.ratio == (3 / 4, 4 / 3)
    assert run.transform.horizontal_flip_prob == 0
    assert run.model.image.drop_path_prob == 0.1
    assert math.isclose(run.model.init_scale, 1 / 0.07)
    assert (run.precision, run.seed, run.parallel.checkpoint_blocks) == ("bf16", 0, True)
    assert run.loss.kind == "softmax"
    assert run.loss.mask == "none"  # the reference knows no positives but the pair's own


@pytest.mark.parametrize("name", RUNS)
def test_colours_change_in_the_long_schedule_only(name: str) -> None:
    transform = recipe(name).transform
    assert transform is not None
    if name.endswith(("12.8b", "40b")):
        assert transform.color_jitter == (0.32, 0.32, 0.32, 0.08)
        assert (transform.color_jitter_prob, transform.grayscale_prob) == (0.8, 0.2)
    else:
        assert transform.color_jitter is None
        assert (transform.color_jitter_prob, transform.grayscale_prob) == (0.0, 0.0)


def rate(run: TrainConfig, step: int) -> float:
    """By hand: linear from peak / warm-up, then half a cosine to 0."""
    last = round(run.epochs * (run.data.epoch_samples // run.batch_size))
    peak, warmup = run.optim.peak_lr, run.optim.warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (last - warmup)))


@pytest.mark.parametrize("name", [name for name in RUNS if not name.endswith(("256", "336", "384"))])
def test_the_rate_rises_to_its_peak_and_falls_to_zero(name: str) -> None:
    run = recipe(name)
    last = round(run.epochs * (run.data.epoch_samples // run.batch_size))
    warmup = run.optim.warmup_steps
    for step in (0, 100, warmup - 1, warmup, last // 2, last - 1):
        assert run.optim.lr_at(step, last) == pytest.approx(rate(run, step), rel=1e-12)
    assert run.optim.lr_at(0, last) == pytest.approx(run.optim.peak_lr / warmup)
    assert run.optim.lr_at(warmup - 1, last) == run.optim.peak_lr
    assert run.optim.lr_at(last - 1, last) < 1e-6 * run.optim.peak_lr


@pytest.mark.parametrize("name", list(FINE_TUNES))
def test_larger_images_have_one_constant_rate_and_start_from_trained_weights(name: str) -> None:
    run = recipe(name.lower())
    assert {run.optim.lr_at(step, 5000) for step in (0, 1, 2500, 4999)} == {1e-5}
    assert run.initial.part == "all"
    assert run.initial.weights
    assert run.model.name == name
    assert run.accumulate == (3 if name in ("ViTamin-XL-336", "ViTamin-XL-384") else 1)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("size", ["s", "b"])
def test_locked_text_is_the_short_run_against_the_text_tower_of_l(size: str, length: str) -> None:
    short, locked = recipe(f"vitamin-{size}-{length}"), recipe(f"vitamin-{size}-ltt-{length}")
    assert locked.model.lock_text
    assert locked.model.text == recipe("vitamin-l-1280m").model.text
    assert locked.initial.part == "text"
    assert "ViTamin-L" in locked.initial.weights
    assert (locked.optim, locked.batch_size, locked.data, locked.transform) == (
        short.optim,
        short.batch_size,
        short.data,
        short.transform,
    )


def test_every_length_of_the_short_schedule_is_there() -> None:
    assert LENGTHS == {"128m": 128_000_000, "512m": 512_000_000, "1280m": 1_280_000_000}
    assert set(RUNS) <= set(RECIPES)
