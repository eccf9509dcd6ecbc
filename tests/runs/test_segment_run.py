"""Segmenter runs: end to end, killed and resumed, in two processes, kept or asked, with any eye and words."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from tests.runs.processes import assert_same_weights, kill_after, step_lines, together

from eyesmith import load, load_segmenter
from eyesmith.cli.main import main
from eyesmith.data.make.scenes import make_scenes
from eyesmith.dense.segment.head import SegmentHeadConfig
from eyesmith.dense.segment.inference import PanopticRule
from eyesmith.dense.segment.losses import MaskLossConfig
from eyesmith.dense.segment.picture_segmenter import SegmentPredictConfig
from eyesmith.dense.segment.pmt import PmtConfig
from eyesmith.dense.view import JitterConfig, ViewConfig
from eyesmith.errors import CheckpointError, ConfigError, DataError
from eyesmith.eval.results.rows import read_rows
from eyesmith.hub import save_model
from eyesmith.images.transforms import PreprocessConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.identity import weights_hash
from eyesmith.models.text import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.optim.config import OptimConfig
from eyesmith.recipes import recipe
from eyesmith.runs.plan import Cluster, plan
from eyesmith.runs.train import resume, start
from eyesmith.tasks import run_from_dict, run_to_dict
from eyesmith.tasks.segment import SegmentConfig
from eyesmith.train.config import DataConfig, EvalConfig, ParallelConfig
from eyesmith.train.diagnostics import HealthConfig

EYE = ClipConfig(
    name="small",
    image=ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 2), num_heads=2, embed_dim=16),
    text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16).of_bytes(),
    preprocess=PreprocessConfig(image_size=(32, 32)),
    prompts=("{}", "a {}"),
)
HEAD = SegmentHeadConfig(
    decoder=PmtConfig(width=16, num_heads=2, num_blocks=2, num_queries=6, mlp_ratio=2.0),
    loss=MaskLossConfig(num_points=64),
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "made"
    make_scenes(folder, samples=16, size_px=64)
    return folder


@pytest.fixture(scope="module")
def eye(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("eye") / "run"
    save_model(folder, EYE.build())
    return folder


@pytest.fixture
def config(scenes: Path, eye: Path) -> SegmentConfig:
    """Four steps an epoch of four pictures with all their masks."""
    return SegmentConfig.from_eye(
        eye,
        name="small",
        head=HEAD,
        view=ViewConfig(side_px=64),
        predict=SegmentPredictConfig(source="crop", rule=PanopticRule(void="half"), crops=3),
        data=DataConfig(path=str(scenes), split="train"),
        optim=OptimConfig(peak_lr=3e-3, weight_decay=0.0, clip_norm=1.0),
        health=HealthConfig(ignore=("waiting", "slower", "memory", "no_gradient")),
        batch_size=4,
        epochs=3,
        precision="fp32",
        log_every_steps=1,
        save_every_steps=3,
        test_pictures=6,
        curve_pictures=3,
    )


def test_a_run_ends_as_a_segmenter_that_finds_other_words(
    config: SegmentConfig, tmp_path: Path, eye: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = StringIO()
    config = replace(config, eval=EvalConfig(splits=("test", "unseen_combination"), curve_splits=("test",)))
    start(config, tmp_path / "run", console=Console(file=said, width=200))
    assert "parameters train" in said.getvalue()
    rows = read_rows(tmp_path / "run" / "results.jsonl")
    assert {row.task for row in rows} == {"segment"}
    assert {row.model for row in rows} == {"small head", "small dense", "small crop"}
    pairs = {(row.split, row.metric) for row in rows if row.model == "small crop"}
    assert {("all", "pq"), ("all", "miou"), ("base", "pq"), ("agnostic", "pq")} <= pairs
    assert ("unseen_combination:novel", "pq") in pairs
    assert all(0 <= row.value <= 1 for row in rows)
    steps = step_lines(tmp_path / "run")
    for line in steps:
        assert line["class_loss"] + line["mask_loss"] + line["dice_loss"] == pytest.approx(line["loss"], rel=1e-4)
    assert steps[-1]["loss"] < steps[0]["loss"]
    segmenter = load_segmenter(tmp_path / "run")
    assert weights_hash(load(tmp_path / "run" / "eye")) == weights_hash(load(eye)), "the eye never trains"
    picture = Image.new("L", (50, 41), 200)
    found = segmenter(picture)
    assert found.names == segmenter.names
    assert found.panoptic.ids.shape == (41, 50)
    other = segmenter(picture, ["a cat", "a dog"])
    assert other.names == ("a cat", "a dog")
    assert other.semantic().max() <= 1
    assert not segmenter.seen.any()
    with pytest.raises(CheckpointError, match="holds a segmenter; outline things"):
        load(tmp_path / "run")
    with pytest.raises(CheckpointError, match="holds no segmenter"):
        load_segmenter(eye)
    resume(tmp_path / "run")

    # measured again by itself it reaches what the run said, and a page shows what of
    capsys.readouterr()
    measured = ["eval", str(tmp_path / "run"), config.data.path, "--splits", "test", "--label", "small"]
    assert main([*measured, "--out", str(tmp_path / "measured.jsonl")]) == 0
    assert "located.html" in capsys.readouterr().err
    again = {(row.model, row.split, row.metric): row for row in read_rows(tmp_path / "measured.jsonl")}
    before = {(row.model, row.split, row.metric): row for row in rows if ":" not in row.split}
    assert again.keys() == before.keys()
    for key, row in again.items():
        assert row.value == pytest.approx(before[key].value, abs=1e-6), key
        assert row.run is not None
        assert before[key].run is not None
        assert (row.run["weights"], row.run["eye"]) == (before[key].run["weights"], before[key].run["eye"])
    page = (tmp_path / "located.html").read_text()
    assert "all, PQ" in page
    assert "lowest mask AP50" in page
    assert 'class="shape mask"' in page
    assert main([*measured, "--precision", "bf16"]) == 2
    assert "precision: a segmenter has its own" in capsys.readouterr().err


def test_a_run_killed_with_9_ends_with_the_weights_of_one_never_stopped(config: SegmentConfig, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start(config, whole)
    kill_after(config, killed, steps=5)
    resume(killed)
    assert_same_weights(whole, killed)
    assert [line["loss"] for line in step_lines(whole)] == [line["loss"] for line in step_lines(killed)]


@pytest.mark.slow
def test_two_processes_equal_one(config: SegmentConfig, tmp_path: Path) -> None:
    start(config, tmp_path / "one")
    shared = replace(config, parallel=ParallelConfig(strategy="ddp"), accumulate=2)
    together(shared, tmp_path / "two")
    for one, two in zip(step_lines(tmp_path / "one"), step_lines(tmp_path / "two"), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-3)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-2, atol=1e-3, msg=name)


def test_parts_of_a_batch_add_up_to_it(config: SegmentConfig, tmp_path: Path) -> None:
    start(config, tmp_path / "whole")
    start(replace(config, accumulate=4), tmp_path / "parts")
    for one, two in zip(step_lines(tmp_path / "whole")[:4], step_lines(tmp_path / "parts")[:4], strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-3)


def test_what_the_eye_says_may_be_kept_or_asked_each_time(config: SegmentConfig, tmp_path: Path) -> None:
    """Half precision is all that differs, for pictures that are mirrored too."""
    start(config, tmp_path / "kept")
    start(replace(config, keep_seen=False), tmp_path / "asked")
    for one, two in zip(step_lines(tmp_path / "kept")[:4], step_lines(tmp_path / "asked")[:4], strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=5e-3)


def test_windows_jitter_and_fc_clips_decoder_train(config: SegmentConfig, tmp_path: Path) -> None:
    ensure_torchvision()
    pytest.importorskip("transformers")
    from eyesmith.dense.segment.fcclip import FcClipConfig

    decoder = FcClipConfig(
        width=32, num_heads=2, num_queries=5, num_layers=2, pixel_layers=1, pixel_hidden=16, hidden=16
    )
    run = replace(
        config,
        head=replace(HEAD, decoder=decoder),
        view=ViewConfig(side_px=64, window_px=32, stride_px=32),
        test_stride_px=16,
        jitter=JitterConfig(low=0.5, high=2.0),
        keep_seen=False,
        epochs=1,
    )
    assert run_from_dict(json.loads(json.dumps(run_to_dict(run)))) == run
    start(run, tmp_path / "run")
    assert len(step_lines(tmp_path / "run")) == 4
    segmenter = load_segmenter(tmp_path / "run")
    assert segmenter.view.stride_px == 16
    assert segmenter(Image.new("RGB", (64, 64), "red")).panoptic.ids.shape == (64, 64)


def test_another_eye_is_one_argument(config: SegmentConfig, tmp_path: Path) -> None:
    """A plain ViT whose maps all have one stride; the text vectors follow."""
    torch.manual_seed(2)
    from eyesmith.models.foreign.timm import TimmConfig

    pytest.importorskip("timm")
    image = TimmConfig(model_name="vit_tiny_patch16_224", image_size=(32, 32), embed_dim=16)
    save_model(tmp_path / "vit", replace(EYE, image=image, name="vit").build())
    other = SegmentConfig.from_eye(
        tmp_path / "vit",
        **{name: getattr(config, name) for name in ("name", "head", "view", "data", "optim", "health", "batch_size")},
        measures=("head", "crop"),
        predict=config.predict,
        epochs=0.25,
    )
    start(other, tmp_path / "run")
    assert load_segmenter(tmp_path / "run")(Image.new("RGB", (64, 64))).panoptic is not None


def test_bad_data_are_told_before_any_work(config: SegmentConfig, tmp_path: Path, scenes: Path) -> None:
    with pytest.raises(ConfigError, match="expected a trained model as the eye"):
        start(replace(config, initial=type(config.initial)()), tmp_path / "run")
    with pytest.raises(ConfigError, match="keep_seen"):
        replace(config, jitter=JitterConfig(low=0.5, high=2.0))
    with pytest.raises(ConfigError, match="test_stride_px"):
        replace(config, test_stride_px=16)
    with pytest.raises((ConfigError, DataError), match="split"):
        start(replace(config, eval=EvalConfig(splits=("nowhere",))), tmp_path / "run")
    coco = tmp_path / "coco"
    coco.mkdir()
    Image.new("RGB", (40, 30)).save(coco / "one.png")
    base: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "one.png", "width": 40, "height": 30}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}],
    }
    for number, (change, message) in enumerate(
        (
            ({}, "has boxes without masks"),
            ({"segmentation": {"size": [30, 40], "counts": [5, 3]}}, "run lengths count 8 pixels"),
            ({"segmentation": [[1, 1, float("nan"), 1, 9, 9]]}, "finite"),
        )
    ):
        annotations = [base["annotations"][0] | change]
        (coco / "marks.json").write_text(json.dumps(base | {"annotations": annotations}))
        data = DataConfig(path=str(coco / "marks.json"))
        with pytest.raises(DataError, match=message):
            start(replace(config, data=data, batch_size=1, keep_seen=False), tmp_path / f"bad{number}")
    (coco / "marks.json").write_text(json.dumps(base | {"annotations": []}))
    with pytest.raises(DataError, match="no picture has a box to learn"):
        start(replace(config, data=DataConfig(path=str(coco / "marks.json")), batch_size=1), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_one_class_one_pixel_and_a_grey_picture_are_ordinary(config: SegmentConfig, tmp_path: Path) -> None:
    coco = tmp_path / "coco"
    coco.mkdir()
    Image.new("L", (40, 30), 90).save(coco / "one.png")
    runs = [0, 1, 1199]
    one = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0}
    marks = {
        "images": [{"id": 1, "file_name": "one.png", "width": 40, "height": 30}],
        "categories": [{"id": 1, "name": "speck"}],
        "annotations": [one | {"segmentation": {"size": [30, 40], "counts": runs}}],
    }
    (coco / "marks.json").write_text(json.dumps(marks))
    run = replace(config, data=DataConfig(path=str(coco / "marks.json")), batch_size=1, epochs=2)
    start(run, tmp_path / "run")
    assert all(line["loss"] == line["loss"] for line in step_lines(tmp_path / "run"))
    assert load_segmenter(tmp_path / "run").names == ("speck",)


@pytest.mark.parametrize("name", ["segment", "segment-emoji", "segment-scenes", "fc-clip-coco"])
def test_recipes_survive_json(name: str) -> None:
    made = recipe(name)
    assert run_from_dict(json.loads(json.dumps(run_to_dict(made)))) == made


def test_fc_clip_is_planned_with_its_published_numbers() -> None:
    made: Any = recipe("fc-clip-coco")
    planned = plan(made, Cluster(gpus=8))
    assert planned.steps == 368_750
    assert {part.part: part.trained > 0 for part in planned.parts} == {"image": False, "head": True}
    assert any("16 windows of 336 px of a picture of 1344 px" in note for note in planned.notes)
    assert planned.image_flops > 2 * 16 * 163e9, "of the eye alone, of which one window is 163.4 GMACs"
    assert (made.view.side_px, made.view.window_px, made.view.stride_px, made.test_stride_px) == (1344, 336, 336, 112)
    assert (made.optim.peak_lr, made.optim.weight_decay, made.optim.clip_norm) == (1e-4, 0.05, 0.01)
    assert made.optim.lr_at(0, 368_750) == pytest.approx(1e-4)
    assert made.optim.lr_at(327_779, 368_750) == pytest.approx(1e-5)
    assert made.optim.lr_at(355_093, 368_750) == pytest.approx(1e-6)
    assert (made.predict.alpha, made.predict.beta) == (0.45, 0.7)
    assert (made.head.loss.num_points, made.head.decoder.num_queries) == (12_544, 250)


def test_pictures_that_are_never_mirrored_train_and_their_maps_serve_no_other_run(
    config: SegmentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))
    config = replace(config, epochs=1)
    start(replace(config, jitter=replace(config.jitter, flip_prob=0.0)), tmp_path / "still")
    assert len(step_lines(tmp_path / "still")) == 4
    start(config, tmp_path / "after")
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "other"))
    start(config, tmp_path / "alone")
    one, two = ([step["loss"] for step in step_lines(tmp_path / name)] for name in ("after", "alone"))
    assert one == two
