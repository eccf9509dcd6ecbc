"""Masked-image runs: killed and gone on with, by two processes, from streams, and what starts from them."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.runs.processes import assert_same_weights, kill_after, step_lines, together
from torch import nn

import eyesmith
from eyesmith.errors import CheckpointError, ConfigError, DataError
from eyesmith.eval import read_rows
from eyesmith.eval.features.identity import model_facts
from eyesmith.hub import load_encoder, verify
from eyesmith.hub.initial import InitialConfig, load_image, load_initial
from eyesmith.images import AugmentConfig, PreprocessConfig, TrainTransformConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.cost import encoder_cost
from eyesmith.models.encoder import Encoder
from eyesmith.models.eva02.masked import MaskedEva02
from eyesmith.models.eva02.model import Eva02, Eva02Config
from eyesmith.models.identity import module_hash
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.optim.config import OptimConfig
from eyesmith.runs.folder import read_run_config
from eyesmith.runs.replay import replay
from eyesmith.runs.train import resume, start
from eyesmith.tasks import masked as masked_task
from eyesmith.tasks import task_of
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.tasks.masked import Masked, MaskedConfig
from eyesmith.train.config import DataConfig, EvalConfig
from eyesmith.train.diagnostics import HealthConfig
from eyesmith.train.kept import KeptFeatures
from eyesmith.train.replay import NonFiniteError
from eyesmith.train.teacher import PixelTargets, TargetConfig, TeacherTargets

TRV = Eva02Config(
    image_size=(32, 32),
    patch_px=8,
    width=24,
    depth=2,
    num_heads=2,
    hidden_dim=48,
    embed_dim=0,
    pooling="normed_mean",
    drop_path_prob=0.2,
)


@pytest.fixture(scope="session")
def images(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The discs without a word of text, in one folder."""
    folder = tmp_path_factory.mktemp("images")
    for number, path in enumerate(sorted(pairs.rglob("*.png"))):
        (folder / f"{number:02}.png").write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="session")
def masked(images: Path, config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> MaskedConfig:
    """Twelve steps of four images towards an untrained ViTamin, all that draws random numbers switched on."""
    teacher = tmp_path_factory.mktemp("teacher") / "clip"
    torch.manual_seed(9)
    eyesmith.hub.save_model(teacher, config.model.build().eval())
    return MaskedConfig(
        name="TrV-tiny",
        model=TRV,
        data=DataConfig(path=str(images), decode_px=40),
        augment=AugmentConfig(scale=(0.6, 1.0), horizontal_flip_prob=0.5, brightness=0.2),
        target=TargetConfig(teacher=str(teacher), match="features"),
        optim=OptimConfig(peak_lr=1e-3, eps=1e-3, clip_norm=3.0, min_lr=1e-5, warmup_start="zero", ema_decay=0.9),
        health=HealthConfig(ignore=("waiting", "slower", "memory")),
        batch_size=4,
        epochs=2,
        precision="fp32",
        log_every_steps=1,
        save_every_steps=5,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, masked: MaskedConfig) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    start(masked, folder)
    return folder


def _losses(folder: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in step_lines(folder)}


def _assert_same(a: Path, b: Path) -> None:
    assert_same_weights(a, b, files=("model.safetensors", "masked.safetensors"))


def test_a_run_leaves_an_encoder(finished: Path, masked: MaskedConfig) -> None:
    assert sorted(_losses(finished)) == list(range(1, 13))
    encoder = eyesmith.load(finished)
    assert isinstance(encoder, Eva02)
    assert encoder.config == masked.model
    assert encoder(torch.zeros(1, 3, 32, 32)).shape == (1, 24)
    assert read_run_config(finished) == masked
    report = verify(finished)
    assert report.ok, report.lines
    assert {*load_file(finished / "masked.safetensors")} == {"mask_token", "predict.weight", "predict.bias"}


def test_result_lines_say_whose_number_it_is(tmp_path: Path, masked: MaskedConfig, shards: Path) -> None:
    """Weights, encoder and preprocessing as any later measurement of the run folder names them; teacher and images."""
    for split, shard in zip(("train", "val"), sorted(shards.glob("*.tar")), strict=False):
        (tmp_path / "data" / split).mkdir(parents=True)
        shutil.copy(shard, tmp_path / "data" / split / "0.tar")
    facts = {"classes": [], "splits": {name: {"samples": 9, "shards": 1} for name in ("train", "val")}}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(facts))
    config = replace(
        masked,
        data=DataConfig(path=str(tmp_path / "data"), split="train", num_workers=1),
        augment=AugmentConfig(),
        epochs=1,
        eval=EvalConfig(splits=("val",)),
    )
    (row,) = start(config, tmp_path / "run").rows
    assert read_rows(tmp_path / "run" / "results.jsonl") == [row]
    assert row.run is not None
    facts = model_facts(load_encoder(tmp_path / "run"), PreprocessConfig(image_size=(32, 32)))
    assert {name: row.run[name] for name in facts} == facts
    assert row.run["target"].split()[0] == module_hash(load_encoder(masked.target.teacher).requires_grad_(False))
    (of_pixels,) = start(replace(config, target=TargetConfig(kind="pixels")), tmp_path / "pixels").rows
    assert of_pixels.run is not None
    assert (of_pixels.run["target"], of_pixels.run["data"]) == ("pixels", row.run["data"])
    assert of_pixels.run["head"] != row.run["head"]


