import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.hub import convert as convert_module
from eyesmith.hub import peers
from eyesmith.hub.convert import convert
from eyesmith.hub.load import load, load_clip
from eyesmith.hub.run_folder import save_model
from eyesmith.hub.weights import read_tensors
from eyesmith.images import PreprocessConfig
from eyesmith.models import registry
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.models.eva02.weights import to_clip
from eyesmith.models.text.hugging_face import HuggingFaceTextConfig
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.weights import to_open_clip

FILES = ["eyesmith", "open_clip", "open_clip_root", "timm"]


@pytest.fixture(autouse=True)
def known(tiny_config: ClipConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CLIP", {"Tiny": tiny_config})


@pytest.fixture
def source(tmp_path: Path, tiny: Clip) -> Path:
    torch.save(to_open_clip(tiny.state_dict(), tiny.config), tmp_path / "source.bin")
    return tmp_path / "source.bin"


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("layout", ["eyesmith", "open_clip", "open_clip_root"])
def test_there_and_back_gives_the_same_bits(source: Path, tmp_path: Path, layout: Any, suffix: str) -> None:
    there, back = tmp_path / f"there{suffix}", tmp_path / "back.bin"
    done = convert(source, there, to=layout, parity=False)
    assert done.ok
    assert "read back bit for bit" in done.lines()[-1]
    convert(there, back, to="open_clip", parity=False)
    assert same(read_tensors(back), read_tensors(source))


def test_half_precision_stays_as_it_is_and_a_run_folder_loses_nothing(tmp_path: Path, tiny: Clip) -> None:
    half = {name: value.half() for name, value in to_open_clip(tiny.state_dict(), tiny.config).items()}
    torch.save(half, tmp_path / "half.bin")
    convert(tmp_path / "half.bin", tmp_path / "there.safetensors", to="eyesmith", parity=False)
    assert {value.dtype for value in read_tensors(tmp_path / "there.safetensors").values()} == {torch.float16}
    convert(tmp_path / "there.safetensors", tmp_path / "run", to="eyesmith", parity=False)
    convert(tmp_path / "run", tmp_path / "back.bin", to="open_clip", dtype="float16", parity=False)
    assert same(read_tensors(tmp_path / "back.bin"), half)


def test_the_image_tower_alone(source: Path, tmp_path: Path, tiny: Clip) -> None:
    done = convert(source, tmp_path / "t.safetensors", to="timm", parity=False)
    assert done.left_out == ("the text tower and the temperature",)
    convert(tmp_path / "t.safetensors", tmp_path / "u.pt", to="eyesmith", parity=False)
    convert(tmp_path / "u.pt", tmp_path / "v.safetensors", to="timm", parity=False)
    assert same(read_tensors(tmp_path / "t.safetensors"), read_tensors(tmp_path / "v.safetensors"))
    for layout in ("open_clip", "hugging_face"):
        out = tmp_path / ("o.pt" if layout == "open_clip" else "o")
        with pytest.raises(ConfigError, match="needs an image-text model"):
            convert(tmp_path / "t.safetensors", out, to=layout, parity=False)
    with pytest.raises(ConfigError, match="a run folder holds an image-text model"):
        convert(tmp_path / "t.safetensors", tmp_path / "run", to="eyesmith", parity=False)


def test_another_type_is_compared_with_the_source(source: Path, tmp_path: Path) -> None:
    done = convert(source, tmp_path / "b.safetensors", to="open_clip", dtype="bfloat16")
    assert {value.dtype for value in read_tensors(tmp_path / "b.safetensors").values()} == {torch.bfloat16}
    rows = {row.part: row for row in done.rows}
    assert rows.keys() == {"image", "text"}
    assert all(1e-5 < row.difference < 0.05 and row.peer == "source" and row.ok for row in done.rows)
    assert done.ok
    assert "have no ViTamin of widths (8, 16, 32)" in done.notes[0]  # so open_clip could not be asked
    json.dumps(done.as_dict(), allow_nan=False)


def test_a_folder_is_written_only_when_its_program_can_open_it(source: Path, tmp_path: Path) -> None:
    for layout in ("hugging_face", "hugging_face_timm"):
        with pytest.raises(ConfigError, match="timm and open_clip have no ViTamin of widths"):
            convert(source, tmp_path / "folder", to=layout)
    assert not (tmp_path / "folder").exists()


def test_an_image_size_is_written_with_its_table(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "o.pt", to="open_clip", image_size=64, parity=False)
    assert load_clip(tmp_path / "o.pt").image.image_size == (64, 64)
    with pytest.raises(ConfigError, match="one number or height and width"):
        convert(source, tmp_path / "p.pt", to="open_clip", image_size=(1, 2, 3), parity=False)


def test_wrong_targets_are_refused_before_anything_is_read(source: Path, tmp_path: Path) -> None:
    taken, folder = tmp_path / "taken.pt", tmp_path / "folder"
    taken.write_text("mine")
    (folder / "x.safetensors").mkdir(parents=True)
    for out, to, message in (
        (taken, "open_clip", "is there already"),
        (folder, "hugging_face", "is there already"),
        (tmp_path / "noname", "timm", "must end in one of"),
        (tmp_path / "a.bin", "hugging_face", "writes a folder"),
        (folder / "x.safetensors", "timm", "writes a file"),
        (tmp_path / "x.pt", "open_klip", "did you mean open_clip"),
    ):
        layout: Any = to
        with pytest.raises(ConfigError, match=message):
            convert(tmp_path / "no such file", out, to=layout)
    with pytest.raises(ConfigError, match="dtype: expected one of"):
        convert(source, tmp_path / "x.pt", to="timm", dtype="int8")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="a run folder holds fp32"):
        convert(source, tmp_path / "run", to="eyesmith", dtype="float16")
    assert taken.read_text() == "mine"
    convert(source, taken, to="open_clip", overwrite=True, parity=False)
    assert isinstance(load(taken), Clip)


