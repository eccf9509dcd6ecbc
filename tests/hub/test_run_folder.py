import dataclasses
import json
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.eval.heads import link_of
from eyesmith.hub import run_folder
from eyesmith.hub.fingerprint import TEXTS, fixed_images
from eyesmith.hub.run_folder import is_run_folder, load_model, read_config, save_model
from eyesmith.hub.verification import verify
from eyesmith.hub.weights import own_memory
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.text.hugging_face import HuggingFaceTextConfig


def test_a_loaded_model_is_the_saved_one(saved: Path, tiny: Clip, no_network: Any) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    clip = load_model(saved)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not clip.training
    assert clip.config == tiny.config
    assert clip.state_dict().keys() == tiny.state_dict().keys()
    assert all(torch.equal(tensor, tiny.state_dict()[name]) for name, tensor in clip.state_dict().items())
    assert torch.equal(clip.encode_image(fixed_images()), tiny.encode_image(fixed_images()))
    assert torch.equal(clip.encode_text(TEXTS), tiny.encode_text(TEXTS))


def test_the_tokenizer_comes_from_the_folder(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eyesmith.tokenizer.clip import ClipTokenizer

    real = ClipTokenizer.load

    def only_from_a_path(path: Any = None, **options: Any) -> ClipTokenizer:
        assert path is not None, "the vocabulary of the package was read"
        assert Path(path).is_relative_to(saved)
        return real(path, **options)

    monkeypatch.setattr(ClipTokenizer, "load", only_from_a_path)
    load_model(saved).encode_text(["a cat"])


def test_config_says_who_wrote_it_and_keeps_what_the_caller_adds(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    assert config["eyesmith_version"]
    assert config["train"] == {"epochs": 3}
    assert config["model"]["name"] == "Tiny"
    assert sorted(path.name for path in saved.iterdir()) == [
        "config.json",
        "fingerprint.json",
        "model.safetensors",
        "text",
    ]


def test_another_model_in_the_callers_config_is_refused(tmp_path: Path, tiny: Clip) -> None:
    with pytest.raises(ConfigError, match="another model"):
        save_model(tmp_path / "run", tiny, config={"model": {"name": "Other"}})
    assert not (tmp_path / "run").exists()


def test_the_config_of_a_run_can_be_given_back(run: Path, tiny: Clip) -> None:
    config = read_config(run)
    save_model(run, tiny, config=config)
    assert read_config(run) == config


def test_a_run_can_be_saved_again_and_moved(run: Path, tmp_path: Path) -> None:
    clip = load_model(run)
    with torch.no_grad():
        clip.logit_scale.add_(1)
    save_model(run, clip)  # the tokenizer is read from the folder that is written to
    assert verify(run).ok
    shutil.move(run, tmp_path / "elsewhere")
    assert torch.equal(load_model(tmp_path / "elsewhere").logit_scale, clip.logit_scale)


def test_everybody_who_may_read_the_config_may_read_the_weights(saved: Path) -> None:
    assert (saved / "model.safetensors").stat().st_mode == (saved / "config.json").stat().st_mode


def test_what_a_killed_save_left_is_cleared_away(run: Path, tiny: Clip) -> None:
    (run / ".model.safetensors.123-abc.part").write_bytes(b"half")
    assert verify(run).ok
    save_model(run, tiny)
    assert not list(run.glob(".*"))


def test_another_image_size_is_saved_as_it_is_now(run: Path, tmp_path: Path) -> None:
    clip = load_model(run)
    clip.image.set_image_size(48, 64)
    clip.preprocess = dataclasses.replace(clip.preprocess, image_size=(48, 64))
    save_model(tmp_path / "bigger", clip)
    assert load_model(tmp_path / "bigger").image.image_size == (48, 64)
    assert verify(tmp_path / "bigger").ok


def test_weights_of_another_model_name_tensors_and_shapes(run: Path, tiny_config: ClipConfig, tmp_path: Path) -> None:
    other = dataclasses.replace(tiny_config, image=dataclasses.replace(tiny_config.image, widths=(8, 16, 48)))
    save_model(tmp_path / "other", other.build())
    shutil.copy(tmp_path / "other" / "model.safetensors", run)
    with pytest.raises(
        CheckpointError, match=r"config.json says Tiny.*another model.*'image\.\S+': \[.*48.*\], the model needs \["
    ):
        load_model(run)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (["model.safetensors"], r"not finished.*eyesmith resume"),
        (["config.json"], "has weights but no config.json"),
        (["config.json", "model.safetensors"], "no run folder"),
        (["text"], "text/ with the tokenizer is missing"),
    ],
)
def test_what_is_missing_is_named(run: Path, gone: list[str], message: str) -> None:
    for name in gone:
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    with pytest.raises(CheckpointError, match=message):
        load_model(run)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model": ', "cannot be read as JSON"),
        ('{"model_type": "bert"}', "not the config of an eyesmith run"),
        ('{"eyesmith_version": "9.0", "model": {"name": "x", "eyes": 2}}', "written by eyesmith 9.0.*|eyes"),
        ("[]", "not the config"),
    ],
)
def test_a_strange_config_is_an_error(run: Path, content: str, message: str) -> None:
    (run / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        load_model(run)


def test_a_folder_that_is_none(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(CheckpointError, match="no such run folder"):
        read_config(tmp_path / "none")
    assert is_run_folder(saved)
    assert not is_run_folder(tmp_path)


def test_a_full_disk_leaves_the_old_model_whole(run: Path, tiny: Clip) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    model_bytes = os.path.getsize(run / "model.safetensors")
    resource.setrlimit(resource.RLIMIT_FSIZE, (model_bytes // 2, old[1]))
    try:
        with pytest.raises(Exception, match=r"(?i)too large"):
            save_model(run, tiny, config={"train": {"epochs": 3}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_stop_before_the_weights_leaves_an_unfinished_run(
    tmp_path: Path, tiny: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_folder, "save_file", stop)
    with pytest.raises(KeyboardInterrupt):
        save_model(tmp_path / "run", tiny)
    assert not list((tmp_path / "run").glob("*.safetensors"))
    with pytest.raises(CheckpointError, match="not finished"):
        load_model(tmp_path / "run")


def test_tensors_that_share_memory_or_lie_scattered_can_be_saved(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    found = own_memory({"a": whole, "b": whole, "c": whole.T, "d": whole[1]})
    from safetensors.torch import load_file, save_file

    save_file(found, tmp_path / "t")
    back = load_file(tmp_path / "t")
    assert torch.equal(back["c"], whole.T)
    assert torch.equal(back["d"], whole[1])
    assert torch.equal(back["a"], back["b"])


def make_text_encoder(folder: Path) -> None:
    """A Hugging Face text encoder of a few thousand numbers."""
    ensure_torchvision()
    transformers = pytest.importorskip("transformers")
    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "cat", "##s", "dog"]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)


def test_a_hugging_face_text_tower_needs_nothing_but_the_run_folder(
    tmp_path: Path, tiny_config: ClipConfig, no_network: Any
) -> None:
    make_text_encoder(tmp_path / "encoder")
    text = HuggingFaceTextConfig(source=str(tmp_path / "encoder"), context_len=8)
    clip = dataclasses.replace(tiny_config, text=text, lock_text=True).build()
    expected = clip.encode_text(["a cat", "photo of a dog"])
    save_model(tmp_path / "run", clip)
    shutil.rmtree(tmp_path / "encoder")
    loaded = load_model(tmp_path / "run")
    assert torch.equal(loaded.encode_text(["a cat", "photo of a dog"]), expected)
    assert loaded.config == clip.config
    assert verify(tmp_path / "run").ok
    save_model(tmp_path / "again", loaded)
    shutil.rmtree(tmp_path / "run")
    assert torch.equal(load_model(tmp_path / "again").encode_text(["a cat", "photo of a dog"]), expected)


def test_the_bias_of_the_sigmoid_loss_comes_back_and_makes_probabilities(tiny: Clip, tmp_path: Path) -> None:
    save_model(tmp_path / "run", tiny, logit_bias=torch.tensor(-3.0))
    clip = load_model(tmp_path / "run")
    assert isinstance(clip, Clip)
    link = link_of(clip)
    assert (link.kind, link.bias) == ("sigmoid", -3.0)
    assert link_of(tiny).kind == "softmax"
    names = ["cat", "dog"]
    cosines = clip.encode_image(fixed_images()) @ clip.class_weights(names).mT
    expected = (clip.logit_scale.exp() * cosines - 3).sigmoid()
    torch.testing.assert_close(clip.classify(fixed_images(), names), expected)
    save_model(tmp_path / "again", clip)
    again = load_model(tmp_path / "again")
    assert isinstance(again, Clip)
    assert again.logit_bias is not None
    assert tiny.logit_bias is None
    assert verify(tmp_path / "run").ok
    save_model(tmp_path / "run", tiny)
    assert load_model(tmp_path / "run").logit_bias is None