def test_a_killed_run_ends_with_the_weights_of_one_never_stopped(
    tmp_path: Path, masked: MaskedConfig, finished: Path
) -> None:
    folder = tmp_path / "killed"
    kill_after(masked, folder, steps=7)
    resume(folder)
    assert _losses(folder) == _losses(finished)
    _assert_same(folder, finished)


def _assert_near(a: Path, b: Path) -> None:
    assert list(_losses(a).values()) == pytest.approx(list(_losses(b).values()), abs=2e-5)
    ours, theirs = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, atol=2e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_two_processes_equal_one(tmp_path: Path, masked: MaskedConfig, finished: Path) -> None:
    together(masked, tmp_path / "two")
    _assert_near(tmp_path / "two", finished)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_killed_processes_go_on(tmp_path: Path, masked: MaskedConfig, finished: Path, strategy: str) -> None:
    config = replace(masked, parallel=replace(masked.parallel, strategy=strategy), accumulate=2)  # pyright: ignore
    together(config, tmp_path / "whole")
    kill_after(config, tmp_path / "killed", steps=8, size=2)
    together(config, tmp_path / "killed")
    _assert_same(tmp_path / "whole", tmp_path / "killed")
    _assert_near(tmp_path / "whole", finished)


def test_kept_targets_are_those_of_this_teacher_and_these_pictures(
    tmp_path: Path, masked: MaskedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "pictures"
    for color in ("red", "blue"):
        (folder / color).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (40, 40), color).save(folder / color / f"{number}.bmp")
    config = replace(masked, data=replace(masked.data, path=str(folder), split=None), eval=EvalConfig())
    config = replace(config, augment=AugmentConfig(), target=replace(config.target, cache=True), epochs=1)
    files = tmp_path / "cache" / "targets"
    start(config, tmp_path / "first")
    assert len([*files.iterdir()]) == 1
    Image.new("RGB", (40, 40), "green").save(folder / "red" / "0.bmp")  # of as many bytes
    start(config, tmp_path / "second")
    assert len([*files.iterdir()]) == 2

    load = load_encoder

    def other_activation(source: str) -> Encoder:
        encoder = load(source)
        encoder.slope = 0.1  # a setting that no tensor shows
        return encoder

    monkeypatch.setattr("eyesmith.tasks.masked.load_encoder", other_activation)
    start(config, tmp_path / "third")
    assert len([*files.iterdir()]) == 3


def test_a_batch_in_parts_is_the_batch_as_a_whole(tmp_path: Path, masked: MaskedConfig, finished: Path) -> None:
    start(replace(masked, accumulate=2), tmp_path / "parts")
    _assert_near(tmp_path / "parts", finished)


