"""Tables 22 and 26 of EVA-02, typed from the paper, and the released settings that the paper does not give."""

import pytest

from eyesmith.models.eva02.model import Eva02Config
from eyesmith.recipes import recipe
from eyesmith.runs.plan import plan
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.tasks.masked import MaskedConfig

# peak rate, batch, epochs, drop path, images, steps in millions as the paper rounds them
TABLE_22 = {
    "ti": (3e-3, 4000, 240, 0.0, 14_200_000, 0.85),
    "s": (3e-3, 4000, 240, 0.0, 14_200_000, 0.85),
    "b": (1.5e-3, 2048, 150, 0.0, 14_200_000, 1.0),
    "l": (1.5e-3, 2048, 56, 0.1, 38_000_000, 1.0),
}
# image rate and decay, text rate and decay, batch, samples in billions, pixels, patch
TABLE_26 = {
    "b": (2e-4, 0.75, 2e-5, 0.75, 131_072, 8, 224, 16),
    "l": (4e-4, 0.85, 4e-5, 0.75, 131_072, 4, 224, 14),
    "l-336": (4e-4, 0.75, 4e-5, 0.65, 61_440, 2, 336, 14),
}
ENCODER_PARAMETERS = {"ti": 5_502_144, "s": 21_621_120, "b": 85_758_720, "l": 303_268_800}


@pytest.mark.parametrize("name", TABLE_22)
def test_masked_images_by_table_22(name: str) -> None:
    config = recipe(f"eva02-mim-{name}")
    assert isinstance(config, MaskedConfig)
    peak, batch, epochs, drop_path, images, steps = TABLE_22[name]
    optim = config.optim
    assert (optim.name, optim.peak_lr, optim.betas, optim.eps, optim.weight_decay) == (
        "adamw",
        peak,
        (0.9, 0.98),
        1e-6,
        0.05,
    )
    assert (config.batch_size, config.epochs, config.model.drop_path_prob) == (batch, epochs, drop_path)
    assert (config.model.image_size, config.model.patch_px) == ((224, 224), 14)
    assert config.transform is not None
    assert (config.transform.scale, config.transform.horizontal_flip_prob) == ((0.2, 1.0), 0.5)
    assert config.data.epoch_samples == images
    made = plan(config)
    assert made.steps / 1e6 == pytest.approx(steps, rel=0.05)
    parts = {part.part: part for part in made.parts}
    assert parts["image"].trained == ENCODER_PARAMETERS[name]
    assert parts["head"].trained == config.model.width * 1025 + 1024  # the head and the mask token
    # beside biases and norms, the table and the class token are undecayed, and the mask token is decayed
    assert parts["head"].decayed == config.model.width * 1025
    # what the code has and the paper has not
    assert config.mask.counts((16, 16)) == (105, 16)
    assert (optim.clip_norm, config.patch_grad_scale) == (3.0, 0.1)
    per_epoch = images // batch
    rates = [optim.lr_at(step, made.steps) for step in (0, per_epoch - 1, per_epoch, made.steps - 1)]
    assert rates == pytest.approx([0.0, peak, peak, 1e-5], rel=1e-3, abs=1e-9)


def test_simmim_differs_in_mask_and_target_alone() -> None:
    ours, theirs = recipe("eva02-simmim-s"), recipe("eva02-mim-s")
    assert isinstance(ours, MaskedConfig)
    assert ours.optim == theirs.optim
    assert ours.target.kind == "pixels"
    assert plan(ours).parts[-1].trained == 384 * (3 * 14 * 14 + 1) + 3 * 14 * 14


@pytest.mark.parametrize("name", TABLE_26)
@pytest.mark.parametrize("released", [False, True])
def test_clip_by_table_26(name: str, released: bool) -> None:
    config = recipe(f"eva02-clip-{name}" + ("-released" if released else ""))
    assert isinstance(config, TrainConfig)
    image_lr, image_decay, text_lr, text_decay, batch, billions, pixels, patch = TABLE_26[name]
    optim, image = config.optim, config.model.image
    assert isinstance(image, Eva02Config)
    assert (image.image_size, image.patch_px, image.has_inner_norm) == ((pixels, pixels), patch, True)
    assert optim.name == "lamb"
    assert (optim.betas, optim.eps) == (((0.9, 0.999), 1e-8) if released else ((0.9, 0.98), 1e-6))
    assert (optim.weight_decay, optim.warmup_steps, optim.clip_norm) == (0.05, 2000, 5.0)
    assert config.transform is not None
    assert (config.transform.scale, config.transform.horizontal_flip_prob) == ((0.9, 1.0), 0.0)
    made = plan(config)
    assert (made.batch_size, made.samples_seen / 1e9) == (batch, pytest.approx(billions, rel=0.01))
    scales = {(group.part, group.layer): group.lr_scale * optim.peak_lr for group in made.groups}
    assert scales["temperature", None] == pytest.approx(5e-4)
    assert scales["image", image.depth + 1] == pytest.approx(image_lr)
    assert scales["image", 0] == pytest.approx(image_lr * image_decay ** (image.depth + 1))
    assert scales["text", 13] == pytest.approx(text_lr)
    # printed factors of the facts: embeddings and first block of a text tower of 12 blocks
    factors = {0.75: (0.02375726, 0.03167635), 0.65: (0.003697206, 0.005688009)}[text_decay]
    assert (scales["text", 0] / text_lr, scales["text", 1] / text_lr) == pytest.approx(factors, rel=1e-6)
    assert config.initial.part == ("all" if name == "l-336" else "image")
    undecayed = {"image.position", "image.class_token", "text.positional_embedding"}
    assert {*optim.no_decay} == undecayed


def test_the_laptop_recipes_fit_each_other() -> None:
    masked, pair = recipe("mim-nano"), recipe("quickstart-trv")
    assert isinstance(masked, MaskedConfig)
    assert isinstance(pair, TrainConfig)
    image = pair.model.image
    assert isinstance(image, Eva02Config)
    assert (masked.model.width, masked.model.depth, masked.model.image_size) == (
        image.width,
        image.depth,
        image.image_size,
    )
