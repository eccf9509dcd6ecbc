import json
from pathlib import Path

import pytest

from eyesmith.config import to_dict
from eyesmith.errors import ConfigError
from eyesmith.recipes import RECIPES, quickstart, quickstart_vit, recipe
from eyesmith.tasks import run_from_dict, run_to_dict


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_is_complete_and_survives_json(name: str) -> None:
    config = recipe(name)
    assert run_from_dict(json.loads(json.dumps(run_to_dict(config)))) == config


def test_the_baseline_differs_in_the_image_encoder_alone() -> None:
    ours, theirs = to_dict(quickstart()), to_dict(quickstart_vit())
    assert ours["model"].pop("name") != theirs["model"].pop("name")
    assert ours["model"].pop("image") != theirs["model"].pop("image")
    assert ours == theirs


def test_both_image_encoders_have_equal_parameters() -> None:
    counts = [sum(p.numel() for p in make().model.image.build().parameters()) for make in (quickstart, quickstart_vit)]
    assert counts[1] == pytest.approx(counts[0], rel=0.03)


def test_an_unknown_recipe_names_the_closest() -> None:
    with pytest.raises(ConfigError, match="did you mean quickstart"):
        recipe("quickstrat")


def test_the_debug_recipe_needs_no_frozen_text_encoder(tmp_path: Path) -> None:
    assert not recipe("debug").model.lock_text
