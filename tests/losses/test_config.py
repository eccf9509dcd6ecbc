import pytest

from eyesmith.errors import ConfigError
from eyesmith.losses import DistillConfig, LossConfig


def test_the_default_is_clips_loss_with_the_mask() -> None:
    config = LossConfig()
    assert (config.kind, config.form, config.mask, config.init_bias) == ("softmax", "auto", "same", -10.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "hinge"}, "loss.kind: expected softmax, sigmoid, got 'hinge'"),
        ({"form": "flat"}, "loss.form"),
        ({"mask": "all"}, "loss.mask"),
        ({"tile_rows": -1}, "loss.tile_rows"),
    ],
)
def test_unknown_values_are_named(fields: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LossConfig(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"teacher": "runs/big"},
        {"logit": 1.0},
        {"teacher": "x", "logit": -1.0},
        {"teacher": "x", "logit": 1.0, "temperature": 0.0},
    ],
)
def test_a_teacher_and_a_weight_go_together(fields: dict) -> None:
    with pytest.raises(ConfigError, match="loss.distill"):
        DistillConfig(**fields)
