"""Two models on the same images: the table's numbers are those of the verbs that measure one model."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image

import eyesmith
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval import evaluate_own
from eyesmith.eval.comparison.models import compare_models
from eyesmith.hub import save_model
from eyesmith.hub.licence import licence_of, read_licence
from eyesmith.models.clip import Clip, ClipConfig

needs_packages = pytest.mark.skipif(find_spec("open_clip") is None or find_spec("timm") is None, reason="needs both")


@pytest.fixture
def run(tmp_path: Path, tiny_model: ClipConfig) -> Path:
    torch.manual_seed(1)
    save_model(tmp_path / "run", tiny_model.build().eval())
    return tmp_path / "run"


@needs_packages
def test_two_models_side_by_side(run: Path, open_clip_folder: Path, pairs: Path) -> None:
    other = f"open_clip:{open_clip_folder}"
    found = compare_models(str(run), other, str(pairs), batch_size=2)
    for source, facts in ((str(run), found.a), (other, found.b)):
        clip = eyesmith.load(source)
        assert isinstance(clip, Clip)
        alone = {row.metric: row.value for row in evaluate_own(clip, pairs).rows}
        assert {row.metric: row.value for row in found.rows if row.model == source} == alone
        assert facts.image_params == sum(one.numel() for one in clip.image.parameters())
        assert facts.weights_mib * 1024**2 == 4 * sum(one.numel() for one in [*clip.parameters(), *clip.buffers()])
        assert 0 < facts.images_per_s_low <= facts.images_per_s <= facts.images_per_s_high
        assert facts.memory_mib > 2 * 3 * 32 * 32 * 4 / 1024**2  # the batch as floats
    assert (found.a.origin, found.b.origin) == ("native", "open_clip")
    (task,) = found.difference.tasks
    values = {row.model: row.value for row in found.rows if row.metric == "acc1"}
    assert task.result.difference.value == pytest.approx(values[other] - values[str(run)])
    assert task.result.n == 24


def test_captions_without_classes_are_refused_with_the_way_to_compare_them(run: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (30, 40), "red" if name == "a" else "blue").save(tmp_path / f"{name}.png")
    table = tmp_path / "pairs.csv"
    table.write_text("image,caption\na.png,red\nb.png,blue\n")
    with pytest.raises(DataError, match=r"pairs\.csv: has no classes.*labelled images.*eyesmith compare"):
        compare_models(str(run), str(run), str(table))


@needs_packages
def test_a_model_without_texts_needs_images_to_learn_from(run: Path, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="timm:test_vit: has no text tower.*give --train"):
        compare_models(str(run), "timm:test_vit", str(pairs))
    test = tmp_path / "test"
    for colour in ("red", "blue"):
        (test / colour).mkdir(parents=True)
        for side in range(3):
            Image.new("RGB", (30 + side, 40), colour).save(test / colour / f"{side}.png")
    train = tmp_path / "train"
    for colour in ("red", "blue"):
        (train / colour).mkdir(parents=True)
        for side in range(4):
            Image.new("RGB", (50 + side, 40), colour).save(train / colour / f"{side}.png")
    found = compare_models(str(run), "timm:test_vit", str(test), train=str(train), batch_size=1)
    assert found.b.text_params is None
    assert {row.task for row in found.rows} == {"probe_linear"}
    assert found.difference.tasks[0].result.n == 6


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags:\n- x\n---\n# Model", "apache-2.0"),
        ("---\nlicense: 'mit'\n---\n", "mit"),
        ("---\nlicense: other\nlicense_name: dinov3-license\n---\n", "dinov3-license"),
        ("---\ntags: [x]\n---\nlicense: mit in the text", None),
        ("# No front matter\nlicense: mit", None),
    ],
)
def test_the_licence_is_what_the_card_states(card: str, licence: str | None) -> None:
    assert read_licence(card) == licence


@needs_packages
def test_licences_of_sources(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert licence_of("timm:vit_base_patch16_dinov3.lvd1689m") == "dinov3-license"  # timm's own entry
    assert licence_of("timm:test_vit") is None
    assert licence_of(str(run)) is None
    (run / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    assert licence_of(str(run)) == licence_of(str(run / "model.safetensors")) == "cc-by-4.0"
    assert licence_of("hf:me/nothing") is None
