"""Files of published CLIPs and SigLIPs as they are met in the wild: each loads to the same features, or is refused with
a sentence that says what it is. Weights are random; programs' names are in `tests/models/vit` and `tests/peers`.
"""

import json
import shutil
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.hub.convert import convert
from eyesmith.hub.load import load, load_clip, load_encoder
from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vit.configs import to_hugging_face, to_open_clip
from eyesmith.models.vit.model import VitConfig
from eyesmith.models.vit.sizes import HALF
from eyesmith.models.vit.weights import write

PIXELS = PreprocessConfig(image_size=(32, 32))
CLIP = ClipConfig(
    name="ViT",
    image=VitConfig(image_size=(32, 32), patch_px=16, width=128, depth=2, num_heads=2, hidden_dim=512, embed_dim=48),
    text=ClipTextConfig(width=64, depth=2, heads=1, embed_dim=48, context_len=12, vocab_size=600),
    preprocess=PIXELS,
)
QUICK = replace(
    CLIP,
    image=replace(CLIP.image, activation="quick_gelu"),
    text=replace(CLIP.text, activation="quick_gelu"),
)
SIGLIP = ClipConfig(
    name="ViT",
    image=VitConfig(
        image_size=(32, 32),
        patch_px=16,
        width=64,
        depth=2,
        num_heads=4,
        hidden_dim=96,
        embed_dim=64,
        activation="gelu_tanh",
        pooling="map",
        has_class_token=False,
        has_pre_norm=False,
        has_patch_bias=True,
        norm_eps=1e-6,
        mean=HALF,
        std=HALF,
    ),
    text=ClipTextConfig(
        width=64,
        depth=2,
        heads=4,
        embed_dim=64,
        context_len=12,
        vocab_size=600,
        mlp_ratio=1.5,
        activation="gelu_tanh",
        is_causal=False,
        pooling="last",
        projection="biased",
        norm_eps=1e-6,
        tokenizer="siglip",
        cleaning="siglip",
    ),
    preprocess=PreprocessConfig(image_size=(32, 32), mean=HALF, std=HALF, resize="squash"),
)


def model(config: ClipConfig) -> Clip:
    torch.manual_seed(0)
    clip = config.build().eval()
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        if config is SIGLIP:
            clip.logit_bias = torch.tensor(-9.5)
    return clip


def theirs(config: ClipConfig, layout: str) -> dict[str, Tensor]:
    """A file's tensors, memory of their own."""
    return {
        name: value.clone().contiguous() for name, value in write(model(config).state_dict(), config, layout).items()
    }


def features(clip: Clip) -> tuple[Tensor, Tensor]:
    length = clip.text.config.context_len  # pyright: ignore[reportAttributeAccessIssue]
    pixels = torch.linspace(-2, 2, 3 * 32 * 32).view(1, 3, 32, 32)
    ids = torch.arange(2 * length).view(2, length) * 37 % 500
    ids[:, 7] = 599
    with torch.no_grad():
        return clip.image(pixels), clip.text(ids)


def same(found: Any, config: ClipConfig, *, tolerance: float = 2e-5) -> None:
    assert isinstance(found, Clip)
    for left, right in zip(features(found), features(model(config)), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=tolerance)


State = dict[str, Tensor]


def saved(state: Any, path: Path) -> Path:
    torch.save(state, path)
    return path


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


def half(state: State, dtype: torch.dtype = torch.float16) -> State:
    return {name: value.to(dtype) for name, value in state.items()}