def test_a_file_that_reads_back_differently_is_an_error(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bent(path: Path) -> dict[str, Tensor]:
        found = read_tensors(path)
        found["logit_scale"] = found["logit_scale"] + 1e-6
        return found

    monkeypatch.setattr(convert_module, "read_tensors", bent)
    with pytest.raises(CheckpointError, match="1 tensors read back differ .* 'logit_scale'"):
        convert(source, tmp_path / "x.pt", to="open_clip", parity=False)


@pytest.mark.parametrize("layout", ["eyesmith", "open_clip", "open_clip_root", "hugging_face"])
def test_a_sigmoid_model_keeps_its_bias(
    tmp_path: Path, tiny: Clip, layout: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path / "run", tiny, logit_bias=torch.tensor(-9.5))
    monkeypatch.setattr(convert_module, "open_clip_config", lambda *_, **given: given)  # it has no model as small
    out = tmp_path / ("out" if layout == "hugging_face" else "out.safetensors")
    convert(tmp_path / "run", out, to=layout, parity=False)
    if layout == "hugging_face":
        assert json.loads((out / "open_clip_config.json").read_text("utf-8")) == {"logit_bias": -9.5}
        (out / "open_clip_config.json").unlink()
    names = ["a", "b"]
    pictures = convert_module.sample_images()[:2]
    found, expected = load_clip(out), load_clip(tmp_path / "run")
    assert found.logit_bias is not None
    torch.testing.assert_close(found.classify(pictures, names), expected.classify(pictures, names), rtol=0, atol=0)


def test_an_eva02_pair_keeps_its_bias_and_a_bias_of_one_number_is_read(tmp_path: Path) -> None:
    image = Eva02Config(
        image_size=(32, 32), patch_px=8, width=64, depth=1, num_heads=1, hidden_dim=64, embed_dim=16, pooling="token"
    )
    text = ClipTextConfig(width=64, depth=1, heads=1, embed_dim=16, context_len=20)
    clip = ClipConfig(name="pair", image=image, text=text, preprocess=PreprocessConfig(image_size=(32, 32))).build()
    clip.logit_bias = torch.tensor(-3.25)
    theirs = to_clip(clip.state_dict(), clip.config)
    torch.save(theirs | {"logit_bias": theirs["logit_bias"].reshape(1)}, tmp_path / "pair.pt")
    loaded = load_clip(tmp_path / "pair.pt")
    assert loaded.logit_bias is not None
    assert loaded.logit_bias.item() == -3.25


def test_open_clip_makes_a_place_for_the_bias(tiny_config: ClipConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "timm_name", lambda *_, **__: "vitamin_tiny")
    assert "init_logit_bias" not in peers.open_clip_config(tiny_config)["model_cfg"]
    assert peers.open_clip_config(tiny_config, logit_bias=-10.0)["model_cfg"]["init_logit_bias"] == -10.0


def test_prompts_travel_in_a_single_file(tmp_path: Path, tiny: Clip) -> None:
    own = replace(tiny.config, prompts=("a sketch of a {}", "{} in ink"))
    with torch.random.fork_rng():
        save_model(tmp_path / "run", own.build())
    done = convert(tmp_path / "run", tmp_path / "one.safetensors", to="open_clip", parity=False)
    assert not done.left_out
    assert load_clip(tmp_path / "one.safetensors").prompts == own.prompts
    done = convert(tmp_path / "run", tmp_path / "one.pt", to="open_clip", parity=False)
    assert done.left_out == ("the prompts, which a .pt file has no place for",)


def test_counted_positions_in_a_file_are_passed_over_and_others_are_not(source: Path, tmp_path: Path) -> None:
    stored = read_tensors(source)
    torch.save(stored | {"text.embeddings.position_ids": torch.arange(20)[None]}, tmp_path / "ids.pt")
    load_clip(tmp_path / "ids.pt")
    torch.save(stored | {"text.embeddings.position_ids": torch.arange(20).flip(0)[None]}, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match="position_ids"):
        load_clip(tmp_path / "odd.pt")


def test_a_frozen_text_encoder_has_no_place_in_open_clips_layout_and_what_has_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = convert_module.read_stored

    def with_frozen_text(*given: Any, **rest: Any) -> Any:
        stored = read(*given, **rest)
        return replace(stored, config=replace(stored.config, text=HuggingFaceTextConfig(), lock_text=True))

    monkeypatch.setattr(convert_module, "read_stored", with_frozen_text)
    with pytest.raises(ConfigError, match="frozen encoder of Hugging Face.*--to timm writes the image tower"):
        convert(source, tmp_path / "x.bin", to="open_clip")
