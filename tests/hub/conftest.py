import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from eyesmith.hub.run_folder import save_model
from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig

SIZE = (32, 32)
CONFIG = ClipConfig(
    name="Tiny",
    image=ViTaminConfig(image_size=SIZE, widths=(8, 16, 32), depths=(1, 1, 1), num_heads=2, embed_dim=16),
    text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16, context_len=20),
    preprocess=PreprocessConfig(image_size=SIZE),
    prompts=("a drawing of a {}",),
)


@pytest.fixture(scope="session")
def tiny_config() -> ClipConfig:
    return CONFIG


@pytest.fixture(scope="session")
def tiny() -> Clip:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return CONFIG.build()


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory, tiny: Clip) -> Path:
    """A run folder, saved once; tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    save_model(folder, tiny, config={"train": {"epochs": 3}})
    return folder


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(saved, tmp_path / "run"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the network was used")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    return refuse