LOADS: dict[str, Callable[[State, Path], Path]] = {
    "plain": lambda state, at: saved(state, at / "a.pt"),
    "ordered": lambda state, at: saved(OrderedDict(state), at / "a.bin"),
    "DDP": lambda state, at: saved(prefixed(state, "module."), at / "a.pt"),
    "Lightning": lambda state, at: saved({"state_dict": prefixed(state, "model.")}, at / "a.ckpt"),
    "open_clip's training": lambda state, at: saved(
        {"epoch": 3, "name": "run", "state_dict": prefixed(state, "module."), "optimizer": {"state": {}}}, at / "a.pt"
    ),
    "compiled": lambda state, at: saved(prefixed(state, "_orig_mod."), at / "a.pt"),
    "DeepSpeed": lambda state, at: saved({"module": state, "global_steps": 5}, at / "mp_rank_00_model_states.pt"),
    "old file with masks and ids": lambda state, at: saved(
        state | {"attn_mask": torch.zeros(12, 12), "transformer.resblocks.0.attn_mask": torch.zeros(1)}, at / "a.pt"
    ),
    "safetensors": lambda state, at: _safe(state, at / "a.safetensors"),
    "safetensors under another name": lambda state, at: _safe(state, at / "a.bin"),
    "sharded": lambda state, at: _sharded(state, at),
    "DDP inside Lightning": lambda state, at: saved(
        {"state_dict": prefixed(state, "model.module."), "epoch": 1, "optimizer_states": [{"state": {}}]}, at / "a.ckpt"
    ),
    "FSDP and checkpointing": lambda state, at: saved(
        {name.replace("resblocks.0.", "resblocks.0._checkpoint_wrapped_module."): v for name, v in state.items()},
        at / "a.pt",
    ),
    "a trainer's, optimiser inside": lambda state, at: saved(
        {"model": state, "optimizer": {"state": {}, "param_groups": []}, "lr_scheduler": {}, "step": 7}, at / "a.pth"
    ),
    "fp64": lambda state, at: saved({name: value.double() for name, value in state.items()}, at / "a.pt"),
    "torch's old format": lambda state, at: _old_format(state, at / "a.pth"),
    "views of one storage": lambda state, at: saved(
        {name: torch.stack((value, value))[1] for name, value in state.items()}, at / "a.pt"
    ),
    "parameters": lambda state, at: saved({name: nn.Parameter(value) for name, value in state.items()}, at / "a.pt"),
    "scale as [1]": lambda state, at: saved(state | {"logit_scale": state["logit_scale"].view(1)}, at / "a.pt"),
}


def _old_format(state: State, path: Path) -> Path:
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


def _safe(state: State, path: Path) -> Path:
    save_file(state, path)
    return path


def _sharded(state: State, at: Path) -> Path:
    names = sorted(state)
    files = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in files.items():
        save_file({name: state[name] for name in part}, at / file)
    table = {name: file for file, part in files.items() for name in part}
    index = at / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": table}), "utf-8")
    return index


@pytest.mark.parametrize("kind", LOADS)
def test_kinds_that_load(kind: str, tmp_path: Path) -> None:
    same(load(LOADS[kind](theirs(CLIP, "open_clip"), tmp_path)), CLIP)


def test_half_and_average_and_two_in_one(tmp_path: Path) -> None:
    state = theirs(CLIP, "open_clip")
    for dtype in (torch.float16, torch.bfloat16):
        found = load(saved(half(state, dtype), tmp_path / "half.pt"))
        assert next(found.parameters()).dtype == torch.float32
        same(found, CLIP, tolerance=0.3)
    noise = {name: torch.randn_like(value) for name, value in state.items()}
    both = saved({"state_dict": noise, "state_dict_ema": state}, tmp_path / "ema.pt")
    same(load(both, weights="ema"), CLIP)
    with pytest.raises(CheckpointError, match="averaged weights alone"):
        load(saved({"model_ema": state}, tmp_path / "alone.pt"))


class Carrier(nn.Module):
    """Tensors by dotted names in one module, as a program carries them."""

    def __init__(self, state: State) -> None:
        super().__init__()
        parts: dict[str, State] = {}
        for name, value in state.items():
            head, _, rest = name.partition(".")
            if rest:
                parts.setdefault(head, {})[rest] = value
            elif value.is_floating_point():
                self.register_parameter(head, nn.Parameter(value))
            else:
                self.register_buffer(head, value)
        for name, part in parts.items():
            self.add_module(name, Carrier(part))

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_openais_archive_is_read_and_has_quick_gelu(tmp_path: Path) -> None:
    file = tmp_path / "ViT.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own
        torch.jit.save(torch.jit.script(Carrier(theirs(QUICK, "openai"))), file)
    found = load(file)
    same(found, QUICK)
    assert isinstance(found, Clip)
    assert getattr(found.config.image, "activation", "") == "quick_gelu"


