from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from eyesmith import load, load_encoder
from eyesmith.errors import ConfigError, ShapeError
from eyesmith.hub import save_model
from eyesmith.hub.verification import verify
from eyesmith.models.classifier import Classifier, ClassifierConfig, classifier_config
from eyesmith.models.conformance import check_encoder
from eyesmith.models.eva02.model import EVA02, Eva02Config
from eyesmith.models.vitamin.model import ViTaminConfig

CLASSES = ("cat", "dog", "fox")
TRV = Eva02Config(
    image_size=(32, 32), patch_px=8, width=16, depth=2, num_heads=1, hidden_dim=24, embed_dim=0, pooling="mean"
)
VITAMIN = ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 2), num_heads=2, embed_dim=0)


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    made = classifier_config("tiny", TRV, CLASSES).build().eval()
    nn.init.normal_(made.head.weight)
    return made


@pytest.mark.parametrize("image", [TRV, VITAMIN])
def test_a_classifier_is_an_encoder_of_logits(image: Eva02Config | ViTaminConfig) -> None:
    check_encoder(classifier_config("tiny", image, CLASSES).build())


def test_it_is_the_reference_s_tail(classifier: Classifier) -> None:
    """Mean of the patches without the class token, norm, head."""
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    trunk = classifier.image
    tokens = trunk.tokens(pixels, -1)  # [B, N, C]
    norm = trunk.get_submodule("norm")
    assert isinstance(norm, nn.LayerNorm)
    wanted = classifier.head(norm(tokens.mean(1)))
    torch.testing.assert_close(classifier(pixels), wanted)


def test_a_new_head_is_tiny_and_scales() -> None:
    made = classifier_config("wide", replace(EVA02["tiny"], depth=1), tuple(map(str, range(1000)))).build()
    assert made.head.weight.std().item() == pytest.approx(0.02 * 0.001, rel=0.02)
    assert not made.head.bias.any()
    made.start_head(1.0)
    assert made.head.weight.std().item() == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize(
    ("size", "side", "count"),
    [("tiny", 196, 5_683_624), ("tiny", 336, 5_756_584), ("small", 336, 22_129_000), ("base", 448, 87_117_544)],
)
def test_parameters_are_those_of_the_reference(size: str, side: int, count: int) -> None:
    image = replace(EVA02[size], image_size=(side, side))
    with torch.device("meta"):
        made = classifier_config(size, image, tuple(map(str, range(1000)))).build()
    assert sum(parameter.numel() for parameter in made.parameters()) == count


def test_classify_names_the_likeliest_first(classifier: Classifier) -> None:
    pictures = [Image.new("RGB", (40, 50), color) for color in ("red", "blue")]
    found = classifier.classify(pictures, top=2)
    shares = classifier.probabilities(pictures)
    for row, best in zip(shares.tolist(), found, strict=True):
        assert sum(row) == pytest.approx(1, abs=1e-6)
        order = sorted(range(3), key=lambda k: -row[k])[:2]
        assert best == [(CLASSES[k], row[k]) for k in order]
    assert len(classifier.classify(pictures[0])[0]) == 3
    with pytest.raises(ShapeError):
        classifier.probabilities(torch.zeros(1, 3, 30, 32))
    with pytest.raises(ConfigError, match="top"):
        classifier.classify(pictures, top=0)


def test_a_saved_classifier_opens_as_itself_and_as_an_encoder(classifier: Classifier, tmp_path: Path) -> None:
    save_model(tmp_path, classifier)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    again, encoder = load(tmp_path), load_encoder(tmp_path)
    assert isinstance(again, Classifier)
    assert again.classes == CLASSES
    torch.testing.assert_close(again(pixels), classifier(pixels), rtol=0, atol=0)
    torch.testing.assert_close(encoder(pixels), classifier.image(pixels), rtol=0, atol=0)
    assert verify(tmp_path).ok
    larger = load(tmp_path, image_size=48)
    assert isinstance(larger, Classifier)
    assert larger.image_size == larger.preprocess.image_size == larger.image.image_size == (48, 48)
    classifier.set_image_size(48, 48)
    wide = torch.randint(0, 256, (1, 3, 48, 48), dtype=torch.uint8)
    torch.testing.assert_close(larger(wide), classifier(wide))


def test_wrong_configs_are_refused() -> None:
    with pytest.raises(ConfigError, match="classes"):
        classifier_config("x", TRV, ("cat", "cat"))
    with pytest.raises(ConfigError, match=r"image\.embed_dim"):
        classifier_config("x", replace(TRV, embed_dim=8), CLASSES)
    with pytest.raises(ConfigError, match=r"preprocess\.image_size"):
        ClassifierConfig(
            name="x",
            image=TRV,
            classes=CLASSES,
            preprocess=classifier_config("y", replace(TRV, image_size=(64, 64)), CLASSES).preprocess,
        )
