"""Runs by classes: end to end, killed and resumed, in two processes, from every family of encoders."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tests.runs.processes import assert_same_weights, kill_after, step_lines, together
from torch import nn

from eyesmith import load, load_encoder
from eyesmith.data.loader import Batch, Loader
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.eval.features.identity import model_facts
from eyesmith.eval.results.rows import read_rows
from eyesmith.hub import save_model
from eyesmith.hub.initial import InitialConfig
from eyesmith.images.class_views import ClassViewConfig
from eyesmith.images.mix import MixConfig
from eyesmith.models.classifier import Classifier, classifier_config
from eyesmith.models.clip import ClipConfig
from eyesmith.models.eva02.model import Eva02, Eva02Config
from eyesmith.models.eva02.weights import to_published
from eyesmith.models.registry import create_encoder
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.optim.config import OptimConfig
from eyesmith.runs.replay import replay
from eyesmith.runs.train import resume, start
from eyesmith.tasks.classify import ClassifyConfig, classify_from
from eyesmith.train.config import DataConfig, EvalConfig, ParallelConfig
from eyesmith.train.diagnostics import HealthConfig
from eyesmith.train.replay import NonFiniteError

TRV = Eva02Config(
    image_size=(16, 16),
    patch_px=8,
    width=16,
    depth=2,
    num_heads=1,
    hidden_dim=24,
    embed_dim=0,
    pooling="mean",
    drop_path_prob=0.2,
)


@pytest.fixture
def config(pairs: Path) -> ClassifyConfig:
    """Six classes, four steps an epoch of four images, everything that draws random numbers switched on."""
    return ClassifyConfig(
        name="tiny",
        model=TRV,
        data=DataConfig(path=str(pairs)),
        views=ClassViewConfig(scale=(0.5, 1.0), mix=MixConfig(mixup=0.8, cutmix=1.0, prob=0.5)),
        optim=OptimConfig(
            peak_lr=1e-3, eps=1e-3, layer_decay=0.8, ema_decay=0.9, freeze=("image.patch.*",), warmup_start="zero"
        ),
        eval=EvalConfig(splits=("all",), curve_splits=("all",), every_epochs=1.0),
        health=HealthConfig(ignore=("waiting", "slower", "memory")),
        batch_size=4,
        epochs=3,
        precision="fp32",
        log_every_steps=1,
        save_every_steps=3,
    )


def _unmoved(config: ClassifyConfig) -> ClassifyConfig:
    """One step, whose rate is 0."""
    return replace(config, epochs=0.1, optim=replace(config.optim, warmup_steps=2))


def test_a_run_ends_as_a_classifier_and_an_encoder(config: ClassifyConfig, tmp_path: Path, pairs: Path) -> None:
    said = StringIO()
    start(config, tmp_path / "run", console=Console(file=said, width=200))
    assert "frozen: image.patch.*, 3,088 of" in said.getvalue()
    made = load(tmp_path / "run")
    assert isinstance(made, Classifier)
    assert made.classes == ("black", "blue", "green", "orange", "purple", "red")
    found = made.classify(pairs / "red" / "0.png", top=2)
    assert len(found[0]) == 2
    assert load_encoder(tmp_path / "run").embed_dim == 16
    rows = read_rows(tmp_path / "run" / "results.jsonl")
    assert [(row.task, row.split, row.metric, row.n, row.chance) for row in rows] == [
        ("classification", "val", "acc1", 6, 1 / 6),
        ("classification", "val", "acc5", 6, 5 / 6),
    ]
    assert all(row.low is not None and row.high is not None and row.low <= row.value <= row.high for row in rows)
    for row in rows:
        assert row.run is not None
        assert row.run["weights"] == model_facts(made)["weights"]  # of the model that the folder holds
        assert {"architecture", "preprocess", "data", "precision", "decoders"} <= set(row.run)
    best = json.loads((tmp_path / "run" / "best" / "best.json").read_text())
    assert best["name"] == "val/acc1"
    assert isinstance(load(tmp_path / "run" / "best"), Classifier)
    began = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert began["frozen"] == ["image.patch.weight", "image.patch.bias"]


def test_the_frozen_patch_embedding_stays_and_everything_else_moves(config: ClassifyConfig, tmp_path: Path) -> None:
    torch.manual_seed(config.seed)
    classes = ("black", "blue", "green", "orange", "purple", "red")
    first = classifier_config("tiny", TRV, classes).build().state_dict()
    start(replace(config, optim=replace(config.optim, ema_decay=0.0)), tmp_path / "run")
    last = load_file(tmp_path / "run" / "model.safetensors")
    same = {name for name, value in last.items() if torch.equal(value, first[name])}
    assert {"image.patch.weight", "image.patch.bias"} <= same
    assert {"head.weight", "image.class_token", "image.position", "image.norm.weight"}.isdisjoint(same)


def test_a_run_killed_with_9_ends_with_the_weights_of_one_never_stopped(config: ClassifyConfig, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start(config, whole)
    kill_after(config, killed, steps=5)
    resume(killed)
    assert_same_weights(whole, killed)
    assert [line["loss"] for line in step_lines(whole)] == [line["loss"] for line in step_lines(killed)]


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "optimizer"), [("ddp", "adamw"), ("fsdp", "adamw"), ("fsdp", "lamb")])
def test_two_processes_equal_one(config: ClassifyConfig, tmp_path: Path, strategy: str, optimizer: str) -> None:
    """With a frozen part, an average of the weights and, for LAMB, lengths of tensors that processes share."""
    optim = replace(config.optim, name=optimizer)  # pyright: ignore
    config = replace(config, eval=EvalConfig(), optim=optim)
    start(config, tmp_path / "one")
    shared = replace(config, parallel=ParallelConfig(strategy=strategy), accumulate=2)  # pyright: ignore
    together(shared, tmp_path / "two")
    for one, two in zip(step_lines(tmp_path / "one"), step_lines(tmp_path / "two"), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-4)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize("name", ["sgd", "lion"])
def test_other_optimisers_resume_exactly(
    config: ClassifyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = replace(config, optim=replace(config.optim, name=name), epochs=2, eval=EvalConfig())  # pyright: ignore
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    start(config, whole)
    read = Loader.batch

    def fail(self: Loader, step: int) -> Batch:
        if step == 5:
            raise OSError("the disk is gone")
        return read(self, step)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk"):
        patch.setattr(Loader, "batch", fail)
        start(config, stopped)
    resume(stopped)
    assert len(step_lines(stopped)) == 8
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (whole, stopped))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_parts_of_a_batch_give_the_gradient_of_the_whole(config: ClassifyConfig, tmp_path: Path) -> None:
    config = replace(config, eval=EvalConfig(), epochs=1)
    start(config, tmp_path / "one")
    start(replace(config, accumulate=2), tmp_path / "two")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=2e-5, msg=name)


def test_a_trv_from_masked_images_gets_a_fresh_norm_and_larger_positions(
    config: ClassifyConfig, tmp_path: Path
) -> None:
    encoder = replace(TRV, pooling="normed_mean", image_size=(24, 24)).build()
    nn.init.constant_(encoder.norm.weight, 3.0)
    save_model(tmp_path / "mim", encoder)
    larger = replace(config, model=replace(TRV, image_size=(32, 32)))
    made = classify_from(larger, tmp_path / "mim")
    assert isinstance(made.model, Eva02Config)
    assert (made.model.image_size, made.model.pooling, made.fresh_norm) == ((32, 32), "mean", True)
    assert made.optim.freeze == ("image.patch.*",)
    assert made.optim.no_decay == ("image.position", "image.class_token")
    said = StringIO()
    start(replace(made, epochs=0.1), tmp_path / "run", console=Console(file=said, width=300))
    assert "the norm before the head starts anew" in said.getvalue()
    found = load_encoder(tmp_path / "run").state_dict()
    assert found["norm.weight"].mean().item() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(found["patch.weight"], encoder.state_dict()["patch.weight"])


def test_a_classifier_of_the_same_classes_keeps_its_head(config: ClassifyConfig, tmp_path: Path) -> None:
    start(replace(config, epochs=1), tmp_path / "first")
    made = classify_from(config, tmp_path / "first")
    assert not made.fresh_norm
    said = StringIO()
    start(_unmoved(made), tmp_path / "second", console=Console(file=said, width=300))
    assert "its head is kept" in said.getvalue()
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], msg=name)


def test_a_published_classifier_is_fine_tuned_on_other_classes(config: ClassifyConfig, tmp_path: Path) -> None:
    """A file of the release: its encoder and norm are kept, larger positions resampled, its nine classes are not."""
    torch.manual_seed(0)
    published = replace(TRV, embed_dim=9).build()
    nn.init.constant_(published.norm.weight, 3.0)
    torch.save(
        {"model": to_published(published.state_dict(), published.config, layout="reference")}, tmp_path / "ft.pt"
    )
    made = classify_from(replace(config, model=replace(TRV, image_size=(32, 32))), tmp_path / "ft.pt")
    assert isinstance(made.model, Eva02Config)
    assert (made.model.image_size, made.model.pooling, made.fresh_norm) == ((32, 32), "mean", False)
    said = StringIO()
    start(_unmoved(made), tmp_path / "run", console=Console(file=said, width=300))
    assert "its head starts anew, its 9 classes are others" in said.getvalue()
    assert "the norm before the head" not in said.getvalue()
    found = load(tmp_path / "run")
    assert isinstance(found, Classifier)
    assert found.embed_dim == 6
    state = found.image.state_dict()
    torch.testing.assert_close(state["norm.weight"], published.norm.weight)
    assert state["position"].shape == (1, 17, 16)


def test_other_families_train_whole_from_image_text_models_and_names(
    config: ClassifyConfig, tmp_path: Path, tiny_model: ClipConfig
) -> None:
    clip = tiny_model.build()
    save_model(tmp_path / "clip", clip)
    made = classify_from(config, tmp_path / "clip")
    assert isinstance(made.model, ViTaminConfig)
    assert (made.model.embed_dim, made.model.image_size, made.name) == (0, (32, 32), "tiny")
    assert (made.optim.freeze, made.optim.no_decay, made.fresh_norm) == ((), ("image.position",), False)
    said = StringIO()
    start(_unmoved(made), tmp_path / "run", console=Console(file=said, width=300))
    assert "nothing is frozen" in said.getvalue()
    own = load_encoder(tmp_path / "run").state_dict()
    assert torch.equal(own["norm.weight"], clip.state_dict()["image.norm.weight"])
    random = classify_from(config, "TrV-Nano")
    assert (random.initial, random.optim.freeze, random.optim.layer_decay) == (InitialConfig(), (), 1.0)
    assert random.model.image_size == create_encoder("trv_nano_48").image_size
    with pytest.raises(CheckpointError, match="no such"):
        classify_from(config, "runs/nowhere")


def test_a_step_that_is_not_finite_is_explained_with_its_image(
    config: ClassifyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Eva02.pool
    row = torch.tensor([2])
    monkeypatch.setattr(Eva02, "pool", lambda self, tokens: pool(self, tokens).index_fill(0, row, float("nan")))
    with pytest.raises(NonFiniteError, match=r"step 1: .*eyesmith replay") as found:
        start(replace(config, eval=EvalConfig()), tmp_path / "run")
    shown = replay(tmp_path / "run" / "replay" / "step-1")
    assert shown.is_reproduced
    assert shown.samples == (found.value.keys[2],)
    assert (shown.trace.forward, shown.trace.weights) == ("image", None)
    assert f"1 of 4 samples are hit, look at them: {found.value.keys[2]}" in shown.sentences
    monkeypatch.undo()
    assert not replay(tmp_path / "run" / "replay" / "step-1").is_reproduced


def test_weights_that_a_step_broke_are_named(config: ClassifyConfig, tmp_path: Path) -> None:
    optim = replace(config.optim, peak_lr=1e30, warmup_start="first", layer_decay=1.0)
    with pytest.raises(NonFiniteError) as found:
        start(replace(config, eval=EvalConfig(), optim=optim), tmp_path / "run")
    shown = replay(tmp_path / "run" / "replay" / f"step-{found.value.step}")
    assert shown.is_reproduced
    assert "lower optim.peak_lr" in " ".join(shown.sentences)


def test_wrong_splits_are_known_before_the_training(config: ClassifyConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no labelled split is called 'vall'"):
        start(replace(config, eval=EvalConfig(splits=("vall",))), tmp_path / "run")