def folder(at: Path, state: State, content: dict[str, Any], name: str, weights: str = "model.safetensors") -> Path:
    at.mkdir(exist_ok=True)
    save_file(state, at / weights)
    (at / name).write_text(json.dumps(content), "utf-8")
    return at


@pytest.mark.parametrize("config", [CLIP, QUICK], ids=["gelu", "quick"])
def test_open_clips_folder_says_the_activation(config: ClipConfig, tmp_path: Path) -> None:
    image, text = config.image, config.text
    assert isinstance(image, VitConfig)
    assert isinstance(text, ClipTextConfig)
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    content = to_open_clip(image, text, replace(PIXELS, mean=mean, std=std), None)
    found = load(folder(tmp_path / "f", theirs(config, "open_clip"), content, "open_clip_config.json"))
    same(found, config)
    assert isinstance(found, Clip)
    assert found.preprocess.mean == found.image.mean == mean  # LAION's L/14 has such
    assert found.image.std == std


@pytest.mark.parametrize("config", [CLIP, QUICK, SIGLIP], ids=["clip", "quick", "siglip"])
def test_hugging_faces_folder(config: ClipConfig, tmp_path: Path) -> None:
    image, text = config.image, config.text
    assert isinstance(image, VitConfig)
    assert isinstance(text, ClipTextConfig)
    whole, pixels = to_hugging_face(image, text, config.preprocess)
    at = folder(tmp_path / "f", theirs(config, "hf"), whole, "config.json")
    (at / "preprocessor_config.json").write_text(json.dumps(pixels), "utf-8")
    found = load(at)
    same(found, config)
    assert isinstance(found, Clip)
    assert found.preprocess == config.preprocess
    assert (found.logit_bias is None) == (config is not SIGLIP)


def test_an_image_tower_alone(tmp_path: Path) -> None:
    state = theirs(CLIP, "open_clip")
    tower = {name: value for name, value in state.items() if name.startswith("visual.")}
    encoder = load(saved(tower, tmp_path / "visual.pt"))
    assert not isinstance(encoder, Clip)
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels), model(CLIP).image(pixels))
    with pytest.raises(CheckpointError, match="an image encoder without a text tower"):
        load_clip(tmp_path / "visual.pt")
    assert load_encoder(saved(state, tmp_path / "both.pt")).embed_dim == 48


def test_open_clips_image_tower_saved_alone_is_no_text_tower(tmp_path: Path) -> None:
    state = theirs(CLIP, "open_clip")
    alone = {name.removeprefix("visual."): value for name, value in state.items() if name.startswith("visual.")}
    encoder = load_encoder(saved(alone, tmp_path / "visual.pt"))  # torch.save(model.visual.state_dict(), ...)
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels), model(CLIP).image(pixels))


def test_towers_that_do_not_go_together_name_their_file(tmp_path: Path) -> None:
    state = theirs(CLIP, "open_clip")
    rest = {name: value for name, value in state.items() if name != "visual.proj"}
    with pytest.raises(ConfigError, match=r"a\.pt: image\.embed_dim"):
        load(saved(rest, tmp_path / "a.pt"))
    torch.save(state | {"visual.conv1.weight": torch.ones(())}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"b\.pt: its first layers have no shape"):
        load(tmp_path / "b.pt")


def test_another_image_size_is_resampled(tmp_path: Path) -> None:
    found = load(saved(theirs(CLIP, "open_clip"), tmp_path / "a.pt"), image_size=64)
    assert found.image_size == (64, 64) if not isinstance(found, Clip) else found.preprocess.image_size == (64, 64)


def _without(*names: str) -> Callable[[State], Any]:
    return lambda state: {name: value for name, value in state.items() if not name.startswith(names)}


def _with(**values: Tensor) -> Callable[[State], Any]:
    return lambda state: {**state, **{name.replace("__", "."): value for name, value in values.items()}}


