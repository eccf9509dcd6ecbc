import json
from pathlib import Path

import pytest
import torch

from eyesmith.data.make.scenes import make_scenes
from eyesmith.hub import save_model
from eyesmith.models.cost import encoder_cost
from eyesmith.models.registry import create_encoder, encoder_config


def test_a_plan_is_printed_and_nothing_is_run(eyesmith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("--plan", "--plan.gpus", "4", "--plan.mfu=0.5", "plan.peak_tflops=312", "data.epoch_samples=64000")
    status, out, err = eyesmith("train", "debug", *words, "epochs=2")
    assert (status, err) == (0, "")
    assert "1,000 steps of 128 pairs (32 a GPU): 128,000 pairs, 2 x 64,000" in out
    assert "0.5 of 312 TFLOP/s" in out
    assert "fits into 80 GiB" in out
    assert list(tmp_path.iterdir()) == []


def test_a_plan_as_json(eyesmith) -> None:
    status, out, _ = eyesmith("train", "debug", "--plan", "--json", "data.epoch_samples=64000", "--plan.gpus=1")
    content = json.loads(out)
    assert status == 0
    assert (content["steps"], content["cluster"]["gpus"], content["strategy"]) == (1000, 1, "none")
    assert len(content["rates"]) == 10


def test_factors_of_layers_are_shown(eyesmith) -> None:
    words = ("data.epoch_samples=64000", "optim.layer_decay=0.5", "optim.freeze=text.*")
    _, out, _ = eyesmith("train", "debug", "--plan", *words)
    assert "factors on the rate" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--plan.gpus", "4"), "go with --plan"),
        (("--json",), "go with --plan"),
        (("--plan", "--plan.gpu", "4"), "did you mean gpus"),
        (("--plan", "--plan.mfu"), "--plan.mfu: expected a value"),
        (("--plan", "plan.mfu=2"), "plan.mfu: expected above 0 and up to 1"),
        (("--plan", "optim.freeze=txt.*", "data.epoch_samples=64000"), "optim.freeze: no parameter fits"),
        (("--plan",), "data.epoch_samples"),
        (("--from", "nowhere"), "no such run folder"),
    ],
)
def test_a_mistake_is_said(eyesmith, tmp_path: Path, monkeypatch, words: tuple[str, ...], says: str) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = eyesmith("train", "debug", *words)
    assert status == 2
    assert says in err


def test_recipes_are_listed_by_what_they_are_for(eyesmith) -> None:
    status, out, _ = eyesmith("train", "--help")
    assert status == 0
    for name in ("finetune", "vitamin-s-128m", "vitamin-b-ltt-1280m", "vitamin-xl-40b", "convnext-xl-512m"):
        assert name in out
    assert max(map(len, out.splitlines())) <= 130


def test_weights_bring_their_model(eyesmith, run_folder: Path) -> None:
    words = ("--from", run_folder, "--plan", "--json", "data.epoch_samples=2560")
    status, out, _ = eyesmith("train", "finetune", *words)
    assert (status, json.loads(out)["model"]) == (0, "ViTamin-Nano")


def test_models_are_averaged(eyesmith, run_folder: Path, photos: Path, tmp_path: Path) -> None:
    status, out, _ = eyesmith("average", tmp_path / "mean", run_folder, run_folder, "--data", photos, "--json")
    content = json.loads(out)
    assert (status, content["score"]) == (0, content["tried"][0]["score"])
    assert eyesmith("verify", tmp_path / "mean")[0] == 0
    assert eyesmith("average", tmp_path / "mean", run_folder, run_folder)[2].endswith("choose another folder\n")
    for words, says in (
        ((run_folder,), "2 or more"),
        ((run_folder, run_folder, "--method", "greedy"), "needs data"),
        ((run_folder, run_folder, "--method", "wise_ft", "--alpha", "0.2", "0.4"), "several and data"),
        ((run_folder, run_folder, run_folder, "--method", "wise_ft"), "expected 2 models"),
    ):
        status, _, err = eyesmith("average", tmp_path / "other", *words)
        assert status == 2
        assert says in err
    status, out, _ = eyesmith(
        "average", tmp_path / "w", run_folder, run_folder, "--method", "wise_ft", "--alpha", "0.2"
    )
    assert status == 0
    assert "at 0.2" in out


