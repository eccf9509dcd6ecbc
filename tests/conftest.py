import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from eyesmith.data.shards import ShardWriter
from eyesmith.images import AugmentConfig, PreprocessConfig, TrainTransformConfig
from eyesmith.models import own
from eyesmith.models.clip import ClipConfig
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.optim.config import OptimConfig
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train.config import DataConfig
from eyesmith.train.diagnostics import HealthConfig

COLORS = ("red", "green", "blue", "black", "orange", "purple")
EIGHT_COLORS = (*COLORS, "brown", "pink")


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders: discs of six colours, each at four sizes."""
    folder = tmp_path_factory.mktemp("discs")
    for color in COLORS:
        (folder / color).mkdir()
        for size in range(4):
            image = Image.new("RGB", (40, 40), "white")
            ImageDraw.Draw(image).ellipse((8 - size, 8 - size, 30 + size, 30 + size), fill=color)
            image.save(folder / color / f"{size}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_model() -> ClipConfig:
    return ClipConfig(
        name="tiny",
        image=ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 3), num_heads=2, embed_dim=16),
        text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16, context_len=16),
        preprocess=PreprocessConfig(image_size=(32, 32)),
        prompts=("{}",),
    )


@pytest.fixture(scope="session")
def config(pairs: Path, tiny_model: ClipConfig) -> TrainConfig:
    """Eight steps an epoch of three pairs, three epochs, everything that draws random numbers switched on."""
    return TrainConfig(
        model=tiny_model,
        data=DataConfig(path=str(pairs), decode_px=40),
        augment=AugmentConfig(scale=(0.6, 1.0), rotation_degrees=10, horizontal_flip_prob=0.5, brightness=0.2),
        optim=OptimConfig(peak_lr=1e-3, ema_decay=0.9),
        health=HealthConfig(ignore=("waiting", "slower", "memory")),  # they tell of the machine of the test
        batch_size=3,
        epochs=3,
        precision="fp32",
        log_every_steps=1,
        save_every_steps=5,
    )


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of 9 squares and one of 6."""
    folder = tmp_path_factory.mktemp("shards")
    with ShardWriter(folder, shard_samples=9) as writer:
        for number in range(24):
            picture = Image.new("RGB", (40 + number % 5, 44), EIGHT_COLORS[number % 8])
            content = io.BytesIO()
            picture.save(content, "JPEG")
            writer.write(
                f"{number:05}", {"jpg": content.getvalue(), "txt": f"{EIGHT_COLORS[number % 8]} {number}".encode()}
            )
    return folder


@pytest.fixture
def streamed(config: TrainConfig, shards: Path) -> TrainConfig:
    return replace(
        config,
        data=DataConfig(path=str(shards), num_workers=2),
        augment=AugmentConfig(),
        transform=TrainTransformConfig(image_size=(32, 32), scale=(0.5, 1.0)),
        batch_size=4,
        save_every_steps=3,
    )


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests share no cache with the user, nor with the run before."""
    patch = pytest.MonkeyPatch()
    patch.setenv("EYESMITH_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """The models of tests are tiny: threads that wait for each other cost far more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders that a test registers from files end with it."""
    for table in ("_BY_NAME", "_BY_HASH"):
        monkeypatch.setattr(own, table, {})
