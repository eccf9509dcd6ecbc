"""Weights into the layouts that other programs open, bit for bit, and the proof that they agree."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from eyesmith.config import closest
from eyesmith.errors import CheckpointError, ConfigError, MissingDependencyError
from eyesmith.files import atomic_path, write_json
from eyesmith.hub.build import ModelConfig
from eyesmith.hub.load import build_stored
from eyesmith.hub.parity import FP32_BOUND, TEXTS, ParityRow, compare, sample_images
from eyesmith.hub.peer_forward import open_clip_features, timm_features
from eyesmith.hub.peers import OPEN_CLIP_FILE, open_clip_config, timm_config
from eyesmith.hub.run_folder import CONFIG_FILE, MODEL_FILE, save_model
from eyesmith.hub.stored import Stored, read_stored
from eyesmith.hub.weights import PROMPTS, Which, own_memory, read_tensors
from eyesmith.images import PreprocessConfig, evaluation_pixels
from eyesmith.models.classifier import Classifier, ClassifierConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.models.published import WEIGHTS
from eyesmith.models.registry import config as model_config
from eyesmith.models.registry import list_models
from eyesmith.models.text import ClipTextConfig
from eyesmith.models.text.hugging_face import HuggingFaceTextConfig
from eyesmith.models.text.weights import BIAS
from eyesmith.models.vitamin.model import ViTaminConfig

Layout = Literal["eyesmith", "open_clip", "open_clip_root", "timm", "hugging_face", "hugging_face_timm"]
FOLDERS = ("hugging_face", "hugging_face_timm")
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")


@dataclass(frozen=True)
class Converted:
    """out: what was written; tensors: how many; left_out: what of the source is not in it; rows: the parity report.

    notes: why a comparison could not be made.
    """

    out: Path
    layout: Layout
    model: str
    tensors: int
    left_out: tuple[str, ...]
    rows: tuple[ParityRow, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every comparison is within its bound."""
        return all(row.ok for row in self.rows)

    def lines(self) -> list[str]:
        """What was done, for people."""
        lines = [f"{note}" for note in self.notes]
        if self.left_out:
            lines.append(f"left out: {', '.join(self.left_out)}")
        lines.append(f"{self.out}: {self.model}, {self.tensors} tensors, read back bit for bit")
        if not self.ok:
            lines.append("the features are NOT the same: do not use what was written")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "out": str(self.out),
            "layout": self.layout,
            "model": self.model,
            "tensors": self.tensors,
            "left_out": list(self.left_out),
            "parity": [row.as_dict() for row in self.rows],
            "notes": list(self.notes),
            "ok": self.ok,
        }


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    to: Layout,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
    name: str | None = None,
    weights: Which = "model",
    image_size: int | Sequence[int] | None = None,
    pooling: str | None = None,
    overwrite: bool = False,
    parity: bool = True,
) -> Converted:
    """Write the weights at `source` (as `load` takes it) to `out` in another layout.

    to: open_clip (`text.` names), open_clip_root (text at the root), timm and eyesmith write one file of named tensors
    (.safetensors, or .bin, .pt, .pth for torch's format; eyesmith also a run folder); hugging_face is a folder that
    open_clip opens as local-dir:OUT or from the hub, hugging_face_timm one that timm opens. dtype: of the written
    tensors; None: as stored. parity: compare the features of what was written, loaded here and by the peer's own code.
    The file is read back and must hold the same bits. Raises as `load` does, ConfigError when the layout cannot hold
    the model or `out` is there already, CheckpointError when the file does not read back.
    """
    if to not in get_args(Layout):
        raise ConfigError(f"to: unknown layout {to!r}{closest(str(to), get_args(Layout))}")
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    target = Path(out)
    is_folder = to in FOLDERS or (to == "eyesmith" and target.suffix not in _SUFFIXES)
    _check_target(target, to, is_folder=is_folder, overwrite=overwrite)
    stored = read_stored(source, name=name, weights=weights, image_size=_size(image_size), pooling=pooling)
    left_out = [*stored.left_out]
    if isinstance(stored.config, ClipConfig) and to in ("timm", "hugging_face_timm"):
        left_out.append(f"the text tower and the temperature{' with its bias' if BIAS in stored.tensors else ''}")
    elif isinstance(stored.config, ClipConfig) and not is_folder and target.suffix != ".safetensors":
        known = list_models()
        usual = model_config(stored.config.name).prompts if stored.config.name in known else None
        if stored.config.prompts != usual:
            left_out.append(f"the prompts, which a {target.suffix} file has no place for")
    if is_folder and to == "eyesmith":
        if dtype not in (None, "float32"):
            raise ConfigError("dtype: a run folder holds fp32; give OUT a name that ends in .safetensors")
        model = build_stored(stored)
        if not isinstance(model, Clip | Classifier):
            raise ConfigError(
                "out: a run folder holds an image-text model or a classifier; give OUT a name that ends in .safetensors"
            )
        save_model(target, model)
        written: Mapping[str, Tensor] = own_memory(model.state_dict())
        file = target / MODEL_FILE
    else:
        written = own_memory(_tensors(stored, to), dtype=None if dtype is None else DTYPES[dtype])
        configs = _configs(stored, to)
        file = target / (OPEN_CLIP_WEIGHTS if to == "hugging_face" else MODEL_FILE) if is_folder else target
        for config_name, content in configs.items():
            write_json(target / config_name, content)
        _write(file, written, stored.config)
    _check_written(file, written)
    rows, notes = _parity(stored, file, to, dtype=DTYPES.get(dtype or "")) if parity else ([], [])
    label = (
        stored.config.name if isinstance(stored.config, ClipConfig | ClassifierConfig) else type(stored.config).__name__
    )
    return Converted(target, to, label, len(written), tuple(left_out), tuple(rows), tuple(notes))


