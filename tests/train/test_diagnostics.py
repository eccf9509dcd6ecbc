import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from eyesmith.errors import ConfigError
from eyesmith.losses.config import DistillConfig, LossConfig
from eyesmith.tasks.contrastive import chance_loss
from eyesmith.train.diagnostics import Health, HealthConfig, as_line
from eyesmith.train.symptoms import RULES, RunShape

LOG_B = math.log(1024)
SHAPE = RunShape(
    steps=10_000,
    warmup_steps=100,
    batch_size=1024,
    init_scale=14.0,
    log_every_steps=10,
    trained={"image": 1000, "text": 1000},
)
HEALTHY: dict[str, Any] = {
    "loss": 2.0,
    "chance_loss": LOG_B,
    "scale": 30.0,
    "grad_norm": 1.0,
    "image_grad_norm": 0.8,
    "text_grad_norm": 0.6,
    "image_rank": 100.0,
    "images_per_s": 1000.0,
    "wait_frac": 0.01,
    "mfu": 0.3,
    "peak_mib": 4000.0,
}
Change = Callable[[int], dict[str, Any]]


def lines(last: int, change: Change, first: int = 10) -> list[dict[str, Any]]:
    """A log of every tenth step; a field that is None is left out, as in a real one."""
    found = []
    for step in range(first, last + 1, 10):
        line = {**HEALTHY, "step": step, "time_s": float(step), **change(step)}
        line["loss_frac"] = line["loss"] / LOG_B
        found.append({name: value for name, value in line.items() if value is not None})
    return found


def told(log: list[dict[str, Any]], shape: RunShape = SHAPE, **config: Any) -> list[tuple[str, int]]:
    health = Health(HealthConfig(**config), shape)
    return [(finding.rule, finding.step) for line in log for finding in health.observe(line)]


SICK: dict[str, tuple[Change, int]] = {  # the change of a healthy log, and the step at which it must be told
    "no_gradient": (lambda step: {"image_grad_norm": None}, 30),
    "stuck": (lambda step: {"loss": LOG_B * 1.001}, 600),
    "above_chance": (lambda step: {"loss": LOG_B * 1.4}, 600),
    # 26 of the last 50 lines must be high before their median is
    "diverging": (lambda step: {"loss": 2.0 if step <= 1000 else 5.0}, 1260),
    "spikes": (lambda step: {"grad_norm": 50.0 if step in (700, 800, 900) else 1.0}, 900),
    "collapse": (lambda step: {"image_rank": 1.3, "loss": 0.94 * LOG_B}, 600),
    "scale_bound": (lambda step: {"scale": 100.0}, 600),
    "scale_low": (lambda step: {"scale": 5.0}, 600),
    "weak_gradient": (lambda step: {"text_grad_norm": 1e-6}, 600),
    "waiting": (lambda step: {"wait_frac": 0.6}, 50),
    "slower": (lambda step: {"images_per_s": 1000.0 if step <= 1000 else 300.0}, 1260),
    "memory": (lambda step: {"peak_mib": 4000.0 + (step > 1000) * 2.5 * (step - 1000)}, 1400),
    "low_use": (lambda step: {"mfu": 0.02}, 600),
}


@pytest.mark.parametrize("rule", SICK)
def test_a_sick_log_is_told_once_and_when_it_has_lasted(rule: str) -> None:
    change, step = SICK[rule]
    assert told(lines(3000, change), replace(SHAPE, device="cuda")) == [(rule, step)]


def test_a_healthy_log_says_nothing() -> None:
    def course(step: int) -> dict[str, Any]:
        return {
            "loss": max(1.0, LOG_B * (1 - step / 5000)) + 0.1 * (step % 3),
            "scale": min(60.0, 14 + step / 100),
            "grad_norm": 1.0 + step % 7,
            "peak_mib": 3000.0 + min(step, 500),
            "images_per_s": 900.0 + step % 200,
        }

    assert told(lines(9000, course), replace(SHAPE, device="cuda")) == []


def test_a_masked_run_has_neither_a_temperature_nor_a_level_of_guessing() -> None:
    """Its loss is a negative cosine: it may rise a little, and is told of when it rises by a quarter."""
    shape = replace(SHAPE, init_scale=0.0, trained={"image": 1000})

    def log(last: float) -> list[dict[str, Any]]:
        bare = {"scale": None, "text_grad_norm": None, "chance_loss": 0.0}
        found = lines(2000, lambda step: {**bare, "loss": -0.7 if step <= 1000 else last})
        return [{name: value for name, value in line.items() if name != "loss_frac"} for line in found]

    assert told(log(-0.6), shape) == []
    assert told(log(-0.4), shape) == [("diverging", 1260)]


def test_every_rule_is_tested() -> None:
    assert set(SICK) | {"check_cost", "overfit"} == set(RULES)


def test_nothing_is_said_of_the_loss_in_the_warm_up() -> None:
    log = lines(3000, lambda step: {"loss": LOG_B if step <= 2000 else 2.0})
    assert told(log, replace(SHAPE, warmup_steps=2000)) == []


def test_a_loss_that_falls_slowly_is_not_stuck() -> None:
    assert told(lines(3000, lambda step: {"loss": LOG_B * (1.0 - step / 20_000)})) == []


def test_a_locked_text_tower_may_have_no_gradient_and_an_old_log_no_field() -> None:
    assert told(lines(300, lambda _: {"text_grad_norm": None}), replace(SHAPE, locked=("text",))) == []
    assert told(lines(300, lambda _: {"text_grad_norm": None, "image_grad_norm": None})) == []


