import dataclasses
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import eyesmith
from eyesmith.errors import CheckpointError, ConfigError, ShapeError
from eyesmith.files import sha256_file
from eyesmith.hub import hugging_face
from eyesmith.hub.load import load
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.registry import CLIP, register
from eyesmith.models.vitamin.weights import to_open_clip


@pytest.fixture(autouse=True)
def known(tiny_config: ClipConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry with the tiny model alone, so that nothing large is ever built."""
    monkeypatch.setattr("eyesmith.models.registry.CLIP", dict(CLIP))
    from eyesmith.models import registry

    registry.CLIP.clear()
    register("Tiny", tiny_config)


def same(left: Clip, right: Clip) -> bool:
    theirs = right.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in left.state_dict().items())


def test_a_run_folder_or_its_weight_file(saved: Path, tiny: Clip, no_network: Any) -> None:
    assert same(eyesmith.load(saved), tiny)
    assert same(load(str(saved)), tiny)
    assert same(load(saved / "model.safetensors"), tiny)
    assert same(load(saved, name="Tiny"), tiny)
    with pytest.raises(ConfigError, match="is a run of 'Tiny', not of 'ViTamin-S'"):
        load(saved, name="ViTamin-S")


def test_a_bare_file_in_our_layout_is_recognised_by_its_tensors(tmp_path: Path, tiny: Clip, no_network: Any) -> None:
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in tiny.state_dict().items()}}, tmp_path / "e.pt")
    clip = load(tmp_path / "e.pt")
    assert same(clip, tiny)
    assert not clip.training


@pytest.mark.parametrize("is_text_prefixed", [True, False])
def test_files_in_open_clips_layouts(tmp_path: Path, tiny: Clip, is_text_prefixed: bool, no_network: Any) -> None:
    state = to_open_clip(tiny.state_dict(), tiny.config, is_text_prefixed=is_text_prefixed)
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "pytorch_model.bin")
    clip = load(tmp_path / "pytorch_model.bin")
    assert clip.config.name == "Tiny"
    assert same(clip, tiny)


def test_an_open_clip_file_keeps_its_own_image_size_unless_a_name_says_otherwise(
    tmp_path: Path, tiny_config: ClipConfig
) -> None:
    bigger = dataclasses.replace(
        tiny_config,
        image=dataclasses.replace(tiny_config.image, image_size=(64, 64)),
        preprocess=dataclasses.replace(tiny_config.preprocess, image_size=(64, 64)),
    )
    clip = bigger.build()
    torch.save(to_open_clip(clip.state_dict(), bigger), tmp_path / "c.bin")
    found = load(tmp_path / "c.bin")
    assert found.image.image_size == found.preprocess.image_size == (64, 64)
    assert same(found, clip)
    assert load(tmp_path / "c.bin", name="Tiny").image.image_size == (32, 32)


def test_loading_draws_no_random_numbers(tmp_path: Path, tiny: Clip) -> None:
    save_file(tiny.state_dict(), tmp_path / "w.safetensors")
    before = torch.random.get_rng_state()
    load(tmp_path / "w.safetensors")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_weights_of_an_unknown_model_or_with_the_wrong_name(
    tmp_path: Path, tiny: Clip, tiny_config: ClipConfig
) -> None:
    other = dataclasses.replace(tiny_config, image=dataclasses.replace(tiny_config.image, widths=(8, 16, 48)))
    save_file(other.build().state_dict(), tmp_path / "ours.safetensors")
    with pytest.raises(CheckpointError, match=r"fit no model that is known \(Tiny\)"):
        load(tmp_path / "ours.safetensors")
    with pytest.raises(CheckpointError, match=r"as Tiny.*another model.*needs \["):
        load(tmp_path / "ours.safetensors", name="Tiny")
    torch.save(to_open_clip(other.build().state_dict(), other), tmp_path / "theirs.bin")
    with pytest.raises(CheckpointError, match=r"theirs\.bin: OpenCLIP's layout, but the sizes of no model"):
        load(tmp_path / "theirs.bin")
    with pytest.raises(CheckpointError, match=r"theirs.bin: .*Tiny needs"):
        load(tmp_path / "theirs.bin", name="Tiny")
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.safetensors")
    with pytest.raises(CheckpointError, match=r"no layout that is known.*conv1\.weight"):
        load(tmp_path / "resnet.safetensors")
    with pytest.raises(ConfigError, match="no model is called 'Tini'"):
        load(tmp_path / "ours.safetensors", name="Tini")


def test_what_is_nowhere_is_explained(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Tiny: is a model, not weights; `eyesmith.create\('Tiny'\)`"):
        load("Tiny")
    with pytest.raises(CheckpointError, match="write hf:owner/name"):
        load("owner/name")
    with pytest.raises(CheckpointError, match=r"no such run folder or weight file$"):
        load(tmp_path / "a" / "b" / "c.pt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no run folder"):
        load(tmp_path / "empty")


@pytest.fixture
def offline_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def put_in_cache(cache: Path, repo: str, files: dict[str, Path]) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    root = cache / ("models--" + repo.replace("/", "--"))
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    for name, file in files.items():
        target = root / "snapshots" / commit / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)


def test_hub_models_come_from_the_cache_when_offline(
    offline_cache: Path, saved: Path, tmp_path: Path, tiny: Clip, no_network: Any
) -> None:
    put_in_cache(offline_cache, "me/run", {str(f.relative_to(saved)): f for f in saved.rglob("*") if f.is_file()})
    assert same(load("hf:me/run"), tiny)
    torch.save(to_open_clip(tiny.state_dict(), tiny.config), tmp_path / "w.bin")
    put_in_cache(
        offline_cache,
        "me/Tiny-openclip",
        {"pytorch_model.bin": tmp_path / "w.bin", "config.json": saved / "config.json"},
    )
    assert same(load("hf:me/Tiny-openclip@main"), tiny)


def test_hub_mistakes_are_explained(offline_cache: Path, saved: Path, no_network: Any) -> None:
    with pytest.raises(CheckpointError, match=r"hf:me/none: not in the local cache.*hf download me/none"):
        load("hf:me/none")
    for wrong in ("hf:justaname", "hf:a/b/c", "hf:/x", "hf:me/na me"):
        with pytest.raises(CheckpointError, match=wrong):
            load(wrong)
    put_in_cache(offline_cache, "me/readme", {"README.md": saved / "config.json"})
    with pytest.raises(CheckpointError, match=r"has none of .*pytorch_model\.bin"):
        load("hf:me/readme")


def test_one_weight_file_is_fetched_not_all_formats() -> None:
    files = [
        "README.md",
        "open_clip_config.json",
        "pytorch_model.bin",
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.bin",
    ]
    assert hugging_face._choose(files) == ["open_clip_model.safetensors", "open_clip_config.json"]
    assert hugging_face._choose(["config.json", "pytorch_model.bin"]) == ["pytorch_model.bin", "config.json"]
    assert "text/*" in hugging_face._choose(["config.json", "model.safetensors", "text/vocab.txt"])
    assert hugging_face._choose(["README.md"]) == []


@pytest.mark.parametrize(
    ("name", "message"), [("RepositoryNotFoundError", "no such model"), ("GatedRepoError", "agree to terms"),
                          ("RevisionNotFoundError", "no revision 'v9'")],
)  # fmt: skip
def test_what_the_hub_says_is_passed_on(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    kind = getattr(huggingface_hub.errors, name)

    def answer(*args: Any, **kwargs: Any) -> Any:
        raise kind.__new__(kind)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", answer)
    with pytest.raises(CheckpointError, match=message):
        load("hf:me/model@v9")


def test_a_large_file_of_the_cache_is_checked_against_the_hubs_hash_once(
    offline_cache: Path, tmp_path: Path, tiny: Clip, monkeypatch: pytest.MonkeyPatch, no_network: Any
) -> None:
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "ours"))
    torch.save(to_open_clip(tiny.state_dict(), tiny.config), tmp_path / "w.bin")
    put_in_cache(offline_cache, "me/Tiny", {"pytorch_model.bin": tmp_path / "w.bin"})
    link = next(offline_cache.glob("models--me--Tiny/snapshots/*/pytorch_model.bin"))
    blob = offline_cache / "models--me--Tiny" / "blobs" / sha256_file(link)  # the cache stores by hash, and links
    blob.parent.mkdir()
    link.rename(blob)
    link.symlink_to(blob)
    read: list[Path] = []
    monkeypatch.setattr(hugging_face, "sha256_file", lambda path: read.append(path) or sha256_file(path))
    assert same(load("hf:me/Tiny"), tiny)
    assert same(load("hf:me/Tiny"), tiny)
    assert read == [blob]
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"the download is damaged, its SHA-256 is not the hub's.*delete"):
        load("hf:me/Tiny")


def test_the_hub_is_not_asked_for_what_the_cache_holds(
    offline_cache: Path, saved: Path, tiny: Clip, monkeypatch: pytest.MonkeyPatch, no_network: Any
) -> None:
    import huggingface_hub

    asked: list[Any] = []
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **kwargs: asked.append(kwargs))
    put_in_cache(offline_cache, "me/run", {str(f.relative_to(saved)): f for f in saved.rglob("*") if f.is_file()})
    assert same(load("hf:me/run"), tiny)
    assert asked == []


def test_a_part_of_a_model_is_not_taken_for_all_of_it(
    offline_cache: Path, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: Any
) -> None:
    import huggingface_hub

    # the weights came, then the line broke
    put_in_cache(offline_cache, "me/run", {"model.safetensors": saved / "model.safetensors"})
    files = ["README.md", "config.json", "model.safetensors"]
    there = SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in files])
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **kwargs: there)
    with pytest.raises(CheckpointError, match=r"not whole, it lacks config\.json"):
        load("hf:me/run")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}')
    files = {"config.json": saved / "config.json", "model-1.safetensors": saved / "model.safetensors"}
    put_in_cache(offline_cache, "me/parts", files | {index.name: index})
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(offline_cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"not whole, it lacks model-2\.safetensors"):
        load("hf:me/parts")


def test_parts_and_configs_are_fetched_with_their_index() -> None:
    files = ["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors", "pytorch_model.bin"]
    assert hugging_face._choose(files) == ["model.safetensors.index.json", "config.json", "model-*.safetensors"]


@pytest.mark.parametrize("shape", [(5, 3, 48, 32), (2, 1, 32, 32)])
def test_a_shape_message_names_the_batch_it_got(tiny: Clip, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=re.escape(f"got {list(shape)}")):
        tiny.encode_image(torch.zeros(shape))


def test_a_folder_whose_weights_are_called_otherwise_says_which_file_to_give(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"it holds weights\.safetensors: give that file, "):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(CheckpointError, match=r"not the config of an eyesmith run .*it holds weights\.safetensors"):
        load(tmp_path)
    (tmp_path / "weights.safetensors").rename(tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"model-00001-of-00002\.safetensors is a part of a model, get the"):
        load(tmp_path)