def _size(given: int | Sequence[int] | None) -> tuple[int, int] | None:
    sides = (given,) if isinstance(given, int) else tuple(given or ())
    if len(sides) > 2:
        raise ConfigError(f"image_size: expected one number or height and width, got {sides}")
    return (sides[0], sides[-1]) if sides else None


def _check_target(target: Path, to: Layout, *, is_folder: bool, overwrite: bool) -> None:
    if not is_folder and target.suffix not in _SUFFIXES:
        raise ConfigError(f"out: --to {to} writes a file; its name must end in one of {', '.join(_SUFFIXES)}")
    if is_folder and target.suffix in _SUFFIXES:
        raise ConfigError(f"out: --to {to} writes a folder; {target.name!r} is the name of a weight file")
    if is_folder and target.is_file():
        raise ConfigError(f"{target}: is a file, and --to {to} writes a folder")
    if not is_folder and target.is_dir():
        raise ConfigError(f"{target}: is a folder, and --to {to} writes a file")
    there = target.is_file() or (target.is_dir() and any(target.iterdir()))
    if there and not overwrite:
        raise ConfigError(f"{target}: is there already; choose another name, or --overwrite")


def _tensors(stored: Stored, to: Layout) -> dict[str, Tensor]:
    """The stored tensors with the names of the layout."""
    config, tensors = stored.config, stored.tensors
    if to == "eyesmith":
        return tensors
    if to in ("timm", "hugging_face_timm"):
        if isinstance(config, ClipConfig | ClassifierConfig):
            head = {key: value for key, value in tensors.items() if key.startswith("head.")}  # a classifier's alone
            tensors = {key.removeprefix("image."): value for key, value in tensors.items() if key.startswith("image.")}
            tensors |= head
        tower = _tower(config)
        return WEIGHTS[type(tower)].write(tensors, tower, "timm")
    if not isinstance(config, ClipConfig):
        raise ConfigError(f"to: {to} needs an image-text model, {stored.where} holds an image encoder; take --to timm")
    if isinstance(config.text, HuggingFaceTextConfig):
        raise ConfigError(
            f"{config.name}: its text tower is a frozen encoder of Hugging Face ({config.text.source}), for which "
            "open_clip's layout has no place; --to timm writes the image tower, --to eyesmith or `eyesmith export` both"
        )
    if isinstance(config.text, ClipTextConfig) and config.text.reads_bytes:
        raise ConfigError(f"to: {to} holds texts in CLIP's vocabulary, {stored.where} reads bytes; take --to eyesmith")
    if (family := WEIGHTS.get(type(config.image))) is None:
        kind = type(config.image).__name__
        raise ConfigError(f"{config.name}: open_clip's layout needs a ViTamin or EVA-02 image tower, got {kind}")
    return family.write(tensors, config, to)


def _configs(stored: Stored, to: Layout) -> dict[str, Any]:
    if to == "hugging_face":
        assert isinstance(stored.config, ClipConfig)
        return {OPEN_CLIP_FILE: open_clip_config(stored.config, logit_bias=_bias(stored))}
    if to == "hugging_face_timm":
        return {CONFIG_FILE: timm_config(_tower(stored.config), _preprocess(stored.config))}
    return {}


