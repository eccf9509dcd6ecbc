"""Scenes with boxes as a task: boxes follow what happens to pixels, the loss is that of a loop, runs can be stopped."""

import shutil
import tarfile
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from safetensors.torch import load_file

from eyesmith.data.loader import Batch, Loader
from eyesmith.data.make.scenes import make_scenes
from eyesmith.dense.named_boxes import scene_boxes
from eyesmith.dense.regions import crop_boxes
from eyesmith.errors import ConfigError, DataError
from eyesmith.images import PreprocessConfig, open_image
from eyesmith.images.augment import AugmentConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.optim.config import OptimConfig
from eyesmith.runs.train import resume, start
from eyesmith.runs.work import Interrupted
from eyesmith.tasks.regions import Regions, RegionsConfig, SceneRows, Seen
from eyesmith.tasks.task import RunContext
from eyesmith.train.config import DataConfig, EvalConfig
from eyesmith.train.distributed import World
from eyesmith.train.loop import StopSignal


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    make_scenes(folder, samples=12, size_px=64)
    return folder


@pytest.fixture
def config(scenes: Path) -> RegionsConfig:
    """Few shapes; they serve as the single drawings too."""
    image = ViTaminConfig(
        image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 2), num_heads=2, embed_dim=16, drop_path_prob=0.0
    )
    return RegionsConfig(
        model=ClipConfig(
            name="tiny",
            image=image,
            text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16, context_len=16),
            preprocess=PreprocessConfig(image_size=(32, 32)),
            lock_text=True,
        ),
        data=DataConfig(path=str(scenes), split="train", decode_px=40),
        drawings=str(scenes),
        scene_px=64,
        scene_augment=AugmentConfig(horizontal_flip_prob=0.5),
        crop_jitter=0.0,
        drawings_per_scene=1,
        dense_every=2,
        distill_weight=0.5,
        dense_weight=2.0,
        optim=OptimConfig(peak_lr=1e-3),
        eval=EvalConfig(),
        batch_size=4,
        epochs=1,
        precision="fp32",
        seed=3,
    )


def batch_of(config: RegionsConfig, tmp_path: Path, step: int, world: World | None = None) -> tuple[Regions, Batch]:
    torch.manual_seed(config.seed)
    rows = Regions.open_rows(config, world or World())
    context = RunContext(folder=tmp_path, world=World(), console=Console(quiet=True))
    task = Regions.build(config, rows, context)
    batches = Loader(rows, prepare=task.prepare)
    try:
        return task, batches.batch(step)
    finally:
        batches.close()


def test_boxes_turn_with_their_scenes(config: RegionsConfig, tmp_path: Path) -> None:
    task, batch = batch_of(config, tmp_path, 0)
    plain = batch_of(replace(config, scene_augment=AugmentConfig()), tmp_path, 0)[1]
    flips = batch.extra["flips"]
    assert flips.any()
    assert not flips.all()
    assert torch.equal(batch.pixels, plain.pixels)
    turned = torch.where(flips[:, None, None, None], batch.pixels.flip(3), batch.pixels)
    for row, there in enumerate(batch.extra["classes"] >= 0):
        images = torch.full((int(there.sum()),), row)
        ours = crop_boxes(turned, batch.extra["boxes"][row][there], images, (16, 16), context=1.0)
        theirs = crop_boxes(plain.pixels, plain.extra["boxes"][row][there], images, (16, 16), context=1.0)
        theirs = theirs.flip(3) if flips[row] else theirs
        assert (ours.int() - theirs.int()).abs().float().mean() < 0.5
    names = [task._rows.names[label] for label in batch.extra["classes"][0].tolist() if label >= 0]
    assert names == [one["name"] for one in task._rows.source[int(batch.indices[0])].meta["objects"]]