def test_kept_targets_are_the_computed_ones(
    tmp_path: Path, masked: MaskedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))
    plain = replace(masked, augment=AugmentConfig(), epochs=1)
    start(plain, tmp_path / "computed")
    kept = replace(plain, target=replace(plain.target, cache=True))
    start(kept, tmp_path / "kept")
    (file,) = (tmp_path / "cache" / "targets").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:])  # one bit of a feature
    start(kept, tmp_path / "mended")
    assert file.read_bytes() == whole
    computed = _losses(tmp_path / "computed")
    assert [*_losses(tmp_path / "kept").values()] == pytest.approx([*computed.values()], abs=1e-3)

    read, threads = KeptFeatures.read, set[str]()

    def ahead(targets: KeptFeatures, indices: torch.Tensor) -> torch.Tensor:
        threads.add(threading.current_thread().name)
        return read(targets, indices)

    monkeypatch.setattr(KeptFeatures, "read", ahead)
    start(kept, tmp_path / "again")  # out of the file
    assert threads
    assert threading.current_thread().name not in threads, "a step reads its targets, which the loader reads ahead"
    _assert_same(tmp_path / "kept", tmp_path / "again")
    with pytest.raises(ConfigError, match="one view"):
        replace(masked, target=kept.target)


def test_pixels_as_targets_out_of_shards(tmp_path: Path, masked: MaskedConfig, shards: Path) -> None:
    config = replace(
        masked,
        data=DataConfig(path=str(shards), num_workers=1),
        augment=AugmentConfig(),
        transform=TrainTransformConfig(image_size=(32, 32), scale=(0.5, 1.0)),
        target=TargetConfig(kind="pixels"),
        epochs=8,
        log_every_steps=4,
    )
    start(config, tmp_path / "run")
    losses = [*_losses(tmp_path / "run").values()]
    assert losses[-1] < 0.8 * losses[0]
    assert isinstance(eyesmith.load(tmp_path / "run"), Encoder)


@pytest.fixture
def pair() -> ClipConfig:
    return ClipConfig(
        name="TrV-pair",
        image=replace(TRV, embed_dim=16, pooling="token", has_inner_norm=True, initial="beit"),
        text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16, context_len=16),
        preprocess=PreprocessConfig(image_size=(32, 32)),
    )


def test_a_clip_starts_from_it(
    tmp_path: Path, finished: Path, config: TrainConfig, masked: MaskedConfig, pair: ClipConfig
) -> None:
    run = replace(config, model=pair, epochs=0.25, initial=InitialConfig(weights=str(finished), part="image"))
    assert task_of(run).from_weights(replace(run, initial=InitialConfig()), str(finished)) == run
    made = pair.build()
    said: list[str] = []
    new = load_image(made.image, finished, note=said.append)
    assert {name.partition(".")[0] for name in new} == {"layers", "head"}
    assert all("attention.norm" in name or name.startswith("head") for name in new)
    assert "start anew" in said[0]
    trained = load_file(finished / "model.safetensors")
    for name, value in made.image.state_dict().items():
        assert name in new or torch.equal(value, trained[name])
    start(replace(run, patch_drop_prob=0.5), tmp_path / "clip")
    assert isinstance(eyesmith.load(tmp_path / "clip"), eyesmith.Clip)
    # its text tower from another CLIP, but for the projection
    both = replace(pair, name="other").build()
    load_initial(both, InitialConfig(weights=str(finished), part="image", text=str(tmp_path / "clip")))
    theirs = load_file(tmp_path / "clip" / "model.safetensors")
    for name, value in both.text.state_dict().items():
        assert torch.equal(value, theirs[f"text.{name}"]) == (name != "text_projection"), name
    # and masked images from a CLIP again
    again = task_of(masked).from_weights(masked, str(tmp_path / "clip"))
    assert isinstance(again.model, Eva02Config)
    assert again.model.embed_dim == 0


def test_another_size_is_resampled_and_another_encoder_refused(finished: Path, config: TrainConfig) -> None:
    larger = replace(TRV, image_size=(48, 64)).build()
    load_image(larger, finished)
    assert larger.position is not None
    assert larger.position.shape == (1, 49, 24)
    coarser = replace(TRV, image_size=(48, 48), patch_px=12).build()
    load_image(coarser, finished)
    with pytest.raises(CheckpointError, match="another image encoder"):
        load_image(config.model.image.build(), finished)
    with pytest.raises(CheckpointError, match="another image encoder"):
        load_image(replace(TRV, depth=3).build(), finished)