def _bias(stored: Stored) -> float | None:
    bias = stored.tensors.get(BIAS)
    return None if bias is None else float(bias)


def _tower(config: Any) -> ViTaminConfig | Eva02Config:
    image = config.image if isinstance(config, ClipConfig | ClassifierConfig) else config
    if isinstance(config, ClassifierConfig):
        if not isinstance(image, Eva02Config) or image.pooling == "normed_mean":
            raise ConfigError("to: timm's names hold the classes of an EVA-02 with its norm after the mean alone")
        return replace(image, embed_dim=len(config.classes))
    if not isinstance(image, ViTaminConfig | Eva02Config):
        raise ConfigError(f"to: timm's names are for a ViTamin or EVA-02, this image tower is a {type(image).__name__}")
    return image


def _preprocess(config: Any) -> PreprocessConfig:
    if isinstance(config, ClipConfig | ClassifierConfig):
        return config.preprocess
    return PreprocessConfig(image_size=config.image_size)


def _write(file: Path, tensors: Mapping[str, Tensor], config: ModelConfig) -> None:
    said = {PROMPTS: json.dumps(config.prompts)} if isinstance(config, ClipConfig) else {}
    with atomic_path(file) as part:
        if file.suffix == ".safetensors":
            save_file(dict(tensors), part, metadata={"format": "pt"} | said)
        else:
            with part.open("wb") as stream:  # to a path torch would not say that the disk is full
                torch.save(dict(tensors), stream)


def _check_written(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Read the file back: names, types and bits. Raises CheckpointError when something differs."""
    found = read_tensors(file)
    bad = [name for name in {*found, *tensors} if name not in found or name not in tensors]
    bad += [name for name, value in tensors.items() if name in found and not _same(found[name], value)]
    if bad:
        raise CheckpointError(f"{file}: {len(bad)} tensors read back differ from those written, such as '{bad[0]}'")


def _same(left: Tensor, right: Tensor) -> bool:
    # as bytes: a NaN equals itself
    return (left.dtype, left.shape) == (right.dtype, right.shape) and torch.equal(
        left.contiguous().view(-1).view(torch.uint8), right.contiguous().view(-1).view(torch.uint8)
    )


def _parity(stored: Stored, file: Path, to: Layout, *, dtype: torch.dtype | None) -> tuple[list[ParityRow], list[str]]:
    """Features of the written weights: ours against the peer's own loader and forward, and against the source's."""
    images, config = sample_images(), stored.config
    if (
        "timm" in to
    ):  # it leaves the conversion to its data sets, which do it before the resize; open_clip does it after
        images = [image.convert("RGB") for image in images]
    kept = stored.tensors if dtype is None else own_memory(stored.tensors, dtype=dtype)
    ours = _features(replace(stored, tensors=dict(kept)), images)
    rows: list[ParityRow] = []
    notes: list[str] = []
    if dtype is not None:
        source = _features(stored, images)
        rows += [compare(ours[part], source[part], peer="source", part=part, bound=None) for part in ours]
    try:
        if to in ("timm", "hugging_face_timm"):
            theirs = timm_features(file, timm_config(_tower(config), _preprocess(config)), images)
        elif to == "eyesmith":
            return rows, notes
        else:
            assert isinstance(config, ClipConfig)
            their_config = open_clip_config(config, is_text_prefixed=to != "open_clip_root", logit_bias=_bias(stored))
            theirs = open_clip_features(file, their_config, images, TEXTS)
        peer = "timm" if "timm" in to else "open_clip"
        rows += [compare(ours[part], rows_, peer=peer, part=part, bound=FP32_BOUND) for part, rows_ in theirs.items()]
    except (MissingDependencyError, ConfigError) as error:
        notes.append(f"no comparison with {'timm' if 'timm' in to else 'open_clip'}: {error}")
    return rows, notes


def _features(stored: Stored, images: Sequence[Image.Image]) -> dict[str, Tensor]:
    """Unit features of pictures, and of the sample texts where there is a text tower, computed in fp32."""
    model = build_stored(stored)
    if isinstance(model, Clip):
        return {"image": model.encode_image(images), "text": model.encode_text(TEXTS)}
    pixels = torch.stack([evaluation_pixels(image, _preprocess(stored.config)) for image in images])
    with torch.inference_mode():
        return {"image": torch.cat([model(batch) for batch in pixels.split(8)])}