def test_scenes_of_several_sizes_keep_their_boxes(config: RegionsConfig, tmp_path: Path) -> None:
    shutil.copytree(config.data.path, tmp_path / "both")
    make_scenes(tmp_path / "large", samples=12, size_px=128)
    for place, shard in enumerate(sorted((tmp_path / "large" / "train").glob("*.tar"))):
        with (
            tarfile.open(shard) as old,
            tarfile.open(tmp_path / "both" / "train" / f"{900 + place:06}.tar", "w") as new,
        ):
            for member in old:
                content = old.extractfile(member)
                member.name = f"large-{member.name}"
                new.addfile(member, content)
    rows = SceneRows(replace(config, data=replace(config.data, path=str(tmp_path / "both"))), World())
    sizes = set()
    for index in range(len(rows.source)):
        boxes = scene_boxes(rows.source, index).boxes
        side = open_image(rows.source.image_bytes(index), where="scene").width
        torch.testing.assert_close(rows.boxes[index, : len(boxes)] * side, boxes)
        sizes.add(side)
    rows.close()
    assert sizes == {64, 128}


def test_the_loss_is_the_weighted_mean_over_all_views(config: RegionsConfig, tmp_path: Path) -> None:
    task, batch = batch_of(config, tmp_path, 1)
    batch = batch.with_extra({})
    clip = task.model
    seen = task.outputs(task.module(), batch)
    loss = float(task.terms(seen, batch).detach().sum() / task.num_terms(batch))
    pixels = torch.where(batch.extra["flips"][:, None, None, None], batch.pixels.flip(3), batch.pixels)
    names = task._names[:, int(batch.extra["caption"][0])]
    view = clip.image.at_size(64, 64)
    total, weight = 0.0, 0.0

    def told(feature: torch.Tensor, label: int) -> float:
        logits = clip.logit_scale.exp() * F.normalize(feature, dim=-1) @ names.mT
        return float(F.cross_entropy(logits[None], torch.tensor([label])))

    with torch.no_grad():
        for row in range(len(batch)):
            for box, label in zip(batch.extra["boxes"][row], batch.extra["classes"][row].tolist(), strict=True):
                if label < 0:
                    continue
                cut = crop_boxes(pixels, box[None], torch.tensor([row]), (32, 32))
                near = clip.image(cut)[0]
                total, weight = total + told(near, label), weight + 1
                if row % 2 == 0:
                    cells = view.dense(pixels[row][None])[0].repeat_interleave(16, 1).repeat_interleave(16, 2)
                    x0, y0, x1, y1 = (round(edge) for edge in box.tolist())
                    far = clip.image.project(cells[:, y0:y1, x0:x1].mean(dim=(1, 2))[None])[0]
                    total, weight = total + 2 * told(far, label), weight + 2
                    total += 0.5 * (1 - float(F.cosine_similarity(far, near, dim=0)))
            drawing, label = batch.extra["drawings"][row, 0], int(batch.extra["drawing_classes"][row, 0])
            total, weight = total + told(clip.image(drawing[None])[0], label), weight + 1
    assert loss == pytest.approx(total / weight, rel=1e-4)