REFUSED: dict[str, tuple[Callable[[State], Any], str]] = {
    "a block is missing": (_without("transformer.resblocks.0."), "a CLIP whose text tower is not whole"),
    "a part of a block is missing": (
        _without("transformer.resblocks.1.mlp"),
        "4 missing: 'transformer.resblocks.1.mlp.c_fc.weight'",
    ),
    "no last norm": (_without("visual.ln_post"), "2 missing: 'visual.ln_post.weight'"),
    "no scale": (_without("logit_scale"), "1 missing: 'logit_scale'"),
    "no patches": (_without("visual.conv1"), "'conv1.weight' is missing, by which a ViT tells its sizes"),
    "no table": (_without("visual.positional_embedding"), "is missing, the position table of a ViT"),
    "text without its words": (_without("token_embedding"), "a CLIP whose text tower is not whole"),
    "a part too much": (_with(visual__extra=torch.zeros(2)), "1 with no place: 'visual.extra'"),
    "a bent tensor": (_with(visual__ln_post__weight=torch.zeros(3)), r"'visual.ln_post.weight' is \[3\]"),
    "a table for no picture": (
        _with(visual__positional_embedding=torch.zeros(8, 128)),
        "7 cells, which is for no square image",
    ),
    "int8": (
        _with(visual__proj=torch.zeros(128, 48, dtype=torch.int8)),
        "quantised weights, whose scales are not known",
    ),
    "NaN": (_with(visual__proj=torch.full((128, 48), torch.nan)), "1 of .* tensors hold NaN or infinity"),
    "an odd width": (
        lambda state: _odd_width(),
        "no multiple of 64, by which OpenAI's and OpenCLIP's code count heads",
    ),
    "CLIP's ResNet": (
        lambda _: {"visual.layer1.0.conv1.weight": torch.zeros(2, 2, 1, 1), "logit_scale": torch.zeros(())},
        "in no layout that is known",
    ),
    "a ViT of ImageNet": (
        lambda _: {"patch_embed.proj.weight": torch.zeros(8, 3, 4, 4), "blocks.0.attn.qkv.weight": torch.zeros(24, 8)},
        "in no layout that is known",
    ),
    "an optimiser's state": (lambda _: {"optimizer": {"state": {}}}, "expected names with tensors"),
    "an optimiser's state alone": (lambda _: {"state": {0: {}}, "param_groups": []}, "the state of an optimiser"),
    "LoRA adapters": (
        lambda _: {"base_model.model.visual.proj.lora_A.weight": torch.zeros(4, 8)},
        "adapters .LoRA or the like., without the model",
    ),
    "LoRA beside its model": (
        _with(visual__transformer__resblocks__0__mlp__c_fc__lora_A__default__weight=torch.zeros(4, 128)),
        "adapters .LoRA or the like., .* merge them",
    ),
    "bitsandbytes": (
        _with(visual__transformer__resblocks__0__mlp__c_fc__SCB=torch.zeros(512)),
        "quantised weights .bitsandbytes",
    ),
    "GPTQ": (lambda _: {"model.layers.0.mlp.up_proj.qweight": torch.zeros(2, 2).int()}, "quantised weights"),
    "a text tower alone": (
        lambda state: {name: value for name, value in state.items() if not name.startswith(("visual.", "logit"))},
        "a text tower alone; an image tower is needed",
    ),
    "Hugging Face's text tower alone": (
        lambda _: {name: value for name, value in theirs(CLIP, "hf").items() if name.startswith("text_model.")},
        "a text tower alone; an image tower is needed",
    ),
    "CLIP's ResNet, told": (
        lambda _: {"visual.layer1.0.conv1.weight": torch.zeros(2, 2, 1, 1)},
        "a CLIP on a ResNet; load it as open_clip:RN50",
    ),
    "a ConvNeXt of CLIP": (
        lambda _: {"visual.trunk.stages.0.blocks.0.gamma": torch.zeros(4), "text.ln_final.weight": torch.zeros(4)},
        "a CLIP on timm's ConvNeXt",
    ),
    "DINOv2": (
        lambda _: {"encoder.layer.0.attention.attention.query.weight": torch.zeros(4, 4)},
        "Hugging Face's ViT or DINO",
    ),
    "ResNet": (lambda _: {"layer1.0.conv1.weight": torch.zeros(2, 2, 1, 1)}, "backbone of timm or torchvision"),
    "a language model": (
        lambda _: {"model.layers.0.self_attn.q_proj.weight": torch.zeros(4, 4)},
        "in no layout that is known: these tensors are of a language model",
    ),
    "a diffusion model": (
        lambda _: {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4)},
        "a diffusion model",
    ),
    "a list": (lambda state: list(state.values()), "holds list, no tensors by name"),
    "nothing": (lambda _: {}, "holds no tensors"),
}


