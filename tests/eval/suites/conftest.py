"""Miniature copies of some sets of every layout, and a tiny untrained model."""

from pathlib import Path

import pytest
import torch

from eyesmith.data.evaluation import make_miniatures
from eyesmith.models import create
from eyesmith.models.clip import Clip

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
