"""Fusion against the published formulas, number by number."""

import math

import pytest
import torch

from eyesmith.dense.fusion import FUSIONS, Fusion, fuse, fuse_logits, fuse_with_background
from eyesmith.errors import ConfigError, ShapeError

SEEN = torch.tensor([True, True, False, False])


def tables(*, classes: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.randn(2, 3, 5, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
    return drawn[0], drawn[1]


def test_f_vit_as_its_formula_says() -> None:
    inside, outside = (one.softmax(-1) for one in tables(classes=5))
    found = fuse_with_background(inside, outside, SEEN, 0.1, 0.8)
    for i in range(3):
        for j in range(5):
            for k in range(5):
                exponent = 0.1 if k in (0, 1, 4) else 0.8  # the background counts as base
                expected = float(inside[i, j, k]) ** (1 - exponent) * float(outside[i, j, k]) ** exponent
                assert float(found[i, j, k]) == pytest.approx(expected, rel=1e-9)


def test_fc_clip_as_its_steps_say() -> None:
    logits, outside = tables(classes=5)[0], tables(classes=4, seed=1)[1]
    found = fuse_logits(logits, outside, SEEN, 0.4, 0.8, is_renormalised=True)
    for i in range(3):
        for j in range(5):
            row = [math.exp(v) for v in logits[i, j].tolist()]
            void = row[4] / sum(row)
            p_in = [v / sum(row[:4]) for v in row[:4]]
            q = [math.exp(v) for v in outside[i, j].tolist()]
            p_out = [v / sum(q) for v in q]
            mixed = [p_in[k] ** 0.6 * p_out[k] ** 0.4 if k < 2 else p_in[k] ** 0.2 * p_out[k] ** 0.8 for k in range(4)]
            expected = [v / sum(mixed) * (1 - void) for v in mixed]
            assert found[i, j].tolist() == pytest.approx(expected, rel=1e-6)
            assert float(found[i, j].sum()) == pytest.approx(1 - void)


def test_the_ends_of_the_exponents_are_the_two_tables() -> None:
    inside, outside = (one.softmax(-1) for one in tables())
    torch.testing.assert_close(fuse(inside, outside, SEEN, 0.0, 0.0), inside)
    torch.testing.assert_close(fuse(inside, outside, SEEN, 1.0, 1.0), outside)
    mixed = fuse(inside, outside, SEEN, 0.0, 1.0)
    torch.testing.assert_close(mixed, torch.where(SEEN, inside, outside))
    torch.testing.assert_close(fuse(inside, inside, SEEN, 0.3, 0.9), inside)


def test_the_background_stays_outside_of_the_exponents() -> None:
    inside, outside = (one.softmax(-1) for one in tables())
    background = torch.full(inside.shape[:-1], 0.25, dtype=torch.float64)
    found = fuse(inside, outside, SEEN, 0.1, 0.8, background=background)
    torch.testing.assert_close(found, 0.75 * fuse(inside, outside, SEEN, 0.1, 0.8))
    assert bool((fuse(inside, outside, SEEN, 0.1, 0.8, background=torch.ones_like(background)) == 0).all())


def test_a_zero_probability_breaks_nothing() -> None:
    inside = torch.tensor([1.0, 0.0]).requires_grad_()
    found = fuse(inside, torch.tensor([0.0, 1.0]), torch.tensor([True, False]), 0.5, 0.5)
    assert bool(found.isfinite().all())
    assert found.tolist() == pytest.approx([0.0, 0.0], abs=1e-15)
    (gradient,) = torch.autograd.grad(found.sum(), inside)
    assert bool(gradient.isfinite().all())


def test_the_published_exponents() -> None:
    assert (FUSIONS["f-vit-coco"].alpha, FUSIONS["f-vit-coco"].beta) == (0.1, 0.8)
    assert (FUSIONS["f-vit-lvis"].alpha, FUSIONS["f-vit-lvis"].beta) == (0.1, 0.4)
    assert (FUSIONS["fc-clip"].alpha, FUSIONS["fc-clip"].beta) == (0.4, 0.8)
    assert (FUSIONS["fc-clip-sliding"].alpha, FUSIONS["fc-clip-sliding"].beta) == (0.45, 0.7)


def test_what_does_not_fit_is_refused() -> None:
    inside, outside = (one.softmax(-1) for one in tables())
    with pytest.raises(ShapeError, match=r"\[K\], got \[3, 5, 4\]"):
        fuse(inside, outside, SEEN[:3], 0.1, 0.8)
    with pytest.raises(ShapeError, match="background: expected"):
        fuse(inside, outside, SEEN, 0.1, 0.8, background=torch.zeros(3))
    with pytest.raises(ConfigError, match="beta: expected 0"):
        fuse(inside, outside, SEEN, 0.1, 1.8)
    with pytest.raises(ConfigError, match="alpha: expected 0"):
        Fusion(alpha=-1, beta=0)