def _odd_width() -> State:
    image = replace(CLIP.image, width=96, hidden_dim=384, num_heads=4)
    return theirs(replace(CLIP, image=image), "open_clip")


@pytest.mark.parametrize("kind", REFUSED)
def test_kinds_that_are_refused(kind: str, tmp_path: Path) -> None:
    change, message = REFUSED[kind]
    file = saved(change(theirs(CLIP, "open_clip")), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=message) as refused:
        load(file)
    assert str(file) in str(refused.value)


# how a file begins, its name, and what is said
OTHER_FILES: dict[str, tuple[bytes, str, str]] = {
    "GGUF": (b"GGUF\x03\0\0\0", "mmproj.gguf", "a GGUF file of a language model"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "tf_model.h5", "an HDF5 file of Keras or TensorFlow"),
    "Flax": (b"\x81\xa6params", "flax_model.msgpack", "a file of Flax"),
    "ONNX": (b"\x08\x08\x12\x07pytorch", "model.onnx", "an ONNX graph"),
    "NumPy": (b"\x93NUMPY\x01\0", "weights.npy", "an array of NumPy's"),
    "gzip": (b"\x1f\x8b\x08\0", "model.pt.gz", "packed with gzip; unpack it first"),
    "a sharded checkpoint's part": (b"\0\0\0\0", "__0_0.distcp", "one part of a sharded training checkpoint"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid", "model.safetensors", "a Git LFS pointer"),
    "a web page": (b"<!DOCTYPE html>", "model.safetensors", "a web page, not weights"),
    "empty": (b"", "model.safetensors", "the file is empty"),
    "a zip of something": (b"PK\x03\x04rest", "model.pt", "model.pt"),
    "noise": (
        b"\x01\x02\x03\x04\x05\x06\x07\x08",
        "model.bin",
        "expected safetensors or a torch.save file, got 8 bytes",
    ),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_files_of_other_kinds_are_named(kind: str, tmp_path: Path) -> None:
    head, name, message = OTHER_FILES[kind]
    file = tmp_path / name
    file.write_bytes(head)
    with pytest.raises(CheckpointError, match=message) as refused:
        load(file)
    assert str(refused.value).startswith(str(file))


@pytest.mark.parametrize("layout", ["open_clip", "hf"])
def test_a_file_cut_short_and_a_missing_part(layout: str, tmp_path: Path) -> None:
    whole = _safe(theirs(CLIP, layout), tmp_path / "a.safetensors")
    whole.write_bytes(whole.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="the file is cut off"):
        load(whole)
    index = _sharded(theirs(CLIP, layout), tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"of the 2 files it lists 1 are missing, such as model-00002"):
        load(index)


def test_names_and_configs_that_are_not_the_files(tmp_path: Path) -> None:
    file = saved(theirs(CLIP, "open_clip"), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"name: ViT-B-32: a ViT of width 768, 12 blocks"):
        load(file, name="ViT-B-32")
    with pytest.raises(ConfigError, match="ViTamin-S is no plain ViT"):
        load(file, name="ViTamin-S")
    assert isinstance(CLIP.image, VitConfig)
    assert isinstance(CLIP.text, ClipTextConfig)
    content = to_open_clip(replace(CLIP.image, depth=3), CLIP.text, PIXELS, None)
    at = folder(tmp_path / "f", theirs(CLIP, "open_clip"), content, "open_clip_config.json")
    with pytest.raises(CheckpointError, match="open_clip_config.json: a ViT of width 128, 3 blocks"):
        load(at)
    siglip = saved(theirs(SIGLIP, "hf"), tmp_path / "siglip.pt")
    with pytest.raises(CheckpointError, match="a SigLIP of width 64 and 2 blocks, which is none that is known"):
        load(siglip)


def test_timms_classifier_is_no_projection(tmp_path: Path) -> None:
    assert isinstance(CLIP.image, VitConfig)
    state = write(model(CLIP).image.state_dict(), CLIP.image, "timm")
    assert load(saved(state, tmp_path / "a.pt")).embed_dim == 48
    with pytest.raises(CheckpointError, match="'head.bias' is not 0: a classifier's head"):
        load(saved(state | {"head.bias": torch.ones(48)}, tmp_path / "b.pt"))


ROUND_TRIPS = [
    (CLIP, "open_clip", "a.safetensors"),
    (QUICK, "open_clip", "a.safetensors"),
    (QUICK, "open_clip_root", "a.safetensors"),
    (QUICK, "openai", "a.pt"),
    (QUICK, "hf", "a"),
    (CLIP, "hf", "a"),
    (CLIP, "eyesmith", "a.safetensors"),
    (SIGLIP, "hf", "a"),
    (SIGLIP, "open_clip", "a.safetensors"),
    (SIGLIP, "eyesmith", "a.safetensors"),
]


@pytest.mark.parametrize(("config", "layout", "out"), ROUND_TRIPS)
def test_there_and_back_bit_for_bit(config: ClipConfig, layout: Any, out: str, tmp_path: Path) -> None:
    """From a file of Hugging Face's to another layout and back: the same names and bits, and the same model."""
    assert isinstance(config.image, VitConfig)
    assert isinstance(config.text, ClipTextConfig)
    whole, pixels = to_hugging_face(config.image, config.text, config.preprocess)
    start = folder(tmp_path / "start", half(theirs(config, "hf")), whole, "config.json")
    (start / "preprocessor_config.json").write_text(json.dumps(pixels), "utf-8")
    done = convert(start, tmp_path / out, to=layout, parity=False)
    found = load_clip(tmp_path / out)
    assert found.config.image == config.image
    assert found.config.preprocess == config.preprocess
    assert replace(found.config.text, cleaning=config.text.cleaning) == config.text
    convert(done.out, tmp_path / "back", to="hf", parity=False)
    before, after = (load_file(place / "model.safetensors") for place in (start, tmp_path / "back"))
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert after[name].dtype == value.dtype
        assert torch.equal(after[name], value), name


def test_layouts_that_cannot_hold_a_model_say_so(tmp_path: Path) -> None:
    file = saved(theirs(CLIP, "open_clip"), tmp_path / "a.pt")
    with pytest.raises(ConfigError, match="OpenAI's code builds a ViT with QuickGELU"):
        convert(file, tmp_path / "o.pt", to="openai", parity=False)
    at = tmp_path / "siglip"
    assert isinstance(SIGLIP.image, VitConfig)
    assert isinstance(SIGLIP.text, ClipTextConfig)
    whole, _ = to_hugging_face(SIGLIP.image, SIGLIP.text, SIGLIP.preprocess)
    folder(at, theirs(SIGLIP, "hf"), whole, "config.json")
    with pytest.raises(ConfigError, match="keeps the text tower of a SigLIP under"):
        convert(at, tmp_path / "r.safetensors", to="open_clip_root", parity=False)
    shutil.rmtree(at)


def test_an_assumed_activation_is_told(tmp_path: Path) -> None:
    state = theirs(CLIP, "open_clip")
    done = convert(saved(state, tmp_path / "a.pt"), tmp_path / "b.safetensors", to="open_clip", parity=False)
    assert any("taken for GELU" in part for part in done.left_out)
    quick = load_clip(saved(theirs(QUICK, "open_clip"), tmp_path / "vit_metaclip.pt"))
    same(quick, QUICK)
    done = convert(tmp_path / "vit_metaclip.pt", tmp_path / "c.safetensors", to="open_clip", parity=False)
    assert any("taken for QuickGELU, as 'metaclip' in its name says" in part for part in done.left_out)


@pytest.mark.parametrize(
    ("place", "is_quick"),
    [
        ("openai/experiments/laion/vit.pt", False),
        ("experiments/openai/vit.pt", True),
        ("models--openai--clip/snapshots/0a1b/vit.pt", True),
        ("models--laion--clip/snapshots/0a1b/vit.pt", False),
    ],
)
def test_folders_further_up_tell_no_activation(place: str, is_quick: bool, tmp_path: Path) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True)
    found = load_clip(saved(theirs(CLIP, "open_clip"), file))
    assert isinstance(found.config.image, VitConfig)
    assert found.config.image.activation == ("quick_gelu" if is_quick else "gelu")