def test_the_teacher_of_masked_images_is_read_from_its_folder(eyesmith, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_model(tmp_path / "teacher", create_encoder("trv_nano_48"))
    (tmp_path / "teacher" / "model.safetensors").write_bytes(b"")  # its config is enough
    words = ("--plan", "--plan.gpus=1", "data.epoch_samples=640")
    _, out, _ = eyesmith("train", "mim-nano", *words, f"target.teacher={tmp_path / 'teacher'}")
    (row,) = [line.split() for line in out.splitlines() if line.startswith("teacher  ")]
    assert row[1:] == ["0", "0", f"{encoder_cost(encoder_config('trv_nano_48')).tower.params:,}"]
    assert "teacher weights" in out
    assert "its teacher" in out


@pytest.mark.parametrize("name", ["ViT/16", "ConvNeXt", "ViT-Nano"])
def test_a_run_takes_another_encoder_by_its_name(eyesmith, tmp_path: Path, name: str) -> None:
    make_scenes(tmp_path / "scenes", samples=8, size_px=64)
    words = (f"data.path={tmp_path / 'scenes'}", "data.epoch_samples=640", "--plan", "--json")
    _, own, _ = eyesmith("train", "scenes-eye", *words)
    status, other, _ = eyesmith("train", "scenes-eye", "--encoder", name, *words)
    sizes = [json.loads(out)["parts"][0]["trained"] for out in (own, other)]
    assert status == 0
    assert sizes[0] != sizes[1]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


def test_another_encoder_is_in_an_image_text_model_too(eyesmith) -> None:
    _, out, _ = eyesmith("train", "debug", "--encoder=TrV-Nano", "data.epoch_samples=640", "--plan", "--json")
    assert json.loads(out)["model"] == "TrV-Nano"


def test_crops_of_a_recipe_take_the_size_of_the_encoder(eyesmith) -> None:
    words = ("data.epoch_samples=640", "--plan", "--json")
    status, _, err = eyesmith("train", "vitamin-s-1280m", "--encoder", "ViT/16@64", *words)
    assert status == 0, err


def test_another_encoder_drops_as_many_paths_as_the_recipe_says(eyesmith) -> None:
    words = ("drawings=", "data.epoch_samples=640", "--plan", "--json")
    status, out, err = eyesmith("train", "dense-eye", "--encoder", "ViTamin", *words)  # which refuses any
    assert status == 0, err
    assert json.loads(out)["model"] == "ViTamin"


def test_another_encoder_takes_a_size_of_its_own(eyesmith, tmp_path: Path) -> None:
    make_scenes(tmp_path / "scenes", samples=8, size_px=64)
    words = (f"data.path={tmp_path / 'scenes'}", "epochs=1", "batch_size=2", "eval.splits=", "eval.curve_splits=")
    status, _, err = eyesmith("train", "debug", "--encoder", "ConvNeXt@64", "--out", str(tmp_path / "run"), *words)
    assert status == 0, err
    model = json.loads((tmp_path / "run" / "config.json").read_text())["model"]
    assert model["image"]["image_size"] == model["preprocess"]["image_size"] == [64, 64]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("scenes-eye", "--encoder", "vit"), "there is no 'vit'"),
        (("quickstart", "--encoder", "ConvNeXt"), "needs a multiple of 32, got 48"),
        (("quickstart", "--encoder", "ConvNeXt@big"), "the side of its pictures in pixels"),
        (("quickstart", "--encoder", "ConvNeXt@"), "the side of its pictures in pixels"),
        (("scenes-eye", "--encoder", "ConvNeXt@64"), "in a run of an image-text model"),
        (("detect", "--encoder", "ViT/16", "--from", "somewhere"), "brings its own encoder"),
    ],
)
def test_an_encoder_that_cannot_be_is_said(eyesmith, words: tuple[str, ...], says: str) -> None:
    status, _, err = eyesmith("train", *words, "--plan")
    assert status != 0
    assert says in " ".join(err.split())
