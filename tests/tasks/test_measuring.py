"""Measuring is shared by the processes of a run, and finds what one process finds."""

import json
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import measuring_process as process
import pytest
import torch
from test_sharding import start_processes

from eyesmith.data.make.scenes import make_scenes
from eyesmith.eval import read_rows
from eyesmith.hub import save_model
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.runs.train import start
from eyesmith.tasks.classify import ClassifyConfig
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.tasks.masked import MaskedConfig
from eyesmith.train.config import DataConfig, EvalConfig, RunConfig
from eyesmith.train.distributed import World
from eyesmith.train.teacher import TargetConfig

TRV = Eva02Config(image_size=(32, 32), patch_px=8, width=16, depth=1, num_heads=1, hidden_dim=24, embed_dim=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled scenes with captions; of those to measure on, more than two batches, one is broken."""
    root = tmp_path_factory.mktemp("data") / "scenes"
    make_scenes(root, samples=200, size_px=32)
    shard = root / "test" / "0.tar"
    with tarfile.open(shard) as tar:
        broken = [one for one in tar if one.name.endswith(".png")][70]
    with shard.open("r+b") as stream:
        stream.seek(broken.offset_data)
        stream.write(bytes(broken.size))
    return root


@pytest.fixture(scope="module")
def configs(data: Path, config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunConfig]:
    """A run of every task, of two steps."""
    teacher = tmp_path_factory.mktemp("teacher") / "clip"
    torch.manual_seed(9)
    save_model(teacher, config.model.build().eval())
    plain = {
        "data": DataConfig(path=str(data), split="train", decode_px=40),
        "optim": replace(config.optim, ema_decay=0.0),
        "batch_size": 4,
        "epochs": 0.04,
        "precision": "fp32",
    }
    clip = replace(
        config,
        eval=EvalConfig(splits=("test",), curve_splits=("test",), curve_tasks=("zero_shot", "retrieval_label")),
        **plain,
    )
    split = EvalConfig(splits=("test",), curve_splits=("test",))
    target = TargetConfig(teacher=str(teacher), match="features")
    return {
        "contrastive": clip,
        "locked": replace(clip, model=replace(clip.model, lock_text=True)),
        "masked": MaskedConfig(name="m", model=TRV, target=target, eval=split, **plain),
        "pixels": MaskedConfig(name="p", model=TRV, target=TargetConfig(kind="pixels"), eval=split, **plain),
        "classify": ClassifyConfig(
            name="c", model=TRV, eval=split, **{**plain, "data": DataConfig(path=str(data), split="train")}
        ),
    }


def _unmeasured(run: Path) -> None:
    """As a run whose processes were killed when its model had been saved."""
    (run / "results.jsonl").unlink()
    lines = (run / "log.jsonl").read_text().splitlines(keepends=True)
    (run / "log.jsonl").write_text("".join(line for line in lines if '"end"' not in line))


def test_two_processes_measure_what_one_does_and_share_the_images(
    tmp_path: Path, configs: Mapping[str, RunConfig]
) -> None:
    for name, config in configs.items():
        start(config, tmp_path / "one" / name)
        shutil.copytree(tmp_path / "one" / name, tmp_path / "two" / name)
        _unmeasured(tmp_path / "two" / name)
    runs = [str(tmp_path / "two" / name) for name in configs]
    processes = start_processes([str(Path(process.__file__)), *runs], 2)
    try:
        assert [one.wait(timeout=300) for one in processes] == [0, 0]
    finally:
        for one in processes:
            one.kill()
    for name in configs:
        one, two = tmp_path / "one" / name, tmp_path / "two" / name
        rows = read_rows(two / "results.jsonl")
        assert rows == read_rows(one / "results.jsonl"), name
        ranks = [json.loads((two / f"rank{rank}.json").read_text()) for rank in range(2)]
        num_images = next(row.n for row in rows if row.metric in ("acc1", "cosine", "explained"))
        read = [rank["read"] for rank in ranks]
        assert min(read) >= 128, name
        assert sum(read) - num_images in (0, 1), name  # with the broken one
        alone = process.while_training(one, World())
        assert alone, name
        assert [rank["while_training"] for rank in ranks] == [alone, alone], name
