"""Tables 23 to 25 of EVA-02 (arXiv 2303.11331), row by row, and the rate of each layer."""

from dataclasses import replace

import pytest
import torch

from eyesmith.images.mix import MixConfig
from eyesmith.models.classifier import classifier_config
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.optim import freeze, parameter_groups
from eyesmith.recipes import RECIPES, recipe
from eyesmith.runs.plan import plan
from eyesmith.tasks.classify import ClassifyConfig

# peak rate, layer decay, side, batch, epochs, warm-up, drop path, smoothing, smallest crop, average, classes
TABLES = {
    "eva02-ft-in21k-b": (3e-4, 0.70, 448, 2048, 40, 1, 0.10, 0.1, 0.2, 0, 21841),
    "eva02-ft-in21k-l": (3e-4, 0.75, 448, 2048, 30, 1, 0.15, 0.1, 0.2, 0, 21841),
    "eva02-ft-in21k-in1k-b": (5e-5, 0.80, 448, 512, 15, 2, 0.15, 0.2, 0.08, 0.9999, 1000),
    "eva02-ft-in21k-in1k-l": (2e-5, 0.85, 448, 512, 20, 2, 0.15, 0.2, 0.08, 0.9999, 1000),
    "eva02-ft-in1k-ti": (2e-4, 0.90, 336, 1024, 100, 5, 0.10, 0.1, 0.08, 0.9999, 1000),
    "eva02-ft-in1k-s": (1e-4, 0.80, 336, 1024, 100, 5, 0.10, 0.1, 0.08, 0.9999, 1000),
    "eva02-ft-in1k-b": (1e-4, 0.70, 448, 1024, 30, 3, 0.10, 0.1, 0.08, 0.9999, 1000),
    "eva02-ft-in1k-l": (7e-5, 0.80, 448, 1024, 30, 3, 0.15, 0.2, 0.08, 0.9999, 1000),
    # released commands that no column of the tables has
    "eva02-ft-in1k-l-in21k": (5e-5, 0.80, 448, 1024, 30, 3, 0.15, 0.2, 0.08, 0.9999, 1000),
    "eva02-ft-in21k-l-in21k": (2e-4, 0.75, 448, 1024, 20, 1, 0.15, 0.1, 0.2, 0, 21841),
}


def _config(name: str) -> ClassifyConfig:
    config = recipe(name)
    assert isinstance(config, ClassifyConfig)
    return config


@pytest.mark.parametrize("name", TABLES)
def test_a_recipe_has_the_values_of_its_column(name: str) -> None:
    config = _config(name)
    optim, views = config.optim, config.views
    assert isinstance(config.model, Eva02Config)
    found = (
        *(optim.peak_lr, optim.layer_decay, config.model.image_size[0], config.batch_size, config.epochs),
        *(optim.warmup_frac * config.epochs, config.model.drop_path_prob, config.label_smoothing),
        *(views.scale[0], optim.ema_decay, config.num_classes),
    )
    assert found == pytest.approx(TABLES[name])
    assert (optim.name, optim.betas, optim.eps, optim.weight_decay) == ("adamw", (0.9, 0.999), 1e-8, 0.05)
    assert (optim.schedule, optim.warmup_start, optim.min_lr, optim.clip_norm) == ("cosine", "zero", 0.0, 0.0)
    assert (config.model.patch_px, config.model.pooling, config.head_scale) == (14, "mean", 0.001)
    assert (views.rand_augment.magnitude, views.rand_augment.magnitude_std, views.rand_augment.num_ops) == (9, 0.5, 2)
    assert (views.mix, views.erase.prob, views.scale[1]) == (MixConfig(), 0.0, 1.0)
    assert (optim.freeze, optim.ema_warmup) == (("image.patch.*",), False)
    assert config.fresh_norm == ("in21k-in1k" not in name)  # kept after IN-21K, fresh after masked images


def test_every_run_of_the_tables_is_there() -> None:
    assert {name for name in RECIPES if name.startswith("eva02-ft-")} == TABLES.keys()


@pytest.mark.parametrize(
    ("name", "embeddings", "first", "last"),
    [
        ("eva02-ft-in1k-ti", 0.2541866, 0.2824295, 0.90),
        ("eva02-ft-in1k-s", 0.05497558, 0.06871948, 0.80),
        ("eva02-ft-in1k-b", 0.009688901, 0.01384129, 0.70),
        ("eva02-ft-in21k-b", 0.009688901, 0.01384129, 0.70),
        ("eva02-ft-in1k-l", 0.003777893, 0.004722366, 0.80),
        ("eva02-ft-in21k-l", 0.0007525435, 0.001003391, 0.75),
        ("eva02-ft-in21k-in1k-b", 0.05497558, 0.06871948, 0.80),
        ("eva02-ft-in21k-in1k-l", 0.01719781, 0.02023272, 0.85),
    ],
)
def test_layers_have_the_reference_s_rates(name: str, embeddings: float, first: float, last: float) -> None:
    config = _config(name)
    with torch.device("meta"):
        model = classifier_config("x", config.model, tuple(map(str, range(10)))).build()
    freeze(model, config.optim.freeze)
    groups = parameter_groups(model, config.optim)
    names = {id(value): name for name, value in model.named_parameters()}
    scales = {names[id(value)]: group["lr_scale"] for group in groups for value in group["params"]}
    decays = {names[id(value)]: group["weight_decay"] for group in groups for value in group["params"]}
    assert isinstance(config.model, Eva02Config)
    depth = config.model.depth
    for token in ("image.class_token", "image.position"):
        assert scales[token] == pytest.approx(embeddings, rel=1e-6)
        assert decays[token] == 0
    assert not [name for name in scales if name.startswith("image.patch.")]
    for parameter in ("attention.qkv.weight", "mlp.out.bias", "norm2.weight"):
        assert scales[f"image.layers.0.{parameter}"] == pytest.approx(first, rel=1e-6)
        assert scales[f"image.layers.{depth - 1}.{parameter}"] == pytest.approx(last, rel=1e-6)
    for parameter in ("image.norm.weight", "head.weight", "head.bias"):
        assert scales[parameter] == 1
    assert {name for name, decay in decays.items() if decay} == {
        name for name, value in model.named_parameters() if value.ndim >= 2 and name in scales
    } - {"image.class_token", "image.position"}


def test_plans_have_the_steps_and_frozen_parameters() -> None:
    made = plan(_config("eva02-ft-in1k-b"))
    assert made.steps == 30 * (1_281_167 // 1024)
    parts = {part.part: part for part in made.parts}
    assert parts["image"].trained + parts["image"].frozen + parts["head"].trained == 87_117_544
    assert parts["image"].frozen == 768 * 3 * 14 * 14 + 768
    assert made.rates[0].lr == 0
    assert max(rate.lr for rate in made.rates) <= 1e-4
    assert made.fits


def test_the_paper_without_the_code_s_departures_is_a_few_fields_away() -> None:
    config = _config("eva02-ft-in1k-s")
    plain = replace(config, optim=replace(config.optim, freeze=()), fresh_norm=False)
    made = plan(plain)
    assert sum(part.frozen for part in made.parts) == 0
