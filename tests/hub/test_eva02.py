"""Files of EVA-02 as they are published, opened by `load`: pre-training, fine-tuned, CLIP, other sizes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import save_file

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.hub.convert import convert
from eyesmith.hub.initial import load_image
from eyesmith.hub.load import load, load_clip, load_encoder
from eyesmith.hub.peers import timm_config
from eyesmith.hub.run_folder import save_model
from eyesmith.hub.stored import read_stored
from eyesmith.hub.weights import own_memory
from eyesmith.images import PreprocessConfig
from eyesmith.models.classifier import Classifier, ClassifierConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.eva02.model import Eva02, Eva02Config
from eyesmith.models.eva02.weights import resize_state, to_clip, to_published
from eyesmith.models.registry import create, encoder_config
from eyesmith.models.text.model import ClipTextConfig

SMALL = Eva02Config(
    image_size=(56, 56), width=64, depth=2, num_heads=1, hidden_dim=40, embed_dim=9, norm="sub", is_packed=False
)
PIXELS = torch.linspace(-2, 2, 3 * 56 * 56).view(1, 3, 56, 56).sin()
ROPE = {"rope.freqs_cos": torch.zeros(16, 16, 64), "blocks.1.attn.rope.freqs_sin": torch.zeros(256, 64)}


def encoder(config: Eva02Config) -> Eva02:
    torch.manual_seed(0)
    model = config.build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


@torch.no_grad()
def test_a_pre_training_file_under_module(tmp_path: Path) -> None:
    model = encoder(replace(SMALL, embed_dim=0, pooling="normed_mean"))
    state = to_published(model.state_dict(), model.config, layout="reference")
    state |= {"mask_token": torch.zeros(1, 1, 64), "lm_head.weight": torch.zeros(5, 64), "lm_head.bias": torch.zeros(5)}
    torch.save({"module": state | ROPE}, tmp_path / "pt.pt")
    stored = read_stored(tmp_path / "pt.pt")
    assert stored.left_out == ("the mask token", "the pre-training's head of 5 targets")
    loaded = load(tmp_path / "pt.pt")
    assert isinstance(loaded, Eva02)
    assert (loaded.config.pooling, loaded.config.resize) == ("normed_mean", "reference")
    assert torch.equal(loaded(PIXELS), model(PIXELS))
    loaded.set_pooling("mean")
    model.set_pooling("mean")
    assert torch.equal(loaded(PIXELS), model(PIXELS))


@torch.no_grad()
def test_a_fine_tuned_file_with_an_average(tmp_path: Path) -> None:
    model = encoder(SMALL)
    state = to_published(model.state_dict(), SMALL, layout="reference")
    average = {name: value * 0.5 for name, value in state.items()}
    torch.save({"model": state | ROPE, "model_ema": average | ROPE}, tmp_path / "ft.pt")
    loaded = load_encoder(tmp_path / "ft.pt")
    features = model.pool(model.encode(model.patches(PIXELS)))
    assert isinstance(model.head, torch.nn.Linear)
    assert torch.allclose(model.head(loaded(PIXELS)), features, atol=1e-6)
    assert read_stored(tmp_path / "ft.pt").left_out == ()
    classifier = load(tmp_path / "ft.pt")
    assert isinstance(classifier, Classifier)
    assert torch.equal(classifier(PIXELS), model(PIXELS))
    assert (classifier.classes, classifier.config.name) == (tuple("012345678"), "EVA-02")
    [best, *_] = classifier.classify(PIXELS, top=1)[0]
    assert best[0] == str(int(model(PIXELS).argmax()))
    halved = load_encoder(tmp_path / "ft.pt", weights="ema")
    assert isinstance(halved, Eva02)
    assert torch.equal(halved.class_token, model.class_token * 0.5)


@pytest.mark.parametrize("layout", ["reference", "timm"])
def test_another_image_size_by_the_rule_of_the_source(tmp_path: Path, layout: str) -> None:
    config = replace(SMALL, embed_dim=0)
    model = encoder(config)
    theirs = to_published(model.state_dict(), config, layout="timm" if layout == "timm" else "reference")
    torch.save(theirs, tmp_path / "file.pt")
    loaded = load_encoder(tmp_path / "file.pt", image_size=(84, 42))
    assert isinstance(loaded, Eva02)
    rule = replace(config, image_size=(84, 42), resize="timm" if layout == "timm" else "reference")
    expected = resize_state(dict(model.state_dict()), config, rule)["position"]
    torch.testing.assert_close(loaded.position, expected)
    assert loaded.image_size == (84, 42)


PAIR = ClipConfig(
    name="EVA02",
    image=replace(SMALL, has_inner_norm=True, pooling="token"),
    text=ClipTextConfig(width=64, depth=1, heads=1, embed_dim=9, vocab_size=50),
    preprocess=PreprocessConfig(image_size=(56, 56)),
)


@pytest.mark.parametrize("layout", ["reference", "open_clip"])
def test_a_clip_of_the_release_and_of_open_clip(tmp_path: Path, layout: str) -> None:
    torch.manual_seed(0)
    clip = PAIR.build().eval()
    theirs = to_clip(clip.state_dict(), PAIR, layout="open_clip" if layout == "open_clip" else "reference")
    more = {"visual." + name: value for name, value in ROPE.items()} if layout == "reference" else {}
    torch.save({name: value.half() for name, value in (theirs | more).items()}, tmp_path / "clip.pt")
    loaded = load_clip(tmp_path / "clip.pt")
    assert isinstance(loaded, Clip)
    torch.testing.assert_close(loaded.image_features(PIXELS), clip.image_features(PIXELS), rtol=0, atol=2e-2)
    ids = torch.tensor([[1, 5, 49]])
    torch.testing.assert_close(loaded.text_features(ids), clip.text_features(ids), rtol=0, atol=2e-2)
    bigger = load_clip(tmp_path / "clip.pt", image_size=84)
    assert bigger.image.image_size == bigger.preprocess.image_size == (84, 84)


def test_a_run_folder_holds_one_and_opens_at_another_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    clip = create("TrV-Nano")
    save_model(tmp_path / "run", clip)
    loaded = load_clip(tmp_path / "run", image_size=64)
    assert loaded.image.image_size == (64, 64)
    again = load_clip(tmp_path / "run")
    assert isinstance(again.image, Eva02)
    assert again.config == clip.config
    pixels = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(again.image_features(pixels), clip.eval().image_features(pixels))


def test_a_fine_tuned_file_at_another_size_and_its_damage(tmp_path: Path) -> None:
    model = encoder(SMALL)
    state = to_published(model.state_dict(), SMALL, layout="reference")
    torch.save(state, tmp_path / "ft.pt")
    larger = load(tmp_path / "ft.pt", image_size=(84, 42))
    assert isinstance(larger, Classifier)
    assert larger.image_size == larger.preprocess.image_size == (84, 42)
    assert larger(torch.zeros(1, 3, 84, 42)).shape == (1, 9)
    torch.save({name: value for name, value in state.items() if name != "head.bias"}, tmp_path / "headless.pt")
    with pytest.raises(CheckpointError, match=r"headless.pt: .*a classifier of 9 classes: 1 missing: 'head.bias'"):
        load(tmp_path / "headless.pt")


def test_a_fine_tuned_file_becomes_a_run_folder_and_timm_s_file(tmp_path: Path) -> None:
    config = encoder_config("eva02_tiny_patch14_336")
    assert isinstance(config, Eva02Config)
    config = replace(config, image_size=(56, 56), embed_dim=9)
    model = encoder(config)
    torch.save(to_published(model.state_dict(), config, layout="reference"), tmp_path / "ft.pt")
    convert(tmp_path / "ft.pt", tmp_path / "run", to="eyesmith")
    convert(tmp_path / "ft.pt", tmp_path / "timm.safetensors", to="timm", parity=False)
    for name in ("ft.pt", "run", "timm.safetensors"):
        loaded = load(tmp_path / name)
        assert isinstance(loaded, Classifier), name
        with torch.no_grad():
            assert torch.equal(loaded(PIXELS), model(PIXELS)), name


def test_the_image_tower_of_a_clip_starts_from_a_fine_tuned_file(tmp_path: Path) -> None:
    config = encoder_config("eva02_tiny_patch14_224")
    assert isinstance(config, Eva02Config)
    config = replace(config, image_size=(28, 28), embed_dim=9)
    torch.save(to_published(encoder(config).state_dict(), config, layout="reference"), tmp_path / "ft.pt")
    stored = read_stored(tmp_path / "ft.pt", name="eva02_tiny_patch14_224")
    assert isinstance(stored.config, ClassifierConfig)
    assert (stored.config.image.image_size, stored.config.name) == ((224, 224), "eva02_tiny_patch14_224")
    convert(tmp_path / "ft.pt", tmp_path / "own.safetensors", to="eyesmith", name=stored.config.name, parity=False)
    again = load(tmp_path / "own.safetensors", name=stored.config.name)  # in our names, which say no size
    assert isinstance(again, Classifier)
    assert torch.equal(again.head.weight, stored.tensors["head.weight"])
    model = replace(config, image_size=(56, 56), embed_dim=0, pooling="mean").build()
    assert load_image(model, tmp_path / "ft.pt") == ()  # at its own grid, without the classes


def test_a_name_decides_image_and_patch_size(tmp_path: Path) -> None:
    """The release's p14to16 by its rule: kernel 14 to 16 px, table 16 x 16 to 14 x 14."""
    config = encoder_config("eva02_tiny_patch14_224")
    assert isinstance(config, Eva02Config)
    model = encoder(config)
    torch.save(to_published(model.state_dict(), config, layout="reference"), tmp_path / "file.pt")
    at_336 = load_encoder(tmp_path / "file.pt", name="eva02_tiny_patch14_336")
    assert at_336.image_size == (336, 336)
    with pytest.raises(ConfigError, match="eva02_small_patch14_224 has 12 blocks of width 384, the file 12 of 192"):
        load_encoder(tmp_path / "file.pt", name="eva02_small_patch14_224")
    with pytest.raises(ConfigError, match="is no EVA-02"):
        load_encoder(tmp_path / "file.pt", name="vitamin_small_224")


