"""The loss by names: each image against a caption of every class, whole or in parts, in one process or two."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console

from eyesmith.data.loader import Batch, Loader
from eyesmith.data.make.scenes import make_scenes
from eyesmith.errors import ConfigError
from eyesmith.images import PreprocessConfig
from eyesmith.losses.config import LossConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.tasks.contrastive import Contrastive, TrainConfig
from eyesmith.tasks.task import RunContext
from eyesmith.train.config import DataConfig
from eyesmith.train.distributed import World
from eyesmith.train.loop import new_state


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    make_scenes(folder, samples=8, size_px=48)
    image = ViTaminConfig(
        image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 1), num_heads=2, embed_dim=16, drop_path_prob=0.0
    )
    return TrainConfig(
        model=ClipConfig(
            name="tiny",
            image=image,
            text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16, context_len=16),
            preprocess=PreprocessConfig(image_size=(32, 32)),
            lock_text=True,
        ),
        data=DataConfig(path=str(folder), split="train", decode_px=40),
        loss=LossConfig(kind="names"),
        batch_size=4,
        precision="fp32",
        seed=2,
    )


def made(config: TrainConfig, folder: Path) -> tuple[Contrastive, Batch]:
    torch.manual_seed(config.seed)
    rows = Contrastive.open_rows(config, World())
    task = Contrastive.build(config, rows, RunContext(folder=folder, world=World(), console=Console(quiet=True)))
    batches = Loader(rows, prepare=task.prepare)
    try:
        return task, batches.batch(1)
    finally:
        batches.close()


def test_the_loss_is_that_of_a_loop_over_images(config: TrainConfig, tmp_path: Path) -> None:
    task, batch = made(config, tmp_path)
    found = task.backward(new_state(task, config).parallel, batch, 1)
    clip, texts = task.model, task.class_texts
    assert texts is not None
    assert batch.labels is not None
    total = 0.0
    with torch.no_grad():
        for pixels, label in zip(batch.pixels, batch.labels.tolist(), strict=True):
            logits = clip.logit_scale.exp() * texts(1) @ clip.image_features(pixels[None])[0]
            total += float(F.cross_entropy(logits[None], texts.places[label][None])) / 4
    assert float(found.loss) == pytest.approx(total, rel=1e-5)
    assert found.chance == pytest.approx(math.log(len(texts)))


def test_a_row_that_is_left_out_is_left_out_of_the_mean(config: TrainConfig, tmp_path: Path) -> None:
    """A picture that cannot be read makes a batch one shorter: the loss is the mean of what is there."""
    task, batch = made(config, tmp_path)
    parallel = new_state(task, config).parallel
    whole, *parts = (float(task.backward(parallel, one, 1).loss) for one in (batch, *batch.parts(2)))
    assert sum(parts) / 2 == pytest.approx(whole, rel=1e-5)


def test_neighbours_share_the_target(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, loss=LossConfig(kind="names", neighbours=0.25))
    task, batch = made(config, tmp_path)
    found = task.backward(new_state(task, config).parallel, batch, 1)
    clip, texts = task.model, task.class_texts
    assert texts is not None
    assert batch.labels is not None
    names, total = texts(1).tolist(), 0.0
    with torch.no_grad():
        for pixels, label in zip(batch.pixels, batch.labels.tolist(), strict=True):
            image, scale = clip.image_features(pixels[None])[0].tolist(), float(clip.logit_scale.exp())
            logits = [scale * math.fsum(a * b for a, b in zip(image, name, strict=True)) for name in names]
            own = int(texts.places[label])
            near = [math.exp(10 * math.fsum(a * b for a, b in zip(names[own], name, strict=True))) for name in names]
            log_sum = math.log(math.fsum(math.exp(one) for one in logits))
            for k, logit in enumerate(logits):
                target = 0.75 * (k == own) + 0.25 * near[k] / math.fsum(near)
                total += target * (log_sum - logit) / 4
    assert float(found.loss) == pytest.approx(total, rel=1e-4)


def test_neighbours_are_of_names_alone() -> None:
    with pytest.raises(ConfigError, match="loss.neighbours"):
        LossConfig(neighbours=0.1)
    with pytest.raises(ConfigError, match="0 <= share < 1"):
        LossConfig(kind="names", neighbours=1.0)


def test_parts_of_a_batch_have_its_loss_and_gradient(config: TrainConfig, tmp_path: Path) -> None:
    found = []
    for parts in (1, 2):
        task, batch = made(replace(config, accumulate=parts), tmp_path)
        loss = task.backward(new_state(task, task.config).parallel, batch, 1).loss
        found.append((loss, [one.grad for one in task.model.image.parameters()]))
    torch.testing.assert_close(found[0][0], found[1][0])
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_what_it_needs_is_said(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lock_text=true"):
        replace(config, model=replace(config.model, lock_text=False))
    table = tmp_path / "pairs.csv"
    source = Contrastive.open_rows(config, World()).source  # pyright: ignore[reportAttributeAccessIssue]
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(source.image_bytes(number))
    lines = [f"{number}.png,a thing of number {number}" for number in range(4)]
    table.write_text("\n".join(["image,caption", *lines]) + "\n", encoding="utf-8")
    unlabelled = replace(config, data=replace(config.data, path=str(table), split=None))
    with pytest.raises(ConfigError, match="has no classes"):
        made(unlabelled, tmp_path)
