"""Runs with an encoder from a user's file: trained, gone on with, refused after an edit, given classes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import eyesmith
from eyesmith.errors import ConfigError
from eyesmith.models import own as own_files
from eyesmith.models.classifier import Classifier, classifier_config
from eyesmith.models.own import own_config
from eyesmith.recipes import recipe
from eyesmith.runs.plan import plan
from eyesmith.runs.train import resume, start, start_or_resume
from eyesmith.tasks import run_from_dict, run_to_dict
from eyesmith.tasks.classify import ClassifyConfig, classify_from
from eyesmith.tasks.contrastive import TrainConfig

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "patch_mixer.py"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A registered copy of the example with a size for tests."""
    path = tmp_path / "mixer.py"
    path.write_text(EXAMPLE.read_text("utf-8") + '\nSIZES["tiny"] = {"width": 16, "depth": 2}\n', encoding="utf-8")
    eyesmith.register_encoder(path)
    return path


@pytest.fixture
def own(config: TrainConfig, file: Path) -> TrainConfig:
    del file
    image = own_config("mixer", "tiny", image_size=(32, 32), embed_dim=16)
    pixels = replace(config.model.preprocess, mean=image.mean, std=image.std)
    return replace(config, model=replace(config.model, image=image, preprocess=pixels), epochs=1)


def test_a_run_keeps_the_file_from_its_first_step_and_is_a_model(own: TrainConfig, file: Path, tmp_path: Path) -> None:
    assert run_from_dict(run_to_dict(own)) == own
    run = tmp_path / "run"
    assert len(start(own, run).rows) == len(start_or_resume(own, run).rows)
    assert (run / "encoder" / "mixer.py").read_bytes() == file.read_bytes()
    clip = eyesmith.load(run)
    assert isinstance(clip, eyesmith.Clip)
    assert clip.encode_image(torch.zeros(1, 3, 32, 32)).shape == (1, 16)


def test_an_edited_file_does_not_go_on_with_the_run(own: TrainConfig, file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def stop(*_: object) -> None:
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("eyesmith.runs.work.Work.measure_before", stop)
        start(own, run)
    kept = run / "encoder" / "mixer.py"
    assert kept.is_file()  # from the start

    own_files._BY_NAME.clear()  # a new process
    own_files._BY_HASH.clear()
    file.write_text(file.read_text("utf-8") + "# edited\n", encoding="utf-8")
    eyesmith.register_encoder(file)
    with pytest.raises(ConfigError, match=r"is not the file this was made with.*; register .* instead"):
        resume(run)
    changed = replace(own.model, image=own_config("mixer", "tiny", image_size=(32, 32), embed_dim=16))
    with pytest.raises(ConfigError, match="other settings"):
        start_or_resume(replace(own, model=changed), run)

    own_files._BY_NAME.clear()
    eyesmith.register_encoder(kept)
    assert resume(run).folder == run


def test_a_plan_counts_it(own: TrainConfig) -> None:
    params = sum(parameter.numel() for parameter in own.model.image.build().parameters())
    image = next(part for part in plan(own).parts if "image" in part.part)
    assert (image.trained, image.frozen) == (params, 0)


def test_it_becomes_a_classifier(file: Path) -> None:
    del file
    base = recipe("classify")
    assert isinstance(base, ClassifyConfig)
    config = classify_from(base, "mixer:tiny")
    assert config.model == own_config("mixer", "tiny")
    assert run_from_dict(run_to_dict(config)) == config
    classifier = classifier_config("mine", config.model, ("a", "b", "c")).build()
    assert isinstance(classifier, Classifier)
    assert classifier(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
