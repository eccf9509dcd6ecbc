"""Training on pictures near their own shape: positions, rows of several processes, a run that goes on."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from tests.runs.breaking import start_and_break

from eyesmith.data.buckets import BucketConfig
from eyesmith.errors import ConfigError, ShapeError
from eyesmith.images import PreprocessConfig
from eyesmith.losses.config import DistillConfig, LossConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vit.model import VitConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.optim.config import OptimConfig
from eyesmith.runs.plan import plan
from eyesmith.runs.train import resume, start
from eyesmith.tasks.contrastive import Contrastive, TrainConfig
from eyesmith.train.config import DataConfig, ParallelConfig
from eyesmith.train.distributed import World

VIT = VitConfig(image_size=(32, 32), patch_px=8, width=16, depth=2, num_heads=2, hidden_dim=32, embed_dim=16)
VIT_48 = replace(VIT, image_size=(48, 48))
VITAMIN = ViTaminConfig(
    image_size=(48, 48), widths=(8, 16, 32), depths=(1, 1, 1), num_heads=2, embed_dim=16, drop_path_prob=0.0
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 pictures of three shapes, with captions."""
    folder = tmp_path_factory.mktemp("pairs")
    rng, lines = np.random.default_rng(0), ["image,caption"]
    for number in range(120):
        height, width = ((40, 80), (64, 64), (90, 45))[number % 3]
        colour = rng.integers(0, 256, 3)
        picture = np.broadcast_to(colour, (height, width, 3)) + rng.integers(-20, 20, (height, width, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,a {('wide', 'square', 'tall')[number % 3]} thing of {colour[0]}")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    return folder / "pairs.csv"


@pytest.fixture
def config(pairs: Path) -> TrainConfig:
    text = ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16, context_len=16).of_bytes()
    return TrainConfig(
        model=ClipConfig(name="t", image=VITAMIN, text=text, preprocess=PreprocessConfig(image_size=(48, 48))),
        data=DataConfig(path=str(pairs), decode_px=60),
        optim=OptimConfig(peak_lr=1e-3),
        buckets=BucketConfig(cells=(9, 16), ratios=(0.5, 1.0, 2.0)),
        batch_size=16,
        epochs=2,
        precision="fp32",
        log_every_steps=1,
        save_every_steps=2,
    )


@pytest.mark.parametrize("image", [VIT, VITAMIN, replace(VIT, pooling="mean", has_class_token=False)])
@pytest.mark.parametrize("grid", [(2, 5), (6, 3), (4, 4)])
def test_positions_are_those_of_a_view_and_learn(image: Any, grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    encoder = image.build()
    with torch.no_grad():
        encoder.position.normal_()
    size = (grid[0] * encoder.stride, grid[1] * encoder.stride)
    pixels = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with encoder.seeing(*size):
        found = encoder(pixels)
    with torch.no_grad():
        torch.testing.assert_close(found, encoder.at_size(*size)(pixels), atol=1e-6, rtol=1e-5)
    with pytest.raises(ShapeError):
        encoder(torch.rand(1, 3, 8, 8))
    found.square().sum().backward()
    assert encoder.position.grad is not None
    # by hand: the table as a picture, resampled, whose gradient comes back through the same rule
    view = encoder.at_size(*size)
    view.position.requires_grad_()
    view(pixels).square().sum().backward()
    prefix = encoder.position.shape[1] - encoder.config.grid[0] * encoder.config.grid[1]
    table = encoder.position.detach()[:, prefix:].clone().requires_grad_()
    cells = table.reshape(1, *encoder.config.grid, -1).permute(0, 3, 1, 2)
    if grid != tuple(encoder.config.grid):
        cells = F.interpolate(cells, size=grid, mode="bicubic", antialias=True, align_corners=False)
    cells.permute(0, 2, 3, 1).flatten(1, 2).backward(view.position.grad[:, prefix:])
    torch.testing.assert_close(encoder.position.grad[:, prefix:], table.grad, atol=1e-5, rtol=1e-4)


def test_rows_of_two_processes_are_those_of_one(config: TrainConfig) -> None:
    whole = Contrastive.open_rows(config, World())
    halves = [Contrastive.open_rows(config, World(rank=rank, size=2)) for rank in (0, 1)]
    shapes = set()
    for step in range(whole.steps_per_epoch + 2):
        one = whole.begin(step)().batch
        parts = [rows.begin(step)().batch for rows in halves]
        assert one is not None
        shares = [part for part in parts if part is not None]
        assert torch.equal(one.pixels, torch.cat([part.pixels for part in shares]))
        assert one.texts == [text for part in shares for text in part.texts]
        height, width = one.pixels.shape[2:]
        assert len(one) * (height // 16) * (width // 16) <= 144
        kinds = {text.split()[1] for text in one.texts}
        assert kinds == {"tall" if height > width else "wide" if width > height else "square"}
        shapes.add((height, width))
    assert len(shapes) == 6
    for rows in (whole, *halves):
        rows.close()


def test_a_stopped_run_ends_as_one_never_stopped(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(config, tmp_path / "whole")

    start_and_break(config, tmp_path / "stopped", step=5, monkeypatch=monkeypatch)
    resume(tmp_path / "stopped")
    models = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped")]
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    samples = [line["samples"] for line in lines if "samples" in line]
    steps = np.diff([0, *samples])
    assert set(steps.tolist()) <= {8, 16}  # what the log calls samples is what was seen
    assert len(set(steps.tolist())) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"buckets": BucketConfig(cells=(64,), tokens=100)}, "no room for 8 pictures"),
        ({"parallel": ParallelConfig(strategy="fsdp")}, "resampled whole"),
        ({"data": DataConfig(path="none", epoch_samples=100)}, "of data by index"),
        ({"loss": LossConfig(distill=DistillConfig(teacher="given", feature=1.0))}, "nor with a teacher"),
        ({"image": VIT_48, "patch_drop_prob": 0.5}, "dropped patches"),
        ({"loss": LossConfig(kind="names"), "lock": True}, "neither with loss.kind=names"),
        ({"image": Eva02Config(image_size=(48, 48), patch_px=16, width=16, depth=1, num_heads=2, hidden_dim=32,
                               embed_dim=16)}, "plain ViT or a ViTamin only"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(config: TrainConfig, change: dict[str, Any], says: str) -> None:
    model = replace(config.model, image=change.pop("image", VITAMIN), lock_text=change.pop("lock", False))
    with pytest.raises(ConfigError, match=says):
        replace(config, model=model, **change)


def test_a_plan_says_what_it_counts(config: TrainConfig) -> None:
    assert any("buckets" in note for note in plan(config).notes)


def test_processes_that_cannot_share_are_told(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="take divisors"):
        Contrastive.open_rows(replace(config, accumulate=16), World())
