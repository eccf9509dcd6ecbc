"""A file that timm wrote: loaded without a name, written back, and opened by timm again."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from eyesmith.hub.convert import convert
from eyesmith.hub.load import load, load_encoder
from eyesmith.hub.weights import read_tensors
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.vitamin.model import ViTamin

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")


def perturbed(name: str, **options: Any) -> Any:
    ensure_torchvision()
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = timm.create_model(name, **options).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
            if options["num_classes"]:
                model.head.bias.zero_()
    return model


@pytest.fixture(scope="module")
def small() -> Any:
    return perturbed("vitamin_small_224", num_classes=384)


@pytest.fixture(scope="module")
def file(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("theirs") / "model.safetensors"
    save_file(small.state_dict(), path)
    return path


def test_the_file_loads_by_its_tensors_and_gives_their_features(small: Any, file: Path) -> None:
    encoder = load(file)
    assert isinstance(encoder, ViTamin)
    assert (encoder.image_size, encoder.embed_dim) == ((224, 224), 384)
    pixels = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels), small(pixels), rtol=0, atol=1e-5)


def test_a_headless_model_at_another_size(tmp_path: Path) -> None:
    peer = perturbed("vitamin_small_224", num_classes=0, img_size=(64, 64))
    torch.save({"state_dict": peer.state_dict()}, tmp_path / "h.pth")
    encoder = load_encoder(tmp_path / "h.pth")
    assert (encoder.image_size, encoder.embed_dim) == ((64, 64), 384)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels), peer(pixels), rtol=0, atol=1e-5)
    done = convert(tmp_path / "h.pth", tmp_path / "folder", to="hugging_face_timm")
    assert [(row.peer, row.part, row.ok) for row in done.rows] == [("timm", "image", True)]
    assert load_encoder(tmp_path / "folder").image_size == (64, 64)


def test_a_folder_of_ours_opens_in_timm_with_the_same_bits(small: Any, file: Path, tmp_path: Path) -> None:
    import timm
    from timm.data.config import resolve_model_data_config

    done = convert(file, tmp_path / "folder", to="hugging_face_timm")
    assert done.ok
    assert len(done.rows) == 1
    model: Any = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True)
    expected, found = small.state_dict(), model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    data = resolve_model_data_config(model)
    assert (data["input_size"], data["crop_pct"], data["interpolation"]) == ((3, 224, 224), 1.0, "bicubic")
    convert(tmp_path / "folder", tmp_path / "back.safetensors", to="timm", parity=False)
    back = read_tensors(tmp_path / "back.safetensors")
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[name], value) for name, value in expected.items())


def test_a_classifier_loads_as_the_encoder_below_it(small: Any, tmp_path: Path) -> None:
    state = small.state_dict() | {"head.weight": torch.randn(1000, 384), "head.bias": torch.randn(1000)}
    torch.save(state, tmp_path / "classes.pth")
    encoder = load_encoder(tmp_path / "classes.pth")
    assert encoder.embed_dim == 384
    pixels = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = small.forward_head(small.forward_features(pixels), pre_logits=True)
        torch.testing.assert_close(encoder(pixels), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_wrong_weights_do_not_pass(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eyesmith.hub import convert as module

    right = module.to_timm

    def swapped(state: Any, config: Any) -> Any:
        found = right(state, config)
        one, other = (f"blocks.3.mlp.{name}.weight" for name in ("w0", "w1"))
        found[one], found[other] = found[other], found[one]
        return found

    monkeypatch.setattr(module, "to_timm", swapped)
    done = convert(file, tmp_path / "swapped.safetensors", to="timm")
    assert [row.ok for row in done.rows] == [False]
    assert not done.ok
    assert "NOT the same" in done.lines()[-1]
