"""Models of other packages by ids and folders: loaded, resized, kept, refused; never with the network once cached."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import eyesmith
from eyesmith.errors import CheckpointError, ConfigError, MissingDependencyError
from eyesmith.hub import save_model, verify
from eyesmith.hub.foreign import foreign_config
from eyesmith.hub.stored import read_stored
from eyesmith.models.clip import Clip
from eyesmith.models.encoder import Encoder
from eyesmith.models.foreign.packages import import_open_clip, import_timm
from eyesmith.models.foreign.timm import TimmConfig
from eyesmith.models.identity import module_hash

PACKAGES = ("open_clip", "timm", "transformers")
pytestmark = [
    pytest.mark.skipif(any(find_spec(name) is None for name in PACKAGES), reason="needs the other packages"),
    pytest.mark.usefixtures("no_network", "offline_cache"),
]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def offline_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def _put(cache: Path, repo: str, files: dict[str, Path | str]) -> None:
    root = cache / ("models--" + repo.replace("/", "--"))
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    target = root / "snapshots" / COMMIT
    target.mkdir(parents=True)
    for name, content in files.items():
        if isinstance(content, Path):
            shutil.copy(content, target / name)
        else:
            (target / name).write_text(content)


def _same(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_an_id_without_a_tag_is_the_same_random_model_every_time() -> None:
    torch.manual_seed(1)
    first = eyesmith.load("timm:test_vit")
    state = torch.random.get_rng_state()
    second = eyesmith.load("timm:test_vit")
    assert isinstance(first, Encoder)
    assert _same(first, second)
    assert torch.equal(state, torch.random.get_rng_state())
    # timm's entry of this model
    pictures = first.evaluation_config()
    assert (pictures.image_size, pictures.mean, pictures.crop_frac) == ((160, 160), (0.5, 0.5, 0.5), 0.95)


def test_timms_weights_come_from_the_cache_by_their_tag(offline_cache: Path, tmp_path: Path) -> None:
    timm = import_timm("a test")
    torch.manual_seed(2)
    theirs = timm.create_model("test_vit", num_classes=1000).eval()
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    config = json.dumps({"architecture": "test_vit", "num_classes": 1000, "pretrained_cfg": {"tag": "r160_in1k"}})
    _put(
        offline_cache,
        "timm/test_vit.r160_in1k",
        {"model.safetensors": tmp_path / "w.safetensors", "config.json": config},
    )
    encoder = eyesmith.load("timm:test_vit.r160_in1k")
    assert isinstance(encoder, Encoder)
    pixels = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        features = theirs.forward_head(theirs.forward_features(pixels), pre_logits=True)
        torch.testing.assert_close(encoder(pixels), features)
    by_repo = eyesmith.load("hf:timm/test_vit.r160_in1k")
    assert _same(by_repo, encoder)


def test_open_clips_weights_come_from_the_cache_and_have_the_activation_they_were_trained_with(
    offline_cache: Path, open_clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_clip = import_open_clip("a test")
    content = json.loads((open_clip_folder / "open_clip_config.json").read_text())
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny", content["model_cfg"])
    entry = {"hf_hub": "me/tiny/", "url": "", "quick_gelu": True, **content["preprocess_cfg"]}
    monkeypatch.setitem(
        open_clip.pretrained._PRETRAINED, "Tiny", {"mine": entry, "file": entry | {"hf_hub": "me/tiny/w.pt"}}
    )
    names = ("open_clip_config.json", "open_clip_model.safetensors")
    _put(offline_cache, "me/tiny", {name: open_clip_folder / name for name in names})
    clip = eyesmith.load("open_clip:Tiny/mine")
    assert isinstance(clip, Clip)
    assert clip.config.name == "open_clip:Tiny/mine"
    assert (clip.preprocess.resize, clip.preprocess.interpolation) == ("squash", "bilinear")
    theirs = open_clip.create_model(f"local-dir:{open_clip_folder}", force_quick_gelu=True).eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(clip.image(pixels), theirs.encode_image(pixels))
    assert _same(eyesmith.load("hf:me/tiny"), clip)
    with pytest.raises(CheckpointError, match=r"hf:me/tiny: w\.pt is not in the local cache.*hf download"):
        eyesmith.load("open_clip:Tiny/file")


@pytest.mark.parametrize("where", ["open_clip_folder", "transformers_folder"])
def test_a_run_folder_keeps_a_foreign_model_and_its_tokenizer(
    where: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    shutil.copytree(request.getfixturevalue(where), source)
    clip = eyesmith.load(source)
    assert isinstance(clip, Clip)
    save_model(tmp_path / "run", clip)
    shutil.rmtree(source)
    again = eyesmith.load(tmp_path / "run")
    assert isinstance(again, Clip)
    assert _same(again, clip)
    assert module_hash(again) == module_hash(clip)
    assert again.preprocess == clip.preprocess
    assert again.image.evaluation_config() == clip.preprocess
    texts = ["a photo of a red cat", "black dogs"]
    assert torch.equal(again.encode_text(texts), clip.encode_text(texts))
    assert verify(tmp_path / "run").ok


def test_a_model_of_the_hub_finds_its_tokenizer_in_the_cache(offline_cache: Path, transformers_folder: Path) -> None:
    _put(offline_cache, "me/pair", {path.name: path for path in transformers_folder.iterdir()})
    clip = eyesmith.load("hf:me/pair")
    assert isinstance(clip, Clip)
    assert clip.config.name == "hf:me/pair"
    assert clip.encode_text(["a cat"]).shape == (1, 24)


@pytest.mark.parametrize("where", ["open_clip_folder", "transformers_folder"])
def test_another_image_size_is_the_packages_own_rule(where: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(where)
    clip = eyesmith.load(folder)
    assert isinstance(clip, Clip)
    larger = eyesmith.load(folder, image_size=48)
    assert isinstance(larger, Clip)
    assert larger.preprocess.image_size == larger.image.image_size == (48, 48)
    pixels = torch.randn(1, 3, 48, 48)
    torch.testing.assert_close(clip.image.at_size(48, 48)(pixels), larger.image(pixels))


def test_what_cannot_be_loaded_is_said_in_a_sentence(
    open_clip_folder: Path, transformers_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong, message in {
        "open_clip:ViT-B-3": "no model 'ViT-B-3'; did you mean",
        "open_clip:ViT-B-32/laion": "no weights 'laion' of ViT-B-32",
        "timm:test_vi": "did you mean test_vit",
        "timm:test_vit.none": "no weights 'none' of test_vit",
    }.items():
        with pytest.raises(ConfigError, match=message):
            eyesmith.load(wrong)
    with pytest.raises(CheckpointError, match="not in the local cache"):
        eyesmith.load("timm:test_vit.r160_in1k")
    with pytest.raises(ConfigError, match="leave out name, weights and pooling"):
        eyesmith.load("timm:test_vit", weights="ema")
    folder = tmp_path / "pair"
    shutil.copytree(transformers_folder, folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"expected a preprocessor_config\.json"):
        eyesmith.load(folder)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"auto_map": {"AutoModel": "code.Model"}}))
    with pytest.raises(CheckpointError, match="never run"):
        eyesmith.load(folder)
    tiny = tmp_path / "tiny"
    shutil.copytree(open_clip_folder, tiny)
    content = json.loads((tiny / "open_clip_config.json").read_text())
    content["preprocess_cfg"]["resize_mode"] = "longest"
    (tiny / "open_clip_config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="not known here: .longest."):
        eyesmith.load(tiny)
    monkeypatch.setattr("eyesmith.models.foreign.packages.ensure_torchvision", lambda: None)
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(MissingDependencyError, match=r"timm is not installed: pip install 'eyesmith\[timm\]'"):
        eyesmith.load("timm:test_vit")


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("open_clip", ("model_cfg", "text_cfg", "layers"), 0),
        ("open_clip", ("model_cfg", "text_cfg", "width"), 48),
        ("open_clip", ("model_cfg", "vision_cfg", "timm_model_name"), ["a"]),
        ("transformers", ("vision_config", "image_size"), "large"),
        ("transformers", ("projection_dim",), None),
    ],
)
def test_sizes_in_a_config_that_make_no_sense_are_said_in_a_sentence(
    open_clip_folder: Path, transformers_folder: Path, tmp_path: Path, kind: str, path: tuple[str, ...], value: object
) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(open_clip_folder if kind == "open_clip" else transformers_folder, folder)
    file = folder / ("open_clip_config.json" if kind == "open_clip" else "config.json")
    content = json.loads(file.read_text())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(json.dumps(content))
    with pytest.raises((CheckpointError, ConfigError)):
        eyesmith.load(folder)


def test_weights_that_are_a_program_are_refused(transformers_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pair"
    shutil.copytree(transformers_folder, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"weights": Path}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="run code of its own"):
        eyesmith.load(folder)


def test_the_config_of_an_id_needs_no_weights() -> None:
    config = foreign_config("timm:test_vit.r160_in1k")
    assert isinstance(config, TimmConfig)
    assert config.model_name == "test_vit.r160_in1k"


def test_weights_of_another_model_are_refused(open_clip_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(open_clip_folder, folder)
    content: dict[str, Any] = json.loads((folder / "open_clip_config.json").read_text())
    content["model_cfg"]["vision_cfg"]["layers"] = 2
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="belong to another model"):
        eyesmith.load(folder)
    assert read_stored(open_clip_folder).config is not None
