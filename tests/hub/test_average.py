from dataclasses import replace

import pytest
import torch
from torch import Tensor

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.hub.average import greedy_soup, soup, weighted, wise_ft
from eyesmith.hub.stored import Stored
from eyesmith.models.registry import config

CONFIG = config("ViTamin-Nano")


def stored(name: str, **tensors: Tensor) -> Stored:
    return Stored(config=CONFIG, tensors=tensors, where=name)


@pytest.fixture
def models() -> list[Stored]:
    torch.manual_seed(0)
    locked = torch.randn(3)
    return [stored(f"m{i}", w=torch.randn(4, 2), b=torch.randn(2), locked=locked.clone()) for i in range(3)]


def test_wise_ft_goes_from_before_to_after(models: list[Stored]) -> None:
    before, after = models[:2]
    for alpha in (0.0, 0.3, 1.0):
        found = wise_ft(before, after, alpha)
        for name in ("w", "b"):
            want = [
                (1 - alpha) * a + alpha * b
                for a, b in zip(
                    before.tensors[name].flatten().tolist(), after.tensors[name].flatten().tolist(), strict=True
                )
            ]
            torch.testing.assert_close(found.tensors[name].flatten(), torch.tensor(want), rtol=1e-6, atol=1e-7)
    assert torch.equal(wise_ft(before, after, 0.0).tensors["w"], before.tensors["w"])
    assert torch.equal(wise_ft(before, after, 1.0).tensors["w"], after.tensors["w"])


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_an_alpha_outside_is_refused(models: list[Stored], alpha: float) -> None:
    with pytest.raises(ConfigError, match="alpha: expected 0"):
        wise_ft(models[0], models[1], alpha)


def test_a_soup_is_the_mean_and_keeps_the_config(models: list[Stored]) -> None:
    found = soup(models)
    torch.testing.assert_close(found.tensors["w"], torch.stack([m.tensors["w"] for m in models]).mean(0))
    assert found.config is CONFIG
    assert "m0, m1, m2" in found.where


def test_what_is_equal_stays_to_the_bit_and_types_stay(models: list[Stored]) -> None:
    third = [
        replace(model, tensors={**model.tensors, "half": torch.full((2,), float(i)).half()})
        for i, model in enumerate(models)
    ]
    found = soup(third)
    assert torch.equal(found.tensors["locked"], models[0].tensors["locked"])
    assert found.tensors["half"].dtype == torch.float16
    assert found.tensors["half"].tolist() == [1.0, 1.0]


def test_whole_numbers_must_be_equal() -> None:
    one, other = stored("a", count=torch.tensor([1])), stored("b", count=torch.tensor([2]))
    assert soup([one, one]).tensors["count"].tolist() == [1]
    with pytest.raises(CheckpointError, match="'count' holds whole numbers"):
        soup([one, other])


def test_models_of_another_kind_are_refused() -> None:
    one = stored("a", w=torch.zeros(2))
    with pytest.raises(CheckpointError, match=r"b: 'w' is \[3\], in a \[2\]"):
        soup([one, stored("b", w=torch.zeros(3))])
    with pytest.raises(CheckpointError, match="only one of them has 'v'"):
        soup([one, stored("b", w=torch.zeros(2), v=torch.zeros(1))])
    with pytest.raises(ConfigError, match="expected one for each"):
        soup([])
    with pytest.raises(ConfigError, match="a sum of 1, got 1.5"):
        weighted([one, one], [1.0, 0.5])


def test_weights_that_are_used_otherwise_are_refused() -> None:
    """OpenAI's models and LAION's have the same shapes and other activations."""
    tensors = {"w": torch.zeros(2)}
    plain, quick = (Stored(config(name), tensors, name) for name in ("ViT-B-32", "ViT-B-32-quickgelu"))
    with pytest.raises(CheckpointError, match=r"quickgelu: image\.activation is 'quick_gelu', in ViT-B-32 'gelu'"):
        soup([plain, quick])
    pair = config("ViT-B-32")
    tuned = replace(
        pair,
        name="tuned",
        image=replace(pair.image, drop_path_prob=0.1),  # pyright: ignore[reportCallIssue]
        prompts=("{}",),
        lock_text=True,
        preprocess=replace(pair.preprocess, resize="squash"),
    )
    assert soup([plain, Stored(tuned, tensors, "tuned")]).config is plain.config
    bright = replace(pair, preprocess=replace(pair.preprocess, mean=(0.5, 0.5, 0.5)))
    with pytest.raises(CheckpointError, match=r"bright: preprocess\.mean"):
        soup([plain, Stored(bright, tensors, "bright")])


def test_a_greedy_soup_takes_what_helps_best_first() -> None:
    # the score is the nearness of w to 1: m1 is best alone, with m3 the mean is nearer, others spoil it
    values = {"m0": 1.4, "m1": 0.8, "m2": 3.0, "m3": 1.3}
    models = [stored(name, w=torch.tensor([value])) for name, value in values.items()]
    tried: list[float] = []

    def score(model: Stored) -> float:
        tried.append(round(float(model.tensors["w"]), 4))
        return -abs(float(model.tensors["w"]) - 1)

    found = greedy_soup(models, score)
    assert found.chosen == (1, 3)
    assert float(found.model.tensors["w"]) == pytest.approx(1.05)
    assert found.score == pytest.approx(-0.05, abs=1e-6)
    assert tried == [1.4, 0.8, 3.0, 1.3, 1.05, 1.1667, 1.7]


def test_a_greedy_soup_never_scores_below_the_best_alone(models: list[Stored]) -> None:
    scores = {"m0": 0.2, "m1": 0.9, "m2": 0.5}
    found = greedy_soup(models, lambda model: scores.get(model.where, 0.0))
    assert (found.chosen, found.score) == ((1,), 0.9)
    assert found.model is models[1]
    with pytest.raises(ConfigError, match="one or more"):
        greedy_soup([], lambda _: 0.0)
