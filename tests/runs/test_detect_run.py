"""Detector runs: end to end, killed and resumed, in two processes, with and without kept maps, on bad data."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from tests.runs.processes import assert_same_weights, kill_after, step_lines, together

from eyesmith import load, load_detector
from eyesmith.cli.main import main
from eyesmith.data.annotations import open_annotations, truth_hash
from eyesmith.data.annotations.masks import encode_mask
from eyesmith.dense.detect.detector import DetectorConfig
from eyesmith.dense.detect.roi import BoxHeadConfig, MaskHeadConfig
from eyesmith.dense.detect.rpn import RpnConfig
from eyesmith.dense.view import JitterConfig, ViewConfig
from eyesmith.errors import CheckpointError, ConfigError, DataError
from eyesmith.eval.results.rows import read_rows
from eyesmith.hub import save_model
from eyesmith.models.clip import ClipConfig
from eyesmith.models.identity import weights_hash
from eyesmith.optim.config import OptimConfig
from eyesmith.recipes import recipe
from eyesmith.runs.plan import Cluster, plan
from eyesmith.runs.train import resume, start
from eyesmith.runs.work import open_work
from eyesmith.tasks import run_from_dict, run_to_dict
from eyesmith.tasks.detect import Detect, DetectConfig
from eyesmith.train.config import DataConfig, EvalConfig
from eyesmith.train.diagnostics import HealthConfig

NAMES = ("bright square", "dark square", "red square", "green square")
COLOURS = ((240, 240, 240), (10, 10, 10), (220, 20, 20), (20, 200, 20))


def make_set(
    folder: Path, splits: dict[str, tuple[int, ...]], *, count: int = 8, sized: tuple[int, int] = (64, 64)
) -> Path:
    """Grey pictures with one or two squares each, as COCO json; splits: the classes of each."""
    for split, classes in splits.items():
        images, annotations = [], []
        (folder / "images" / split).mkdir(parents=True)
        (folder / "annotations").mkdir(exist_ok=True)
        draw = np.random.default_rng([len(split), count])
        for number in range(count):
            pixels = np.full((*sized, 3), 128, np.uint8)
            for half in range(1 + number % 2):
                label = classes[(number + half) % len(classes)]
                side = int(draw.integers(16, 26))
                x, y = int(draw.integers(0, 6)) + 32 * half, int(draw.integers(0, sized[0] - side))
                pixels[y : y + side, x : x + side] = COLOURS[label]
                mask = np.zeros(sized, np.bool_)
                mask[y : y + side, x : x + side] = True
                runs = encode_mask(mask)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number + 1,
                        "category_id": label + 1,
                        "bbox": [x, y, side, side],
                        "area": side * side,
                        "segmentation": {"size": runs["size"], "counts": runs["counts"].decode()},
                        "iscrowd": 0,
                    }
                )
            Image.fromarray(pixels).save(folder / "images" / split / f"{number}.png")
            images.append({"id": number + 1, "file_name": f"{number}.png", "width": sized[1], "height": sized[0]})
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": place + 1, "name": name} for place, name in enumerate(NAMES)],
        }
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("squares"), {"train": (0, 1, 2), "test": (0, 1, 2, 3)})


@pytest.fixture(scope="module")
def eye(tmp_path_factory: pytest.TempPathFactory, tiny_model: ClipConfig) -> Path:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("eye") / "run"
    save_model(folder, tiny_model.build())
    return folder


@pytest.fixture
def config(data: Path, eye: Path) -> DetectConfig:
    """Two steps an epoch of four pictures."""
    return DetectConfig.from_eye(
        eye,
        name="small",
        head=DetectorConfig(
            width=8,
            num_levels=3,
            has_extra=False,
            rpn=RpnConfig(width=8, num_convs=1, anchor_cells=(5.0,), samples=32, before_nms=30, after_nms=20),
            box=BoxHeadConfig(width=8, num_convs=1, fc_dim=16, finest_px=20.0, samples=16),
            mask=MaskHeadConfig(width=8, num_convs=1, pool=7),
            has_masks=True,
        ),
        view=ViewConfig(side_px=64),
        data=DataConfig(path=str(data), split="train"),
        optim=OptimConfig(peak_lr=3e-3, weight_decay=0.01, clip_norm=5.0),
        health=HealthConfig(ignore=("waiting", "slower", "memory", "no_gradient")),
        batch_size=4,
        epochs=4,
        precision="fp32",
        log_every_steps=1,
        save_every_steps=3,
    )


def test_a_run_ends_as_a_detector_of_other_words_too(
    config: DetectConfig, tmp_path: Path, eye: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = StringIO()
    config = replace(config, eval=EvalConfig(splits=("test",), curve_splits=("test",), every_steps=6))
    start(config, tmp_path / "run", console=Console(file=said, width=200))
    assert "3 classes are learnt from 12 objects in 8 pictures, 1 have none to learn" in said.getvalue()
    rows = read_rows(tmp_path / "run" / "results.jsonl")
    assert {(row.task, row.metric) for row in rows} == {("detect", "ap50"), ("detect", "mask_ap50")}
    assert {row.split for row in rows} == {"base", "novel", "all", "agnostic"}
    assert {row.model for row in rows} == {f"small {source}" for source in ("detector", "dense", "crop")}
    measured = truth_hash(open_annotations(data, split="test"))
    assert {row.run["samples"] for row in rows if row.run} == {measured}
    parts = step_lines(tmp_path / "run")[-1]
    sums = [parts[f"{name}_loss"] for name in ("objectness", "anchors", "classes", "boxes", "masks")]
    assert parts["loss"] == pytest.approx(sum(sums), rel=1e-3)
    finder = load_detector(tmp_path / "run")
    assert finder.names == NAMES[:3]
    picture = data / "images" / "test" / "0.png"
    found = finder(picture)
    assert found.size == (64, 64)
    assert set(found.called) <= set(NAMES[:3])
    other = finder(picture, ["a purple disc", "a dark square"])
    assert other.names == ("a purple disc", "a dark square")
    assert weights_hash(load(tmp_path / "run" / "eye")) == weights_hash(load(eye)), "the eye never trains"
    with pytest.raises(CheckpointError, match="holds a detector; search a picture by `eyesmith detect"):
        load(tmp_path / "run")
    with pytest.raises(CheckpointError, match="holds no detector"):
        load_detector(eye)
    resume(tmp_path / "run")

    export = ["export", str(tmp_path / "run"), str(tmp_path / "onnx")]
    for words, message in (
        (["--raw"], "a detector has its own"),
        (["--to", "onnx_int8"], "a detector is one file, fp32"),
        (["--source", "crop"], "crop"),
    ):
        assert main([*export, *words]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "onnx").exists()
    held = ["eval", str(tmp_path / "run"), str(data), "--splits", "test", "--limit", "4"]
    assert main([*held, "--out", str(tmp_path / "measured.jsonl")]) == 0
    shown = capsys.readouterr()
    assert "located.html" in shown.err
    found_rows = read_rows(tmp_path / "measured.jsonl")
    assert {row.model for row in found_rows} == {f"run {source}" for source in ("detector", "dense", "crop")}
    assert {row.metric for row in found_rows} == {"ap50", "mask_ap50"}
    page = (tmp_path / "located.html").read_text()
    assert page.count("peak memory") == 1
    assert page.count("data:image/webp") == 4
    assert NAMES[3] in page, "a class that was not learnt is looked for"
    assert main(["eval", str(tmp_path / "run"), "cifar10"]) == 2
    assert "expected annotated pictures" in capsys.readouterr().err

    out = tmp_path / "found"
    words = ["detect", str(tmp_path / "run"), str(picture), "--out", str(out), "--source", "crop", "--json"]
    assert main(words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["classes"] == list(NAMES[:3])
    assert Path(answer["images"][0]["overlay"]).is_file()
    content = json.loads((out / "found.json").read_text())
    assert len(content["annotations"]) == len(answer["images"][0]["objects"])
    assert main([*words, "--classes", "green square/a green box,disc"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == ["green square", "disc"]
    assert main([*words, "--crops", "white"]) == 2
    assert "a trained detector has its own" in capsys.readouterr().err
    assert main(["detect", str(eye), str(picture), "--classes", "a,b", "--source", "dense"]) == 2


def test_a_run_killed_with_9_ends_with_the_weights_of_one_never_stopped(config: DetectConfig, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start(config, whole)
    kill_after(config, killed, steps=5)
    resume(killed)
    assert_same_weights(whole, killed)
    assert [line["loss"] for line in step_lines(whole)] == [line["loss"] for line in step_lines(killed)]


@pytest.mark.slow
def test_it_finds_squares_in_pictures_it_never_saw(config: DetectConfig, tmp_path: Path) -> None:
    """On an eye of random weights: proposals, boxes and masks are learnt by the head."""
    data = make_set(tmp_path / "squares", {"train": (0, 1, 2), "test": (0, 1, 2, 3)}, count=48)
    head = replace(config.head, width=24, box=replace(config.head.box, width=16, fc_dim=48, samples=24))
    config = replace(config, head=head, data=DataConfig(path=str(data), split="train"), epochs=14)
    config = replace(config, eval=EvalConfig(splits=("test",)), measures=("detector",), save_every_steps=1000)
    start(config, tmp_path / "run")
    found = {(row.split, row.metric): row.value for row in read_rows(tmp_path / "run" / "results.jsonl")}
    assert found["agnostic", "ap50"] > 0.6
    assert found["agnostic", "mask_ap50"] > 0.4
    assert found["base", "ap50"] > found["novel", "ap50"]


@pytest.mark.slow
def test_two_processes_equal_one(config: DetectConfig, tmp_path: Path) -> None:
    start(config, tmp_path / "one")
    together(replace(config, accumulate=2), tmp_path / "two")
    for one, two in zip(step_lines(tmp_path / "one"), step_lines(tmp_path / "two"), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-3)
        assert one["classes_loss"] == pytest.approx(two["classes_loss"], rel=1e-3)


def test_kept_maps_are_those_of_the_pictures(config: DetectConfig, tmp_path: Path) -> None:
    """Mirrored ones too; half precision is all that differs."""
    kept = open_work(config, tmp_path / "kept", Console(quiet=True))
    asked = open_work(replace(config, keep_seen=False), tmp_path / "asked", Console(quiet=True))
    assert isinstance(kept.task, Detect)
    assert isinstance(asked.task, Detect)
    flips = []
    for step in range(3):
        ours, theirs = kept.batches.batch(step), asked.batches.batch(step)
        assert ours.pixels.numel() == 0
        for name, value in theirs.extra.items():
            assert torch.equal(ours.extra[name], value), name
        flips += ours.extra["flips"].tolist()
        maps, seen = kept.task.maps(ours), asked.task.maps(theirs)
        assert maps.keys() == seen.keys() == {"stage1", "stage2", "stage3"}
        for name, value in seen.items():
            torch.testing.assert_close(maps[name], value, rtol=1e-3, atol=1e-3)
    assert 0 < sum(flips) < len(flips)


def test_windows_jitter_boxes_alone_and_vild(config: DetectConfig, tmp_path: Path) -> None:
    head = replace(config.head, has_masks=False, distill_weight=0.5, background="learned", norm="batch")
    view = ViewConfig(side_px=64, window_px=32)
    jitter = JitterConfig(low=0.5, high=2.0)
    config = replace(config, head=head, view=view, jitter=jitter, keep_seen=False, epochs=1, measures=("dense",))
    config = replace(config, eval=EvalConfig(splits=("test",)))
    start(config, tmp_path / "run")
    assert all(
        {"distill_loss", "boxes_loss"} <= set(line) and "masks_loss" not in line
        for line in step_lines(tmp_path / "run")
    )
    assert {row.metric for row in read_rows(tmp_path / "run" / "results.jsonl")} == {"ap50"}
    found = load_detector(tmp_path / "run")(Image.new("L", (200, 90), 128))
    assert found.size == (90, 200)
    assert found.masks is None


def _edited(data: Path, folder: Path, edit: Any) -> str:
    """The training annotations changed by `edit`, beside the same pictures."""
    content = json.loads((data / "annotations" / "train.json").read_text())
    edit(content)
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").symlink_to(data / "images")
    (folder / "annotations" / "train.json").write_text(json.dumps(content))
    return str(folder)


def test_bad_data_are_named(config: DetectConfig, data: Path, tmp_path: Path) -> None:
    def run(name: str, edit: Any) -> None:
        path = _edited(data, tmp_path / name, edit)
        start(replace(config, data=DataConfig(path=path, split="train"), epochs=1), tmp_path / f"run-{name}")

    with pytest.raises(DataError, match="no picture has a box to learn"):
        run("empty", lambda content: content["annotations"].clear())
    with pytest.raises((DataError, ConfigError), match="(?i)nan|finite"):
        run("nan", lambda content: content["annotations"][0]["bbox"].__setitem__(0, float("nan")))
    with pytest.raises(DataError, match="has_masks=false"):
        run("maskless", lambda content: [one.pop("segmentation") for one in content["annotations"]])
    with pytest.raises(DataError, match="2 of 8 pictures cannot be used; first: no 0.png"):
        run("gone", lambda content: [one.update(file_name=f"no {one['file_name']}") for one in content["images"][:2]])
    run("one", lambda content: [one.update(category_id=1) for one in content["annotations"]])
    assert load_detector(tmp_path / "run-one").names == NAMES[:1]
    run("pixel", lambda content: content["annotations"][0].update(bbox=[5, 5, 1, 1]))


def test_wrong_configs_are_told_before_any_work(config: DetectConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a trained model as the eye"):
        start(replace(config, initial=type(config.initial)()), tmp_path / "run")
    with pytest.raises(ConfigError, match="keep_seen"):
        replace(config, jitter=JitterConfig(low=0.1, high=2.0))
    with pytest.raises(ConfigError, match="no split|split"):
        start(replace(config, eval=EvalConfig(splits=("tset",))), tmp_path / "run")
    with pytest.raises(CheckpointError, match="no text tower"):
        from eyesmith.models.vitamin.model import ViTaminConfig

        encoder = ViTaminConfig(image_size=(32, 32), widths=(8, 8, 8), depths=(1, 1, 1), num_heads=1, embed_dim=0)
        save_model(tmp_path / "encoder", encoder.build())
        DetectConfig.from_eye(tmp_path / "encoder", name="small", data=config.data)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("name", ["detect", "detect-emoji", "detect-scenes", "f-vit-coco", "f-vit-lvis"])
def test_recipes_survive_json(name: str) -> None:
    made = recipe(name)
    assert run_from_dict(run_to_dict(made)) == made


@pytest.mark.parametrize(
    ("name", "view", "windows"),
    [
        ("f-vit-coco", ViewConfig(side_px=896, window_px=336, stride_px=168, off_grid=True), 25),  # the release's
        ("f-vit-coco", None, 25),
        ("f-vit-lvis", ViewConfig(side_px=896, window_px=384, stride_px=192), 16),
        ("f-vit-coco", ViewConfig(side_px=1344, window_px=336, stride_px=112), 100),
    ],
)
def test_plans_count_windows_and_hours(name: str, view: ViewConfig | None, windows: int) -> None:
    made = recipe(name)
    assert isinstance(made, DetectConfig)
    made = made if view is None else replace(made, view=view)
    found = plan(made, Cluster(gpus=8))
    assert any(f"the eye sees {windows} windows" in note for note in found.notes)
    # ViTamin-L at 336 pixels is 163.4 billion multiply-adds
    if made.view.window_px == 336:
        assert found.image_flops > 2 * windows * 163.4e9
        assert found.image_flops < 2 * windows * 163.4e9 * 1.6
    assert found.steps == made.epochs * (made.data.epoch_samples // 64)
    assert found.text_flops is None
    assert 0.5 < found.gpu_hours < 2000


def test_papers_values() -> None:
    coco, lvis = recipe("f-vit-coco"), recipe("f-vit-lvis")
    assert isinstance(coco, DetectConfig)
    assert isinstance(lvis, DetectConfig)
    for run in (coco, lvis):
        assert (run.optim.peak_lr, run.optim.weight_decay, run.optim.clip_norm) == (1e-4, 0.1, 1.0)
        assert (run.optim.warmup_steps, run.batch_size, run.view.side_px) == (250, 64, 896)
        assert (run.jitter.low, run.jitter.high, run.jitter.flip_prob) == (0.1, 2.0, 0.5)
        assert (run.head.rpn.positive, run.head.rpn.negative, run.head.rpn.samples) == (0.7, 0.3, 256)
        assert (run.head.rpn.before_nms, run.head.rpn.after_nms, run.head.rpn.nms) == (2000, 1000, 0.7)
        assert (run.head.box.samples, run.head.box.positive_frac, run.head.box.fc_dim) == (512, 0.25, 768)
        assert run.predict.alpha == 0.1
    assert (coco.epochs, coco.predict.beta, coco.predict.temperature) == (3, 0.8, 75.0)
    assert (coco.predict.floor, coco.predict.nms, coco.predict.per_image) == (0.01, 0.4, 100)
    assert (lvis.epochs, lvis.predict.beta, lvis.predict.temperature) == (48, 0.4, 50.0)
    assert (lvis.predict.floor, lvis.predict.nms, lvis.predict.per_image) == (1e-4, 0.5, 300)
    assert (coco.head.box.background_weight, lvis.head.box.background_weight) == (0.6, 0.9)
    steps = 48 * 1565
    rates = [lvis.optim.lr_at(step, steps) for step in (300, 31 * 1565, 33 * 1565, 45 * 1565)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-6])


@pytest.mark.parametrize("form", ["coco", "yolo"])
def test_own_boxes_become_a_detector_in_two_commands(
    form: str, data: Path, eye: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twenty pictures in either form."""
    made = make_set(tmp_path / "coco", {"train": (0, 1)}, count=20)
    own = made / "annotations" / "train.json"
    if form == "yolo":
        assert main(["data", "convert", str(own), str(tmp_path / "yolo"), "--to", "yolo"]) == 0
        own = tmp_path / "yolo"
    fields = [f"data.path={own}", "epochs=1", "view.side_px=64", "head.rpn.samples=32", "head.box.samples=16"]
    assert main(["train", "detect", "--from", str(eye), "--out", str(tmp_path / "run"), *fields]) == 0
    capsys.readouterr()
    picture = data / "images" / "train" / "0.png"
    assert main(["detect", str(tmp_path / "run"), str(picture), "--out", str(tmp_path / "out"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["classes"] == list(NAMES[:2])
    with Image.open(answer["images"][0]["overlay"]) as overlay:
        assert overlay.width == overlay.height >= 64  # small pictures are drawn larger
