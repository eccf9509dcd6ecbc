"""A checkpoint that open_clip wrote: loaded without a name, written back, and opened by open_clip again."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from eyesmith.hub.convert import convert
from eyesmith.hub.load import load, load_clip
from eyesmith.hub.parity import TEXTS, sample_images
from eyesmith.hub.weights import read_tensors
from eyesmith.models.foreign.torchvision import ensure_torchvision

pytestmark = pytest.mark.skipif(find_spec("open_clip") is None, reason="needs open_clip_torch")


@pytest.fixture(scope="module")
def theirs() -> Any:
    ensure_torchvision()
    import open_clip

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model("ViTamin-S", pretrained=None).eval()
        with torch.no_grad():  # biases and norms start at 0 and 1, where a swap of two of them would not show
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model


@pytest.fixture(scope="module")
def checkpoint(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As open_clip's training writes it."""
    path = tmp_path_factory.mktemp("theirs") / "epoch_1.pt"
    torch.save({"epoch": 1, "name": "run", "state_dict": theirs.state_dict(), "optimizer": {"state": {}}}, path)
    return path


def test_the_checkpoint_loads_by_its_tensors_and_gives_their_features(theirs: Any, checkpoint: Path) -> None:
    clip = load_clip(checkpoint)
    assert clip.config.name == "ViTamin-S"
    images = sample_images()[:3]
    from open_clip import get_tokenizer, image_transform

    transform: Any = image_transform(224, is_train=False)
    pixels = torch.stack([transform(image) for image in images])
    with torch.no_grad():
        image = F.normalize(theirs.encode_image(pixels), dim=-1)
        text = F.normalize(theirs.encode_text(get_tokenizer("ViTamin-S")(list(TEXTS))), dim=-1)
    torch.testing.assert_close(clip.encode_image(images), image, rtol=0, atol=1e-5)
    torch.testing.assert_close(clip.encode_text(TEXTS), text, rtol=0, atol=1e-5)


def test_a_folder_of_ours_opens_in_open_clip_with_the_same_bits(theirs: Any, checkpoint: Path, tmp_path: Path) -> None:
    import open_clip

    done = convert(checkpoint, tmp_path / "folder", to="hugging_face")
    assert {(row.peer, row.part) for row in done.rows} == {("open_clip", "image"), ("open_clip", "text")}
    assert done.ok
    assert done.notes == ()
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'folder'}")
    expected = theirs.state_dict()
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert "size=224" in str(transform)
    clip = load(tmp_path / "folder")
    convert(tmp_path / "folder", tmp_path / "back.pt", to="open_clip", parity=False)
    back = read_tensors(tmp_path / "back.pt")
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[name], value) for name, value in expected.items())
    assert torch.equal(clip.state_dict()["logit_scale"], expected["logit_scale"])


@pytest.mark.slow
def test_the_root_layout_is_that_of_their_older_class(checkpoint: Path, tmp_path: Path) -> None:
    done = convert(checkpoint, tmp_path / "root.pt", to="open_clip_root")
    assert len(done.rows) == 2
    assert done.ok
    assert "positional_embedding" in read_tensors(tmp_path / "root.pt")
