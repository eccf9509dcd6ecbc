"""Every layout that `load` takes, recognised without a name, at the right image size, and never over the network."""

import dataclasses
import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import eyesmith
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.hub.convert import convert
from eyesmith.hub.load import load, load_clip, load_encoder
from eyesmith.images import OPENAI_MEAN
from eyesmith.models import registry
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.encoder import Encoder
from eyesmith.models.position import resize_position_table
from eyesmith.models.vitamin.model import ViTamin
from eyesmith.models.vitamin.weights import to_open_clip, to_timm


@pytest.fixture(autouse=True)
def known(tiny_config: ClipConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CLIP", {"Tiny": tiny_config})


def same(left: nn.Module, right: nn.Module) -> bool:
    a, b = left.state_dict(), right.state_dict()
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def open_clip_state(clip: Clip) -> dict[str, Tensor]:
    return to_open_clip(clip.state_dict(), clip.config)


def image_state(clip: Clip) -> dict[str, Tensor]:
    return {k.removeprefix("image."): v for k, v in clip.state_dict().items() if k.startswith("image.")}


def write_ours(clip: Clip, path: Path) -> Path:
    save_file(clip.state_dict(), path / "ours.safetensors")
    return path / "ours.safetensors"


def write_open_clip(clip: Clip, path: Path) -> Path:
    torch.save({"state_dict": {f"module.{k}": v for k, v in open_clip_state(clip).items()}, "epoch": 1}, path / "e.pt")
    return path / "e.pt"


def write_root(clip: Clip, path: Path) -> Path:
    torch.save(to_open_clip(clip.state_dict(), clip.config, is_text_prefixed=False), path / "pytorch_model.bin")
    return path / "pytorch_model.bin"


def write_average(clip: Clip, path: Path) -> Path:
    state = open_clip_state(clip)
    torch.save({"model": {k: v + 1 for k, v in state.items()}, "model_ema": state}, path / "ema.pt")
    return path / "ema.pt"


def write_folder(clip: Clip, path: Path) -> Path:
    state = open_clip_state(clip)
    names = sorted(state)
    table = {}
    for part, chunk in enumerate((names[:20], names[20:])):
        file = f"open_clip_model-{part}.safetensors"
        save_file({name: state[name].contiguous() for name in chunk}, path / file)
        table |= dict.fromkeys(chunk, file)
    (path / "open_clip_model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    (path / "config.json").write_text('{"architectures": ["ViTaminCLIP"], "model_type": "vitamin"}')
    return path


def write_timm(clip: Clip, path: Path) -> Path:
    state = to_timm(image_state(clip), clip.config.image)  # pyright: ignore[reportArgumentType]
    save_file({k: v.contiguous() for k, v in state.items()}, path / "timm.safetensors")
    return path / "timm.safetensors"


def write_visual(clip: Clip, path: Path) -> Path:
    visual = {k.removeprefix("visual."): v for k, v in open_clip_state(clip).items() if k.startswith("visual.")}
    torch.save(visual, path / "visual.pt")
    return path / "visual.pt"


def write_tower(clip: Clip, path: Path) -> Path:
    save_file(image_state(clip), path / "tower.safetensors")
    return path / "tower.safetensors"


def write_prefixed_tower(clip: Clip, path: Path) -> Path:
    save_file({f"image.{k}": v for k, v in image_state(clip).items()}, path / "tower.safetensors")
    return path / "tower.safetensors"


def write_run(clip: Clip, path: Path) -> Path:
    from eyesmith.hub.run_folder import save_model

    save_model(path / "run", clip)
    return path / "run"


PAIRS = [write_run, write_ours, write_open_clip, write_root, write_average, write_folder]
TOWERS = [write_timm, write_visual, write_tower, write_prefixed_tower]


@pytest.mark.parametrize("write", [*PAIRS, *TOWERS], ids=lambda write: write.__name__)
def test_every_local_kind_loads_without_name_and_without_network(
    write: Callable[[Clip, Path], Path], tmp_path: Path, tiny: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tiny, tmp_path)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the network was used")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    which: Any = "ema" if write is write_average else "model"
    model = load(source, weights=which)
    assert not model.training
    if write in PAIRS:
        assert isinstance(model, Clip)
        assert same(model, tiny)
        assert same(load_clip(source, weights=which), tiny)
    else:
        assert isinstance(model, ViTamin)
        with pytest.raises(CheckpointError, match=r"image encoder without a text tower.*eyesmith.load_encoder"):
            load_clip(source)
    encoder = load_encoder(source, weights=which)
    assert isinstance(encoder, Encoder)
    assert same(encoder, tiny.image)


def test_load_encoder_is_public(tmp_path: Path, tiny: Clip) -> None:
    assert same(eyesmith.load_encoder(write_ours(tiny, tmp_path)), tiny.image)


def test_the_tensors_tell_where_a_model_without_position_table_runs_only_by_name_or_folder(
    tmp_path: Path, tiny_config: ClipConfig
) -> None:
    free = dataclasses.replace(tiny_config, image=dataclasses.replace(tiny_config.image, has_position=False))
    for name, side in (("Free-32", 32), ("Free-64", 64)):
        size = (side, side)
        registry.CLIP[name] = dataclasses.replace(
            free,
            name=name,
            image=dataclasses.replace(free.image, image_size=size),
            preprocess=dataclasses.replace(free.preprocess, image_size=size),
        )
    clip = registry.CLIP["Free-64"].build()
    folder = tmp_path / "someone"
    folder.mkdir()
    torch.save(open_clip_state(clip), folder / "pytorch_model.bin")
    assert load_clip(folder).image.image_size == (32, 32)
    assert load_clip(folder, name="Free-64").image.image_size == (64, 64)
    assert load_clip(folder, image_size=48).preprocess.image_size == (48, 48)
    torch.save(open_clip_state(clip), tmp_path / "Free-64.bin")
    assert load_clip(tmp_path / "Free-64.bin").config.name == "Free-64"
    torch.save(image_state(clip), tmp_path / "free-64px.pt")
    assert load_encoder(tmp_path / "free-64px.pt").image_size == (64, 64)
    content = {"model_cfg": {"vision_cfg": {"image_size": 96}}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    assert load_clip(folder).image.image_size == load_clip(folder).preprocess.image_size == (96, 96)


def test_an_image_size_that_is_asked_for_resamples_the_table(tmp_path: Path, tiny: Clip) -> None:
    for source in (write_run(tiny, tmp_path), write_open_clip(tiny, tmp_path), write_ours(tiny, tmp_path)):
        clip = load_clip(source, image_size=(48, 64))
        assert clip.image.image_size == clip.preprocess.image_size == clip.config.image.image_size == (48, 64)
        expected = resize_position_table(tiny.state_dict()["image.position"], (2, 2), (3, 4))
        assert torch.equal(clip.state_dict()["image.position"], expected)
        assert clip.encode_image(torch.zeros(1, 3, 48, 64)).shape == (1, 16)
    assert load_encoder(write_timm(tiny, tmp_path), image_size=64).image_size == (64, 64)
    with pytest.raises(ConfigError, match="multiples of 16"):
        load(write_ours(tiny, tmp_path), image_size=50)


def test_a_table_of_a_size_that_is_not_square_needs_to_be_told(tmp_path: Path, tiny: Clip) -> None:
    wide = load_clip(write_ours(tiny, tmp_path), image_size=(32, 96))
    torch.save(open_clip_state(wide), tmp_path / "wide.pt")
    with pytest.raises(CheckpointError, match=r"wide.pt: its position table has 12 cells.*image_size"):
        load(tmp_path / "wide.pt")
    assert same(load(tmp_path / "wide.pt", image_size=(32, 96)), wide)


def test_a_classifier_gives_its_encoder_and_says_what_it_left_out(tmp_path: Path, tiny: Clip) -> None:
    state = to_timm(image_state(tiny), tiny.config.image)  # pyright: ignore[reportArgumentType]
    state = {name: value.clone() for name, value in state.items()}
    state["head.weight"], state["head.bias"] = torch.randn(7, 32), torch.randn(7)
    torch.save(state, tmp_path / "classes.pt")
    encoder = load(tmp_path / "classes.pt")
    assert isinstance(encoder, ViTamin)
    assert encoder.embed_dim == 32
    assert not any(name.startswith("head") for name in encoder.state_dict())
    done = convert(tmp_path / "classes.pt", tmp_path / "out.safetensors", to="timm", parity=False)
    assert done.left_out == ("a classifier of 7 classes",)
    state["head.bias"] = torch.zeros(7)  # a projection of another width
    torch.save(state, tmp_path / "projection.pt")
    projected = load(tmp_path / "projection.pt")
    assert isinstance(projected, ViTamin)
    assert projected.embed_dim == 7
    for name in ("head.weight", "head.bias"):
        del state[name]
    torch.save(state, tmp_path / "headless.pt")
    headless = load_encoder(tmp_path / "headless.pt")
    assert headless.embed_dim == 32
    assert torch.equal(headless.state_dict()["position"], tiny.state_dict()["image.position"])


def test_a_tower_by_name(tmp_path: Path, tiny: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_timm(tiny, tmp_path)
    assert same(load(file, name="Tiny"), tiny.image)
    config: Any = tiny.config.image
    monkeypatch.setitem(registry.ENCODERS, "tiny_64", dataclasses.replace(config, image_size=(64, 64), embed_dim=0))
    assert load_encoder(file, name="tiny_64").image_size == (64, 64)
    assert load_encoder(file, name="tiny_64").embed_dim == 16  # the file has the projection
    with pytest.raises(CheckpointError, match=r"timm.safetensors: weights do not fit.*this looks like Tiny"):
        load(file, name="vitamin_small_224")
    with pytest.raises(ConfigError, match="no encoder is called 'tiny_46'"):
        load(file, name="tiny_46")


def test_what_does_not_fit_names_tensors_and_the_nearest_model(tmp_path: Path, tiny: Clip) -> None:
    state = open_clip_state(tiny)
    del state["visual.trunk.pos_embed"]
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"c.pt: weights do not fit Tiny: 1 missing: 'visual.trunk.pos_embed'"):
        load(tmp_path / "c.pt")
    state = to_timm(image_state(tiny), tiny.config.image)  # pyright: ignore[reportArgumentType]
    torch.save({k: v for k, v in state.items() if k != "pos_embed"}, tmp_path / "t.pt")
    with pytest.raises(CheckpointError, match=r"t.pt: weights do not fit the encoder: 1 missing: 'pos_embed'"):
        load(tmp_path / "t.pt")
    state = {k: v for k, v in tiny.state_dict().items() if k != "image.norm.bias"}
    torch.save(state, tmp_path / "o.pt")
    with pytest.raises(CheckpointError, match=r"as Tiny.*1 of \d+ tensors are missing, such as 'image.norm.bias'"):
        load(tmp_path / "o.pt")


def test_a_folder_for_other_pixels_is_refused_and_other_resizing_is_kept(tmp_path: Path, tiny: Clip) -> None:
    save_file({k: v.contiguous() for k, v in open_clip_state(tiny).items()}, tmp_path / "model.safetensors")
    vision = {"timm_model_name": "vitamin_small_224", "image_size": 32}
    content: dict[str, Any] = {
        "model_cfg": {"vision_cfg": vision},
        "preprocess_cfg": {"mean": list(OPENAI_MEAN), "interpolation": "bilinear", "resize_mode": "squash"},
    }
    config = tmp_path / "open_clip_config.json"
    config.write_text(json.dumps(content))
    preprocess = load_clip(tmp_path).preprocess
    assert (preprocess.interpolation, preprocess.resize) == ("bilinear", "squash")
    content["preprocess_cfg"]["resize_mode"] = "longest"
    config.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"open_clip_config.json: asks for preprocessing.*longest"):
        load(tmp_path)
    content["preprocess_cfg"] = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    config.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=re.escape("mean (0.5, 0.5, 0.5)")):
        load(tmp_path)
    config.write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        load(tmp_path)


def test_a_run_has_one_set_of_weights(tmp_path: Path, tiny: Clip) -> None:
    with pytest.raises(CheckpointError, match="a run folder holds one set of weights"):
        load(write_run(tiny, tmp_path), weights="ema")


def test_types_and_gradients_of_what_is_loaded(tmp_path: Path, tiny: Clip) -> None:
    half = {name: value.half() for name, value in open_clip_state(tiny).items()}
    torch.save(half, tmp_path / "half.pt")
    clip = load_clip(tmp_path / "half.pt")
    assert {value.dtype for value in clip.state_dict().values()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in clip.parameters())
    clip.image_features(torch.randn(1, 3, 32, 32)).sum().backward()
    narrow = load_clip(tmp_path / "half.pt", dtype=torch.bfloat16)
    assert {value.dtype for value in narrow.state_dict().values()} == {torch.bfloat16}
    assert narrow.encode_image(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).dtype == torch.float32


def test_a_locked_text_tower_stays_locked(tmp_path: Path, tiny_config: ClipConfig) -> None:
    source = write_run(dataclasses.replace(tiny_config, lock_text=True).build(), tmp_path)
    clip = load_clip(source)
    assert not any(parameter.requires_grad for parameter in clip.text.parameters())
    assert all(parameter.requires_grad for parameter in clip.image.parameters())
