"""A small untrained model as a run folder, and a folder of pictures with two broken ones among them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from eyesmith.cli.main import main
from eyesmith.hub import save_model
from eyesmith.models import create


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs") / "nano"
    save_model(folder, create("ViTamin-Nano").eval())
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name, colour in (("cat/red", "red"), ("cat/blue", "blue"), ("dog/green", "green")):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 50), colour).save(path)
    return folder


@pytest.fixture
def broken(photos: Path) -> Path:
    """Makes the folder of pictures one with a text called .jpg and half a PNG in it."""
    (photos / "dog" / "text.jpg").write_text("no image")
    whole = (photos / "cat" / "red.png").read_bytes()
    (photos / "dog" / "half.png").write_bytes(whole[: len(whole) // 2])
    return photos


Eyesmith = Callable[..., tuple[int, str, str]]


@pytest.fixture
def eyesmith(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Eyesmith:
    """Runs a command line in this process: exit status, stdout, stderr. Never a traceback."""
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EYESMITH_DEBUG", raising=False)

    def run(*words: object) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, out, err

    return run