def test_what_is_missing_is_said(tmp_path: Path, masked: MaskedConfig) -> None:
    with pytest.raises(ConfigError, match=r"target\.teacher: expected a model"):
        start(replace(masked, target=TargetConfig()), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"target\.dim: the teacher's tokens are 16 wide"):
        start(replace(masked, target=replace(masked.target, dim=8)), tmp_path / "run")
    with pytest.raises(ConfigError, match="trains no projection"):
        replace(masked, model=replace(TRV, embed_dim=8))


def test_a_larger_image_gives_the_teacher_the_same_grid(tmp_path: Path, masked: MaskedConfig) -> None:
    start(replace(masked, epochs=0.2, target=replace(masked.target, match="image")), tmp_path / "run")
    assert len(_losses(tmp_path / "run")) == 1


def _sick_teacher(monkeypatch: pytest.MonkeyPatch, *, row: int | None) -> None:
    """Teachers that are loaded give NaN: for one row of a batch, or, with None, for all."""
    healthy = masked_task.load_encoder

    def loaded(source: str) -> Encoder:
        teacher = healthy(source)

        def spoil(module: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            first = given[0].clone()
            first[slice(None) if row is None else row] = float("nan")
            return first, *given[1:]

        teacher.blocks()[-1].register_forward_pre_hook(spoil)
        return teacher

    monkeypatch.setattr(masked_task, "load_encoder", loaded)


def test_a_step_that_is_not_finite_is_explained(
    tmp_path: Path, masked: MaskedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies in a sample, in the teacher, or in weights that a step before it broke."""
    with monkeypatch.context() as patch:
        _sick_teacher(patch, row=3)
        with pytest.raises(NonFiniteError, match=r"step 1: .*eyesmith replay") as found:
            start(masked, tmp_path / "one")
        shown = replay(tmp_path / "one" / "replay" / "step-1")
        assert shown.is_reproduced
        assert shown.samples == (found.value.keys[3],)
        assert shown.trace.forward is not None
        assert shown.trace.forward.startswith("teacher.")
        assert "1 of 4 samples are hit" in " ".join(shown.sentences)
    with monkeypatch.context() as patch:
        _sick_teacher(patch, row=None)
        with pytest.raises(NonFiniteError):
            start(replace(masked, accumulate=2), tmp_path / "all")
        shown = replay(tmp_path / "all" / "replay" / "step-1")
        assert len(shown.samples) == 4
        assert "it lies in target.teacher, which does not train" in " ".join(shown.sentences)
    optim = replace(masked.optim, peak_lr=1e30, warmup_start="first", clip_norm=0.0)
    with pytest.raises(NonFiniteError) as found:
        start(replace(masked, optim=optim), tmp_path / "long")
    shown = replay(tmp_path / "long" / "replay" / f"step-{found.value.step}")
    assert shown.is_reproduced
    assert "lower optim.peak_lr" in " ".join(shown.sentences)
    assert "target.teacher" not in " ".join(shown.sentences)


def test_features_that_half_precision_cannot_hold_are_not_kept(
    tmp_path: Path, masked: MaskedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))
    healthy = masked_task.load_encoder

    def loaded(source: str) -> Encoder:
        teacher = healthy(source)
        with torch.no_grad():
            next(value for name, value in teacher.named_parameters() if name == "head.weight").mul_(1e6)
        return teacher

    kept = replace(masked, augment=AugmentConfig(), target=replace(masked.target, cache=True))
    monkeypatch.setattr(masked_task, "load_encoder", loaded)
    with pytest.raises(DataError, match="half precision ends at 65504; set target.cache=false"):
        start(kept, tmp_path / "run")
    assert not list((tmp_path / "cache" / "targets").glob("*.npy"))


def test_the_log_s_utilisation_counts_the_teacher(masked: MaskedConfig, config: TrainConfig) -> None:
    student = MaskedEva02(TRV, 16)
    teacher = config.model.image.build()
    targets = TeacherTargets(teacher, replace(masked.target, match="features"), grid=(4, 4))
    alone = Masked(student, replace(masked, target=TargetConfig(kind="pixels")), PixelTargets(8)).flops(None)
    both = Masked(student, masked, targets).flops(None)
    assert alone is not None
    assert both is not None
    # of four cells one projection of 32 x 16 is in the encoder's own cost
    assert both - alone == 2 * (encoder_cost(config.model.image).tower.macs + 3 * 32 * 16)