def test_boxes_of_the_map_may_be_learnt_alone_also_in_parts_without_a_whole_scene(
    config: RegionsConfig, tmp_path: Path
) -> None:
    alone = replace(config, drawings="", drawings_per_scene=0, crop_weight=0.0, distill_weight=0.0)
    gradients = []
    for num_parts in (1, 4):  # each second scene is seen whole, so of four parts two have nothing to tell
        task, batch = batch_of(alone, tmp_path, 0)
        model = task.module()
        for part in batch.parts(num_parts):
            task.terms(task.outputs(model, part), part).sum().backward()
        named = task.model.image.named_parameters()
        gradients.append({name: torch.zeros(()) if one.grad is None else one.grad for name, one in named})
    assert any(value.any() for value in gradients[0].values())
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value.expand_as(gradients[1][name]), rtol=1e-3, atol=1e-5)
    start(replace(alone, accumulate=4), tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_an_epoch_has_the_samples_that_are_stated(config: RegionsConfig) -> None:
    rows = SceneRows(replace(config, data=replace(config.data, epoch_samples=40)), World())
    rows.close()
    assert rows.steps_per_epoch == 10


def test_distilling_pulls_the_map_and_not_the_crop(config: RegionsConfig, tmp_path: Path) -> None:
    alone = replace(config, dense_weight=1.0, crop_weight=0.0, drawing_weight=0.0, distill_weight=1.0)
    task, _ = batch_of(alone, tmp_path, 0)
    dense, crop = torch.randn(3, 16, requires_grad=True), torch.randn(3, 16, requires_grad=True)
    some = torch.zeros(0, 16), torch.zeros(0, dtype=torch.int64)
    labels, scale = torch.tensor([0, 1, 2]), torch.tensor(1.0)
    seen = Seen(dense, labels, crop, labels, torch.arange(3), *some, torch.randn(5, 16), scale)
    task.terms(seen, None).sum().backward()  # pyright: ignore[reportArgumentType]
    assert dense.grad is not None
    assert crop.grad is None


def test_two_processes_prepare_what_one_does(config: RegionsConfig, tmp_path: Path) -> None:
    _, whole = batch_of(config, tmp_path, 2)
    parts = [batch_of(config, tmp_path, 2, World(rank=rank, size=2))[1] for rank in range(2)]
    assert torch.equal(whole.pixels, torch.cat([part.pixels for part in parts]))
    for name, value in whole.extra.items():
        assert torch.equal(value, torch.cat([part.extra[name] for part in parts])), name


def test_a_stopped_run_ends_as_one_never_stopped(
    config: RegionsConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = replace(config, epochs=2, save_every_steps=2)
    start(run, tmp_path / "whole")
    asked = count()
    monkeypatch.setattr(StopSignal, "__call__", lambda _: next(asked) >= 3)
    with pytest.raises(Interrupted):
        start(run, tmp_path / "stopped")
    monkeypatch.undo()
    resume(tmp_path / "stopped")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_boxes_are_measured_by_both_ways(
    config: RegionsConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eyesmith.tasks.regions.CURVE_PICTURES", 3)
    task, _ = batch_of(replace(config, eval=EvalConfig(curve_splits=("test",))), tmp_path, 0)
    curve = task.curve(RunContext(folder=tmp_path, world=World(), console=Console(quiet=True)), ())
    assert curve is not None
    found = curve(task.model)
    assert set(found) == {f"test/{way}_acc{k}" for way in ("dense", "crop") for k in (1, 5)}
    assert all(0 <= value <= 1 for value in found.values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scene_augment": AugmentConfig(rotation_degrees=5)}, "only colours"),
        ({"dense_weight": 0.0, "crop_weight": 0.0, "drawing_weight": 0.0}, "not all 0"),
        ({"captions": ("a thing",)}, "with {} for the name"),
        ({"crop_jitter": 0.5}, "crop_jitter"),
        ({"dense_every": 0}, "dense_every"),
        ({"eval": EvalConfig(suites=("retrieval",), suite_data="sets")}, "eval.suites: .*leave it out"),
    ],
)
def test_settings_that_cannot_be_are_refused(config: RegionsConfig, changes: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(config, **changes)


def test_models_and_data_that_do_not_fit_are_named(config: RegionsConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lock_text"):
        replace(config, model=replace(config.model, lock_text=False))
    with pytest.raises(ConfigError, match="drop_path_prob"):
        replace(config, model=replace(config.model, image=replace(config.model.image, drop_path_prob=0.1)))
    with pytest.raises(DataError, match="a step takes 4000"):
        batch_of(replace(config, drawings_per_scene=1000), tmp_path, 0)


def test_a_set_to_measure_on_that_is_not_there_stops_a_run_before_it_trains(
    config: RegionsConfig, tmp_path: Path
) -> None:
    missing = replace(config, eval=EvalConfig(curve_data=(str(tmp_path / "emoji"),)))
    with pytest.raises(DataError, match=r"^eval\.curve_data: .*emoji: no such file or folder$"):
        batch_of(missing, tmp_path, 0)
