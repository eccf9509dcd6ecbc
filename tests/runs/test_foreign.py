"""Runs, measures and verbs on models of other packages: none of them has a case of its own for these."""

import json
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import eyesmith
from eyesmith.errors import ConfigError
from eyesmith.eval import evaluate_own
from eyesmith.eval.features.identity import model_facts
from eyesmith.eval.heads.run import ProbePlan, run_probes
from eyesmith.hub.initial import InitialConfig
from eyesmith.hub.stored import read_stored
from eyesmith.images import AugmentConfig, evaluation_pixels
from eyesmith.lab.encoders import contender
from eyesmith.losses.config import DistillConfig, LossConfig
from eyesmith.models.classifier import Classifier
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.cost import encoder_cost
from eyesmith.models.encoder import Encoder
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.runs.train import resume, start
from eyesmith.tasks.classify import ClassifyConfig, classify_from
from eyesmith.tasks.contrastive import Contrastive, TrainConfig
from eyesmith.tasks.masked import MaskedConfig
from eyesmith.train.config import DataConfig
from eyesmith.train.teacher import TargetConfig

PACKAGES = ("open_clip", "timm", "transformers")
pytestmark = pytest.mark.skipif(any(find_spec(name) is None for name in PACKAGES), reason="needs the other packages")
FOLDERS = ("open_clip_folder", "transformers_folder")


@pytest.fixture
def short(config: TrainConfig) -> TrainConfig:
    """Four steps of six pairs."""
    return replace(config, batch_size=6, epochs=1, save_every_steps=2)


def _moved(before: torch.nn.Module, after: torch.nn.Module) -> bool:
    own = dict(after.named_parameters())
    return any(not torch.equal(value, own[name]) for name, value in before.named_parameters())


