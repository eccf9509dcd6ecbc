"""`eyesmith eval --explain`: one picture from its bytes to its rank, beside open_clip."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image

from eyesmith.cli.main import main
from eyesmith.hub import save_model
from eyesmith.models import create

Eyesmith = Callable[..., tuple[int, str, str]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.manual_seed(0)
    save_model(tmp_path / "run", create("ViTamin-Nano").eval())
    for name, colour in (("cat/1", "red"), ("dog/1", "blue"), ("dog/2", "green")):
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.radial_gradient("L").resize((90, 70)).convert("RGB").point(lambda x, c=colour: x ^ len(c)).save(path)
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def eyesmith(place: Path, capsys: pytest.CaptureFixture[str]) -> Eyesmith:
    def run(*words: object) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    return run


def test_the_rank_is_that_of_the_evaluation_and_what_is_kept_is_compared(eyesmith: Eyesmith, place: Path) -> None:
    status, out, err = eyesmith("eval", "run", "photos", "--explain", "dog/2.png", "--json")
    assert status == 0, err
    steps = {step["name"]: step for step in json.loads(out)}
    assert steps["kept image feature"]["ours"].startswith("none")
    assert steps["classifier"]["ours"] == "computed, 2 rows"
    assert steps["first sentence"]["ours"] == "a photo of a dog."
    assert steps["file"]["ours"] == "PNG, 90 x 70, RGB"
    assert eyesmith("eval", "run", "photos", "--out", "out")[0] == 0
    _, out, _ = eyesmith("eval", "run", "photos", "--explain", "dog/2.png", "--json")
    again = {step["name"]: step for step in json.loads(out)}
    said = again["kept image feature"]["ours"].removeprefix("cosine with the one computed now ")
    assert said.startswith(("1.0000", "0.99999"))
    assert again["classifier"]["ours"] == "kept from before, 2 rows"
    assert again["rank of the right class"] == steps["rank of the right class"]
    status, _, err = eyesmith("eval", "run", "photos", "--explain", "dog/3.png")
    assert status == 2
    assert "did you mean dog/2.png" in err or "dog/2.png" in err


@pytest.mark.skipif(find_spec("open_clip") is None, reason="needs open_clip")
@pytest.mark.filterwarnings("ignore")  # of torch and timm, about their calls
def test_every_step_agrees_with_open_clip_and_the_first_that_does_not_is_marked(
    eyesmith: Eyesmith, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    save_model(place / "small", create("ViTamin-S").eval())  # the smallest that open_clip builds
    status, out, err = eyesmith("eval", "small", "photos", "--explain", "cat/1.png", "--json")
    assert status == 0, err
    steps = json.loads(out)
    compared = {step["name"] for step in steps if step["is_equal"] is not None}
    assert {"resized and cut", "normalised", "token ids", "image feature", "text feature", "scale"} <= compared, err
    assert all(step["is_equal"] for step in steps if step["is_equal"] is not None), steps
    from eyesmith.eval.features import explain as module

    exact = module.evaluation_pixels
    monkeypatch.setattr(module, "evaluation_pixels", lambda raw, config: exact(raw, config).roll(1, 2))
    status, out, err = eyesmith("eval", "small", "photos", "--explain", "cat/1.png")
    assert status == 0
    assert "first difference" in " ".join(out.split())
    assert "open_clip differs from: resized and cut" in err
