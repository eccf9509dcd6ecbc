import pytest

from eyesmith.config import from_dict, to_dict
from eyesmith.errors import ConfigError
from eyesmith.losses import DistillConfig, LossConfig


def test_the_default_is_clips_loss_with_the_mask() -> None:
    config = LossConfig()
    assert (config.kind, config.tile_rows, config.mask, config.init_bias) == ("softmax", 0, "same", -10.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "hinge"}, "loss.kind: expected softmax, sigmoid or names, got 'hinge'"),
        ({"mask": "all"}, "loss.mask"),
        ({"tile_rows": -1}, "loss.tile_rows"),
    ],
)
def test_unknown_values_are_named(fields: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LossConfig(**fields)


@pytest.mark.parametrize("form", ["auto", "dense", "tiled", "ring"])
def test_a_config_that_says_how_the_loss_was_computed_is_still_read(form: str) -> None:
    stored = {**to_dict(LossConfig(kind="sigmoid")), "form": form}
    assert from_dict(LossConfig, stored) == LossConfig(kind="sigmoid")
    with pytest.raises(ConfigError, match="unknown field 'form'"):
        from_dict(LossConfig, {"form": "flat"})


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