def test_a_damaged_file_says_what_is_missing(tmp_path: Path) -> None:
    state = to_published(encoder(SMALL).state_dict(), SMALL, layout="reference")
    del state["blocks.1.mlp.w3.bias"]
    torch.save(state, tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=r"file.pt: weights do not fit this EVA-02: 1 missing: 'blocks.1.mlp"):
        load(tmp_path / "file.pt")


@pytest.mark.parametrize("global_pool", ["token", "max", "avgmax"])
def test_a_bare_timm_file_that_does_not_tell_its_pooling_is_asked_for(tmp_path: Path, global_pool: str) -> None:
    tower = replace(SMALL, pooling="token", embed_dim=0).build().eval()
    file = tmp_path / "model.safetensors"
    save_file(own_memory(to_published(tower.state_dict(), tower.config, layout="timm")), file)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: its last norm stands before the pooling"):
        load(file)
    pixels = torch.randn(2, 3, *SMALL.image_size)
    found = load(file, pooling="token")
    torch.testing.assert_close(found(pixels), tower(pixels))
    assert load(file, pooling="normed_mean").config.pooling == "normed_mean"
    with pytest.raises(CheckpointError, match="pools by 'max', which is not offered"):
        load(file, pooling="max")
    load_image(replace(SMALL, embed_dim=0, pooling="mean").build(), file)  # of whatever pooling the run has
    config = timm_config(
        cast(Eva02Config, encoder_config("eva02_tiny_patch14_224")), PreprocessConfig(image_size=(56, 56))
    ) | {"global_pool": global_pool}
    (tmp_path / "config.json").write_text(json.dumps(config))
    if global_pool == "token":
        assert load(tmp_path).config.pooling == "token"
    else:
        with pytest.raises(CheckpointError, match=f"pools by '{global_pool}'"):
            load(tmp_path)


def test_a_timm_file_with_its_norm_behind_the_mean_tells(tmp_path: Path) -> None:
    tower = replace(SMALL, pooling="mean", embed_dim=0).build().eval()
    save_file(own_memory(to_published(tower.state_dict(), tower.config, layout="timm")), tmp_path / "x.safetensors")
    assert load(tmp_path / "x.safetensors").config.pooling == "mean"
    with pytest.raises(CheckpointError, match="after the mean"):
        load(tmp_path / "x.safetensors", pooling="token")