def test_a_short_run_is_judged_by_a_fifth_of_it_or_by_twenty_lines() -> None:
    stuck = lines(3000, lambda _: {"loss": LOG_B})
    assert told(stuck, replace(SHAPE, steps=1500)) == [("stuck", 400)]  # 100 of warm-up, 300
    assert told(stuck, replace(SHAPE, steps=500)) == [("stuck", 300)]  # 100 of warm-up, 20 lines


def test_a_rule_can_be_told_to_be_silent() -> None:
    log = lines(3000, SICK["scale_low"][0])
    assert told(log, ignore=("scale_low",)) == []
    with pytest.raises(ConfigError, match=r"no rule 'scale_lo'; there are: no_gradient"):
        HealthConfig(ignore=("scale_lo",))


def test_a_symptom_that_comes_back_is_told_again_after_a_while() -> None:
    log = lines(9000, lambda step: {"wait_frac": 0.6 if step % 3000 < 1500 else 0.0})
    assert [rule for rule, _ in told(log)] == ["waiting"] * 3


def test_a_resumed_run_says_what_one_never_stopped_says() -> None:
    log = lines(3000, lambda step: {"loss": LOG_B, "wait_frac": 0.6 if step > 1500 else 0.0})
    whole = Health(HealthConfig(), SHAPE)
    expected = [as_line(finding) for line in log for finding in whole.observe(line)]
    written = []
    for cut in (0, 57, 61, 158, 300):
        again, written = Health(HealthConfig(), SHAPE), []
        for line in log[:cut]:  # with the findings that the stopped run wrote among them
            for finding in again.observe(line):
                again.observe(as_line(finding))
                written.append(as_line(finding))
        resumed = Health(HealthConfig(), SHAPE)
        for line in [*log[:cut], *written]:
            resumed.observe(line)
        for line in log[cut:]:
            written += [as_line(finding) for finding in resumed.observe(line)]
        assert written == expected


def test_checks_that_cost_too_much_or_fall() -> None:
    health = Health(HealthConfig(), SHAPE)
    found = []
    for step in range(100, 1100, 100):
        value = 0.5 if step <= 500 else 0.3
        found += health.observe({"step": step, "time_s": step / 10, "check_s": 20.0, "eval": {"val/top1": value}})
    assert [(one.rule, one.step) for one in found] == [("check_cost", 300), ("overfit", 800)]
    assert "val/top1 was 50.0% at step 100" in found[1].message
    assert "67% of the time" in found[0].message


def test_the_sentence_names_what_the_log_shows() -> None:
    health = Health(HealthConfig(), SHAPE)
    said = [one for line in lines(600, lambda _: {"loss": LOG_B}) for one in health.observe(line)]
    assert said[0].message == "the loss has stayed at log(batch) = 6.93, that of guessing, for 500 steps"
    assert "data check" in said[0].hint
    dead = Health(HealthConfig(ignore=("no_gradient",)), SHAPE)
    log = lines(600, lambda _: {"loss": LOG_B, "image_grad_norm": None})
    said = [one for line in log for one in dead.observe(line)]
    assert "the image tower gets no gradient" in said[0].hint


def slow_chance(config: LossConfig, keys: list[Any]) -> float:
    """The loss of equal scores over all pairs, row by row; for sigmoid the lowest over constant logits."""
    same = [
        [i != j and config.mask == "same" and keys[i] == keys[j] for j in range(len(keys))] for i in range(len(keys))
    ]
    counts = [1 + sum(not hit for j, hit in enumerate(row) if j != i) for i, row in enumerate(same)]
    if config.kind == "softmax":
        return sum(math.log(count) for count in counts) / len(keys)
    best = math.inf
    for step in range(-4000, 4000):
        logit = step / 400
        total = sum(math.log1p(math.exp(-logit)) + (count - 1) * math.log1p(math.exp(logit)) for count in counts)
        best = min(best, total / len(keys))
    return best


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("mask", ["same", "none"])
def test_chance_is_what_equal_scores_give(kind: Any, mask: Any) -> None:
    config = LossConfig(kind=kind, mask=mask)
    texts = ["a", "b", "a", "c", "d", "a", "e", "f"]
    given = chance_loss(config, texts, None, len(texts))
    # for sigmoid each row has its own best constant, which is a little less than one for all
    assert given == pytest.approx(
        slow_chance(config, texts), rel=1e-9 if kind == "softmax" or mask == "none" else 0.02, abs=1e-5
    )
    labels = [0, 1, 1, 1, 2, 3, 4, 5]
    given = chance_loss(config, texts, torch.tensor(labels), len(texts))
    assert given == pytest.approx(
        slow_chance(config, labels), rel=1e-9 if kind == "softmax" or mask == "none" else 0.02, abs=1e-5
    )


def test_chance_of_different_captions_is_the_log_of_the_batch_in_every_process() -> None:
    texts = [str(i) for i in range(16)]
    assert chance_loss(LossConfig(), texts, None, 16) == pytest.approx(math.log(16))
    assert chance_loss(LossConfig(), texts, None, 64) == pytest.approx(math.log(64))  # one of four processes


def test_a_teacher_has_no_level_of_guessing() -> None:
    config = LossConfig(distill=DistillConfig(teacher="x", feature=1.0))
    assert chance_loss(config, ["a", "b"], None, 2) == 0.0
