"""Real runs, sick ones and a healthy one: what is said of them, and that following changes nothing."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from rich.console import Console
from safetensors.torch import load_file

from eyesmith.cli.main import main
from eyesmith.data import open_source
from eyesmith.errors import TrainingError
from eyesmith.eval import retrieval as retrieval_of
from eyesmith.images import AugmentConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.optim.config import OptimConfig
from eyesmith.runs.train import resume, start
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train.config import DataConfig, EvalConfig, TrackConfig
from eyesmith.train.diagnostics import HealthConfig

PLACES = {"left": (12, 20), "right": (28, 20), "top": (20, 12), "bottom": (20, 28)}
COLORS = ("red", "green", "blue", "black", "orange", "purple", "gray", "cyan")
MACHINE = ("waiting", "slower", "memory")  # what they say depends on the machine of the test


def write_pairs(folder: Path, *, is_shuffled: bool = False) -> Path:
    """64 different pictures, each with a caption of its own, or with that of another."""
    captions = {}
    for color in COLORS:
        for place, (x, y) in PLACES.items():
            for size, radius in (("small", 6), ("large", 12)):
                image = Image.new("RGB", (40, 40), "white")
                ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
                name = f"{color}-{place}-{size}.png"
                image.save(folder / name)
                captions[name] = f"a {size} {color} disc at the {place}"
    texts = list(captions.values())
    if is_shuffled:
        random.Random(0).shuffle(texts)
    lines = [f"{name},{text}" for name, text in zip(captions, texts, strict=True)]
    (folder / "pairs.csv").write_text("\n".join(["image,caption", *lines]))
    return folder / "pairs.csv"


@pytest.fixture
def short(tmp_path: Path, tiny_model: ClipConfig) -> TrainConfig:
    """Forty steps on pairs that a model of this size begins to tell apart in as many."""
    return TrainConfig(
        model=tiny_model,
        data=DataConfig(path=str(write_pairs(tmp_path)), decode_px=40),
        augment=AugmentConfig(),
        optim=OptimConfig(peak_lr=3e-3, warmup_frac=0.1, schedule="constant"),
        health=HealthConfig(ignore=MACHINE),
        batch_size=16,
        epochs=10,
        precision="fp32",
        log_every_steps=1,
    )


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def rules(folder: Path) -> dict[str, dict[str, Any]]:
    return {line["rule"]: line for line in log_of(folder) if line.get("event") == "health"}


def test_a_healthy_run_carries_its_measures_and_nothing_is_said(tmp_path: Path, short: TrainConfig) -> None:
    longer = replace(short, epochs=20, optim=replace(short.optim, schedule="cosine"))
    start(longer, tmp_path / "run")
    assert rules(tmp_path / "run") == {}
    steps = [line for line in log_of(tmp_path / "run") if "loss" in line]
    assert len(steps) == 80
    for line in steps:
        assert line["chance_loss"] == pytest.approx(2.7726, abs=1e-4)
        assert line["loss_frac"] == pytest.approx(line["loss"] / 2.7726, abs=1e-3)
        assert line["grad_norm"] >= max(line["image_grad_norm"], line["text_grad_norm"])
        assert 0 < line["image_rank"] <= 15
        assert 0 < line["text_rank"] <= 15
        assert 0 < line["mfu"] < 1
        assert 0 <= line["wait_frac"] < 1
        assert line["peak_mib"] > 50
        assert min(line["image_norm"], line["text_norm"], line["images_per_s"]) > 0


def test_a_rate_far_too_high(tmp_path: Path, short: TrainConfig) -> None:
    console = Console(file=open(tmp_path / "said", "w"), width=500)  # noqa: SIM115
    start(replace(short, optim=replace(short.optim, peak_lr=0.3)), tmp_path / "run", console=console)
    console.file.close()
    said = (tmp_path / "said").read_text().splitlines()
    found = rules(tmp_path / "run")
    assert {"stuck", "collapse"} <= found.keys()
    assert "lower optim.peak_lr" in found["stuck"]["hint"]
    assert any(line.startswith("health, step ") and "lower optim.peak_lr" in line for line in said)


def test_captions_of_other_images(tmp_path: Path, short: TrainConfig) -> None:
    (tmp_path / "mixed").mkdir()
    data = write_pairs(tmp_path / "mixed", is_shuffled=True)
    start(replace(short, data=replace(short.data, path=str(data))), tmp_path / "run")
    found = rules(tmp_path / "run")
    assert set(found) == {"stuck"}
    assert "whether each caption belongs to its image" in found["stuck"]["hint"]


def test_a_tower_frozen_by_mistake(tmp_path: Path, short: TrainConfig) -> None:
    frozen = replace(short, epochs=2, optim=replace(short.optim, freeze=("image.*",)))
    start(frozen, tmp_path / "run")
    found = rules(tmp_path / "run")
    assert found["no_gradient"]["step"] == 3
    assert found["no_gradient"]["message"] == "the image tower gets no gradient: none of its parameters trains"
    assert "optim.freeze" in found["no_gradient"]["hint"]


def test_following_changes_no_weight(tmp_path: Path, short: TrainConfig) -> None:
    pytest.importorskip("tensorboard")
    short = replace(short, epochs=2)
    start(replace(short, log_every_steps=100), tmp_path / "plain")
    watched = replace(
        short, track=TrackConfig(trackers=("tensorboard",)), eval=EvalConfig(every_steps=3, curve_tasks=("retrieval",))
    )
    retrieval = retrieval_of(open_source(short.data.path), split="pairs")
    start(watched, tmp_path / "watched", evaluators=[retrieval])
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "watched"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    checks = [line for line in log_of(tmp_path / "watched") if "eval" in line]
    assert [line["step"] for line in checks] == [3, 6, 8]
    assert "pairs/image_retrieval_recall@1" in checks[0]["eval"]
    assert list((tmp_path / "watched" / "tensorboard").iterdir())


def test_a_step_that_is_not_finite_is_kept_and_explained(
    tmp_path: Path, short: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    # a first step so long that the weights overflow the products of the second
    sick = replace(short, optim=replace(short.optim, peak_lr=1e30, warmup_frac=0.0))
    folder = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"step 2: .*eyesmith replay .*step-2"):
        start(sick, folder)
    kept = folder / "replay" / "step-2"
    content = json.loads((kept / "replay.json").read_text())
    assert content["step"] == 2
    assert len(content["keys"]) == 16
    assert main(["replay", str(kept / "replay.json"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["is_reproduced"]
    assert found["first_output"].startswith(("image", "text"))
    assert "all samples are hit" in " ".join(found["sentences"])
    assert main(["replay", str(kept)]) == 1
    text = capsys.readouterr().out
    assert "step 2 again: loss nan" in text
    assert "the first output that is not finite is that of" in text
    with pytest.raises(TrainingError, match="step 2"):
        resume(folder)  # from the beginning, as no state was saved, to the same end


def test_a_fault_that_does_not_come_again(
    tmp_path: Path, short: TrainConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = Clip.image_features, []

    def flaky(self: Clip, pixels: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return forward(self, pixels) * (float("nan") if len(calls) == 3 else 1.0)

    monkeypatch.setattr(Clip, "image_features", flaky)
    with pytest.raises(TrainingError, match="step 3"):
        start(short, tmp_path / "run")
    monkeypatch.undo()
    assert main(["replay", str(tmp_path / "run" / "replay" / "step-3")]) == 0
    assert "step 3 is finite this time" in capsys.readouterr().out


def test_a_file_that_is_no_replay_is_the_users_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path / "none")]) == 2
    assert "no replay" in capsys.readouterr().err