@pytest.mark.parametrize("where", FOLDERS)
def test_a_fine_tuning_starts_from_a_foreign_model(
    where: str, short: TrainConfig, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source = request.getfixturevalue(where)
    run = Contrastive.from_weights(short, str(source))
    run = replace(run, optim=replace(run.optim, layer_decay=0.8, text_layer_decay=0.8))
    start(run, tmp_path / "run")
    before, after = eyesmith.load(source), eyesmith.load(tmp_path / "run")
    assert isinstance(before, Clip)
    assert isinstance(after, Clip)
    assert after.preprocess == before.preprocess
    assert _moved(before.image, after.image)
    assert _moved(before.text, after.text)
    lines = (json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    assert all(torch.isfinite(torch.tensor(line["loss"])) for line in lines if "loss" in line)


@pytest.mark.parametrize("where", FOLDERS)
def test_a_new_encoder_trains_against_a_foreign_text_tower(
    where: str, short: TrainConfig, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source = request.getfixturevalue(where)
    found = read_stored(source).config
    assert isinstance(found, ClipConfig)
    assert isinstance(short.model.image, ViTaminConfig)
    image = replace(short.model.image, embed_dim=found.image.embed_dim)
    model = replace(short.model, image=image, text=found.text, lock_text=True)
    run = replace(short, model=model, initial=InitialConfig(weights=str(source), part="text"))
    start(run, tmp_path / "run")
    before, after = eyesmith.load(source), eyesmith.load(tmp_path / "run")
    assert isinstance(before, Clip)
    assert isinstance(after, Clip)
    assert not _moved(before.text, after.text)
    texts = ["a red disc", "blue"]
    torch.testing.assert_close(after.encode_text(texts), before.encode_text(texts))


def test_a_foreign_model_teaches_pairs_and_masked_images(
    short: TrainConfig, open_clip_folder: Path, tmp_path: Path
) -> None:
    teacher = str(open_clip_folder)
    start(replace(short, loss=LossConfig(distill=DistillConfig(teacher=teacher, feature=1.0))), tmp_path / "pairs")
    student = Eva02Config(
        image_size=(32, 32),
        patch_px=8,
        width=24,
        depth=2,
        num_heads=2,
        hidden_dim=48,
        embed_dim=0,
        pooling="normed_mean",
    )
    masked = MaskedConfig(
        name="TrV-tiny",
        model=student,
        data=short.data,
        augment=AugmentConfig(),
        target=TargetConfig(teacher=teacher, cache=True),
        optim=short.optim,
        health=short.health,
        batch_size=6,
        epochs=1,
        precision="fp32",
    )
    start(masked, tmp_path / "masked")
    assert isinstance(eyesmith.load(tmp_path / "masked"), Encoder)


def test_a_stopped_run_of_a_foreign_model_goes_on_exactly(
    short: TrainConfig, open_clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Contrastive.from_weights(short, str(open_clip_folder))
    start(run, tmp_path / "whole")
    backward, seen = Contrastive.backward, []

    def stop(self: Contrastive, *args: object) -> object:
        seen.append(1)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return backward(self, *args)  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as patch:
        patch.setattr(Contrastive, "backward", stop)
        with pytest.raises(KeyboardInterrupt):
            start(run, tmp_path / "stopped")
    resume(tmp_path / "stopped")
    whole, again = eyesmith.load(tmp_path / "whole"), eyesmith.load(tmp_path / "stopped")
    assert not _moved(whole, again)  # pyright: ignore[reportArgumentType]


def _classify(pairs: Path, short: TrainConfig) -> ClassifyConfig:
    image = replace(short.model.image, embed_dim=0)
    return ClassifyConfig(
        name="discs",
        model=image,
        data=DataConfig(path=str(pairs)),
        optim=short.optim,
        health=short.health,
        batch_size=6,
        epochs=1,
        precision="fp32",
    )


@pytest.mark.parametrize("where", ["timm", *FOLDERS])
def test_a_classifier_stands_on_a_foreign_encoder_with_its_pictures(
    where: str, pairs: Path, short: TrainConfig, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source = "timm:test_vit" if where == "timm" else str(request.getfixturevalue(where))
    run = classify_from(_classify(pairs, short), source)
    run = replace(run, optim=replace(run.optim, layer_decay=0.7))
    start(run, tmp_path / "run")
    classifier = eyesmith.load(tmp_path / "run")
    assert isinstance(classifier, Classifier)
    size = classifier.preprocess.image_size
    wanted = eyesmith.load_encoder(source, image_size=size).evaluation_config()
    assert classifier.preprocess == wanted
    assert _moved(eyesmith.load_encoder(source, image_size=size), classifier.image) or where == "timm"


def test_probe_and_evaluation_see_pictures_as_the_model_wants_them(
    pairs: Path, open_clip_folder: Path, transformers_folder: Path, tmp_path: Path
) -> None:
    clip = eyesmith.load(open_clip_folder)
    assert isinstance(clip, Clip)
    rows = evaluate_own(clip, pairs).rows
    assert {row.model for row in rows} == {"tiny-vit"}
    paths = sorted((pairs / "red").glob("*.png"))
    pixels = torch.stack([evaluation_pixels(path, clip.preprocess) for path in paths])
    assert torch.equal(clip.encode_image(paths), clip.encode_image(pixels))
    for source in (open_clip_folder, transformers_folder):
        encoder = eyesmith.load_encoder(source)
        found = eyesmith.load(source)
        assert isinstance(found, Clip)
        assert encoder.evaluation_config() == found.preprocess
    encoder = eyesmith.load("timm:test_vit")
    assert isinstance(encoder, Encoder)
    shutil.copytree(pairs, tmp_path / "test")
    plan = ProbePlan(train=str(pairs), test=str(tmp_path / "test"), shots=(2,), seeds=1)
    (line,) = run_probes(encoder, plan, model_name="timm:test_vit", cache=tmp_path / "cache")
    assert line.result.n == 24


def test_an_identity_holds_pictures_and_packages(open_clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = eyesmith.load(open_clip_folder)
    assert isinstance(clip, Clip)
    facts = model_facts(clip.image, clip.preprocess)
    assert model_facts(clip.image, replace(clip.preprocess, crop_frac=0.9))["preprocess"] != facts["preprocess"]
    assert "open_clip_torch" in clip.image.package  # pyright: ignore[reportOperatorIssue]
    clip.image.package = "open_clip_torch 99"  # pyright: ignore[reportAttributeAccessIssue]
    assert model_facts(clip.image, clip.preprocess)["architecture"] != facts["architecture"]


def test_lab_plans_name_models_of_other_packages() -> None:
    found = contender("open_clip:ViT-S-32-alt", "", image_px=64)
    assert (found.family, found.image.image_size) == ("open_clip", (64, 64))
    assert encoder_cost(found.image).embed_dim == 384
    assert encoder_cost(replace(found.image, embed_dim=8)).embed_dim == 8
    with pytest.raises(ConfigError, match="did you mean"):
        contender("open_clip:ViT-B-3", "")
