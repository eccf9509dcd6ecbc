"""Our loader beside open_clip's, on the same shards: the same samples, the same pixels, crops of the same law."""

import io
import json
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eyesmith.data.stream import ShardStream
from eyesmith.images import OPENAI_MEAN, OPENAI_STD, TrainTransformConfig, normalize, open_image, sample_rng
from eyesmith.images.crop import random_resized_box
from eyesmith.models.foreign.torchvision import ensure_torchvision

ensure_torchvision()
pytest.importorskip("open_clip")
pytest.importorskip("webdataset")

from open_clip import image_transform  # noqa: E402
from torchvision.transforms import InterpolationMode, RandomResizedCrop  # noqa: E402
from torchvision.transforms import functional as tvf  # noqa: E402

NUM_SHARDS, PER_SHARD = 2, 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for shard in range(NUM_SHARDS):
        with tarfile.open(tmp_path / f"{shard:05d}.tar", "w") as tar:
            for number in range(shard * PER_SHARD, (shard + 1) * PER_SHARD):
                cells = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
                stream = io.BytesIO()
                form = ("JPEG", "PNG", "WEBP")[number % 3]
                Image.fromarray(cells).resize((70 + number, 60)).save(stream, form)
                members = {
                    {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[form]: stream.getvalue(),
                    "txt": f"caption {number}".encode(),
                    "json": json.dumps({"key": f"{number:09d}", "caption": f"caption {number}"}).encode(),
                }
                for name, content in members.items():
                    info = tarfile.TarInfo(f"{number:09d}.{name}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return tmp_path


# in a process of its own: their reader leaves its files open
THEIR_EPOCH = """
import json, sys
from argparse import Namespace
from eyesmith.models.foreign.torchvision import ensure_torchvision
ensure_torchvision()
from open_clip import image_transform
from open_clip_train.data import get_wds_dataset

arguments = Namespace(
    train_data=sys.argv[1], train_num_samples=int(sys.argv[2]), dataset_resampled=False,
    train_data_upsampling_factors=None, batch_size=6, workers=0, world_size=1, seed=0,
)
data = get_wds_dataset(arguments, image_transform(32, is_train=True), True, tokenizer=lambda text: [text])
print(json.dumps([text for _, texts in data.dataloader for text in texts]))
"""


def test_both_loaders_give_the_same_samples_of_an_epoch(folder: Path) -> None:
    count = NUM_SHARDS * PER_SHARD
    command = [sys.executable, "-W", "ignore", "-c", THEIR_EPOCH, str(folder / "{00000..00001}.tar"), str(count)]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    stream = ShardStream(folder, 6, transform=TrainTransformConfig(image_size=(32, 32)), num_workers=0)
    ours = [text for step in range(stream.plan.steps_per_epoch) for text in stream.batch(step).texts]
    assert sorted(ours) == sorted(theirs) == sorted(f"caption {i}" for i in range(count))


def test_exact_pixels_are_those_of_open_clip_given_the_same_box(folder: Path) -> None:
    config = TrainTransformConfig(image_size=(32, 32), scale=(0.4, 1.0))
    stream = ShardStream(folder, 24, transform=config, mode="exact", seed=5, num_workers=0)
    batch = stream.batch(0)
    floats = normalize(batch.pixels, OPENAI_MEAN, OPENAI_STD)
    train = image_transform(32, is_train=True, aug_cfg={"scale": (0.4, 1.0)})
    after_crop = [step for step in train.transforms if not isinstance(step, RandomResizedCrop)]
    images = {}
    for shard in folder.glob("*.tar"):
        with tarfile.open(shard) as tar:
            images.update({m.name[:9]: tar.extractfile(m).read() for m in tar if m.name[10:] in ("jpg", "png", "webp")})
    for row, key in enumerate(batch.keys):
        picture = open_image(images[key])
        rng = sample_rng(5, 0, key)
        rng.random()  # which caption
        box = random_resized_box((picture.height, picture.width), config.scale, config.ratio, rng)
        view = tvf.resized_crop(picture, *box, [32, 32], InterpolationMode.BICUBIC)
        for step in after_crop:
            view = step(view)
        assert torch.equal(floats[row], view)


def test_boxes_follow_the_same_law() -> None:
    torch.manual_seed(0)
    picture, rng = Image.new("RGB", (500, 375)), random.Random(0)
    theirs = np.array([RandomResizedCrop.get_params(picture, [0.9, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    ours = np.array([random_resized_box((375, 500), (0.9, 1.0), (3 / 4, 4 / 3), rng) for _ in range(4000)])
    for column in range(4):  # Kolmogorov-Smirnov: 1.95 sqrt(2 / n) is passed once in a thousand
        both = np.sort(np.concatenate([theirs[:, column], ours[:, column]]))
        distance = np.abs(
            np.searchsorted(np.sort(theirs[:, column]), both, side="right")
            - np.searchsorted(np.sort(ours[:, column]), both, side="right")
        ).max()
        assert distance / 4000 < 1.95 * (2 / 4000) ** 0.5
