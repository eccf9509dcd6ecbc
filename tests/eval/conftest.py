"""A world small enough to compute by hand: pictures of one colour, texts that name colours, a model that knows both."""

import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from eyesmith.data.make import make_miniatures
from eyesmith.data.sample import Finding, Sample
from eyesmith.images.transforms import PreprocessConfig
from eyesmith.models import create
from eyesmith.models.clip import Clip

COLOURS = {
    "red": (250, 10, 10),
    "green": (10, 250, 10),
    "blue": (10, 10, 250),
    "pink": (250, 120, 130),
    "cyan": (20, 240, 230),
    "grey": (130, 130, 130),
}


def png(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), colour).save(buffer, "PNG")
    return buffer.getvalue()


class ColourClip(nn.Module):
    """Features are colours as directions; a text's feature is the colour it names, bent a little by its length."""

    def __init__(self, wrong: dict[str, str] | None = None) -> None:
        super().__init__()
        self.preprocess = PreprocessConfig(image_size=(4, 4))
        self.prompts = ("a photo of a {}.",)
        self.config = SimpleNamespace(name="Colour", lock_text=False)
        self.logit_scale = nn.Parameter(torch.tensor(3.0))
        self.text = nn.Linear(1, 1).requires_grad_(False)
        self.image = nn.Identity()
        self.image.embed_dim = 3
        self.wrong = wrong or {}
        self.encoded_texts: list[str] = []
        self.encoded_batches: list[int] = []

    def encode_image(self, images: Tensor, *, batch_size: int = 64) -> Tensor:
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, 4, 4)
        self.encoded_batches.append(len(images))
        return nn.functional.normalize(images.float().mean((2, 3)), dim=-1)

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 256) -> Tensor:
        self.encoded_texts += texts
        return torch.stack([self.text_row(text) for text in texts])

    def text_row(self, text: str) -> Tensor:
        colour = next((name for name in COLOURS if name in text), "grey")
        row = torch.tensor(COLOURS[self.wrong.get(colour, colour)]).float()
        return nn.functional.normalize(row + torch.tensor([0.0, len(text) % 7, 0.0]), dim=-1)


class ListSource:
    """A source over lists: (key, image bytes, texts, label)."""

    def __init__(
        self, samples: Sequence[tuple[str, bytes, tuple[str, ...], int | None]], classes: Sequence[str] | None = None
    ) -> None:
        self.name = "list"
        self.problems: list[Finding] = []
        self._samples = list(samples)
        self.classes = None if classes is None else tuple(classes)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        key, image, texts, _ = self._samples[index]
        return Sample(key, image, texts, {})

    @property
    def keys(self) -> list[str]:
        return [sample[0] for sample in self._samples]

    @property
    def labels(self) -> list[int] | None:
        return None if self.classes is None else [sample[3] for sample in self._samples]

    def image_bytes(self, index: int) -> bytes:
        return self._samples[index][1]

    def texts(self, index: int) -> tuple[str, ...]:
        return self._samples[index][2]


@pytest.fixture
def colours() -> dict[str, tuple[int, int, int]]:
    return COLOURS


@pytest.fixture
def make_clip() -> type[ColourClip]:
    return ColourClip


@pytest.fixture
def make_source() -> type[ListSource]:
    return ListSource


@pytest.fixture
def colour_source() -> ListSource:
    """Each colour twice, the second time a little darker, with two captions."""
    samples = []
    for label, (name, colour) in enumerate(COLOURS.items()):
        for shade in (1.0, 0.8):
            image = png(tuple(int(value * shade) for value in colour))
            samples.append((f"{name}-{shade}", image, (f"{name} thing", f"a {name} wall"), label))
    return ListSource(samples, classes=list(COLOURS))


@pytest.fixture
def make_png() -> object:
    return png


KEYS = (
    "cifar10",
    "vtab/pets",
    "imagenet-real",
    "voc2007_multilabel",
    "retrieval/flickr_1k_test_image_text_retrieval",
    "misc/winogavil",
    "wilds/iwildcam",
    "wilds/fmow",
    "fairness/dollar_street",
    "fairness/fairface",
    "video/kinetics400",
)


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    make_miniatures(root, KEYS)
    return root


@pytest.fixture(scope="session")
def clip() -> Clip:
    torch.manual_seed(0)
    return create("ViTamin-Nano").eval()
