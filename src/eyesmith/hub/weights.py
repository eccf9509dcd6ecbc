"""Weight files to named tensors, safely: nothing in a file is ever executed."""

import os
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.files import load_json
from eyesmith.hub.strangers import of_content, of_file
from eyesmith.hub.torchscript import is_torchscript, read_torchscript

Which = Literal["model", "ema"]

INDEX_SUFFIX = ".index.json"  # Hugging Face's table of a model that is cut into several files
# where training programs put the model: open_clip, EVA, timm, DeepSpeed, Lightning
_NESTED_KEYS = ("state_dict", "model_state_dict", "model", "module")
# and its averaged weights: timm, EVA and DeiT, detectron2, diffusion code, torch's own averaging, our training
_EMA_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "averaged_model", "average")
PROMPTS = "eyesmith.prompts"
"""Where a safetensors file that we wrote has the model's prompts, a JSON list, in its metadata."""
CONFIG = "eyesmith.config"
"""Where it has the model's config, where tensors do not tell it: a JSON object."""
_WRAPPERS = ("module.", "model.")  # DDP and DataParallel; Lightning
# anywhere in a name: torch.compile; FSDP, activation checkpointing
_INSERTED = re.compile(r"_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.")
_LFS_MARK = b"version https://git-lfs.github.com/spec/"
_MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit


def read_tensors(path: str | os.PathLike[str], *, weights: Which = "model") -> dict[str, Tensor]:
    """All tensors of a weight file by name, on the CPU, in their stored type.

    Reads safetensors and torch.save files (told apart by content, not by name), the latter with weights_only=True
    alone, and models cut into several files by the `.index.json` that lists them. weights: of a training checkpoint the
    model's part is taken, or its averaged weights ("ema"). The prefixes `module.` and `model.` (of all names) and
    those that torch.compile, FSDP and activation checkpointing put anywhere are removed. Raises CheckpointError for a
    file that is missing, truncated, damaged, an LFS pointer, no weight file, needs code to be read, or has no average.
    """
    file = Path(path)
    if weights not in ("model", "ema"):
        raise ConfigError(f"weights: expected 'model' or 'ema', got {weights!r}")
    if file.name.endswith(INDEX_SUFFIX):
        return _plain_names(_read_shards(file, weights), file)
    return _plain_names(_read_file(file, weights), file)


def _read_file(file: Path, weights: Which) -> dict[str, Tensor]:
    head = _head(file)
    if _is_safetensors(file, head):
        if weights == "ema":
            raise CheckpointError(f"{file}: a safetensors file holds one set of weights, no average beside it")
        return _read_safetensors(file)
    if head.startswith((b"PK\x03\x04", b"\x80")):
        if head.startswith(b"PK") and is_torchscript(file):
            if weights == "ema":
                raise CheckpointError(f"{file}: a TorchScript archive holds one set of weights, no average beside it")
            return read_torchscript(file)
        return _state_dict(_read_torch(file), file, weights)
    raise CheckpointError(f"{file}: {_what_else(head, file)}")


def _read_shards(index: Path, weights: Which) -> dict[str, Tensor]:
    """The tensors that an index lists, out of the files beside it."""
    try:
        table = load_json(index.read_text("utf-8"))["weight_map"]
        files = sorted(set(table.values()))
        if not files or any(Path(name).name != name for name in files):
            raise ValueError("expected the names of files in its own folder")
    except FileNotFoundError:
        raise CheckpointError(f"{index}: no such weight file") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index}: cannot be read as an index of weight files ({error})") from None
    if absent := [name for name in files if not (index.parent / name).is_file()]:
        raise CheckpointError(
            f"{index}: of the {len(files)} files it lists {len(absent)} are missing, such as {absent[0]}; get them too"
        )
    tensors: dict[str, Tensor] = {}
    for name in files:
        part = _read_file(index.parent / name, weights)
        if twice := tensors.keys() & part.keys():
            raise CheckpointError(f"{index}: '{min(twice)}' is in two of its files; they are of different models")
        tensors |= part
    if missing := [name for name in table if name not in tensors]:
        raise CheckpointError(f"{index}: {len(missing)} tensors it lists are in no file, such as {_some(missing)}")
    return tensors


def load_tensors(
    module: nn.Module, tensors: Mapping[str, Tensor], *, where: str, dtype: torch.dtype = torch.float32
) -> None:
    """Make `tensors` the parameters of `module`; every name and shape must fit, nothing is changed when one does not.

    where: the file, for messages. dtype: of floating-point parameters afterwards. The module may be on the meta device:
    it gets the tensors themselves, or copies where the type differs or memory is shared. Raises CheckpointError naming
    what is missing, left over, of another shape, quantised, NaN or infinite.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in tensors]
    left_over = [name for name in tensors if name not in own]
    bent = [name for name in own if name in tensors and tensors[name].shape != own[name].shape]
    if missing or left_over or bent:
        lines = [f"{where}: these weights belong to another model"]
        if bent:
            name = bent[0]
            shapes = f"[{_shape(tensors[name])}], the model needs [{_shape(own[name])}]"
            lines.append(f"{len(bent)} tensors have another shape, such as '{name}': {shapes}")
        if missing:
            lines.append(f"{len(missing)} of {len(own)} tensors are missing, such as {_some(missing)}")
        if left_over:
            lines.append(f"{len(left_over)} tensors have no place, such as {_some(left_over)}")
        raise CheckpointError("; ".join(lines))
    _check_numbers(own, tensors, where)
    module.load_state_dict(own_memory(tensors, dtype=dtype), strict=True, assign=True)


def _check_numbers(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise CheckpointError for integers where the model has fractions, and for numbers that are none."""
    whole = [name for name, value in own.items() if value.is_floating_point() and not _is_float(tensors[name])]
    if whole:
        kind = str(tensors[whole[0]].dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{where}: {len(whole)} of {len(own)} tensors hold {kind} instead of floating-point numbers, such as "
            f"'{whole[0]}': these are quantised weights, whose scales are not known here; get the file in "
            "fp32, fp16 or bf16"
        )
    broken = [name for name in own if _is_float(tensors[name]) and not _is_finite(tensors[name])]
    if broken:
        raise CheckpointError(
            f"{where}: {len(broken)} of {len(own)} tensors hold NaN or infinity, such as {_some(broken)}: a diverged "
            "training or a damaged file; take an earlier checkpoint"
        )


def _is_finite(tensor: Tensor) -> bool:
    plain = tensor.float() if tensor.itemsize == 1 else tensor  # the types of one byte have no such test
    return bool(plain.isfinite().all())


def _is_float(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not tensor.is_quantized


def own_memory(tensors: Mapping[str, Tensor], *, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Contiguous CPU tensors of which no two share memory, as safetensors and parameters need them.

    dtype: for those that hold floating-point numbers; None: as they are. What fits already is not copied.
    """
    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
        storage = value.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() > value.nbytes:
            value = value.clone()
        seen.add(value.untyped_storage().data_ptr())
        plain[name] = value
    return plain


def read_prompts(path: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """The prompts that a weight file written by `convert` has beside its tensors; None for any other file."""
    found = _said(Path(path), PROMPTS)
    if isinstance(found, list) and found and all(isinstance(prompt, str) and "{}" in prompt for prompt in found):
        return tuple(found)
    return None


def read_own_config(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The model's config that a weight file written by `convert` has beside its tensors; None for any other file."""
    found = _said(Path(path), CONFIG)
    return found if isinstance(found, dict) else None


def _said(file: Path, key: str) -> Any:
    """What the metadata of a safetensors file has under a key, as JSON; None for any other file."""
    if not _is_safetensors(file, _head(file)):
        return None
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            return load_json(load_json(stream.read(length))["__metadata__"][key])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(512)
    except FileNotFoundError:
        raise CheckpointError(f"{file}: no such weight file") from None
    except IsADirectoryError:
        raise CheckpointError(f"{file}: expected a weight file, this is a folder") from None
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from None


def _is_safetensors(file: Path, head: bytes) -> bool:
    if len(head) < 9 or head[8:9] != b"{":
        return False
    (length,) = struct.unpack("<Q", head[:8])
    return 2 <= length <= _MAX_HEADER_BYTES


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        # copies: safetensors maps the file, so that a change of it would change the model, at odd addresses besides
        return {name: tensor.clone() for name, tensor in load_file(file).items()}
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        size = file.stat().st_size
        declared = _declared_bytes(file)
        if declared is not None and declared > size:
            raise CheckpointError(
                f"{file}: the file is cut off: {size:,} bytes are there, its header names {declared:,}; get it again"
            ) from None
        raise CheckpointError(f"{file}: damaged safetensors file ({error}); get it again") from None


def _declared_bytes(file: Path) -> int | None:
    """Size that a safetensors header promises, None when the header itself cannot be read."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = stream.read(length)
    if len(header) < length:
        return 8 + length
    try:
        entries = load_json(header)
        return 8 + length + max(entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _read_torch(file: Path) -> Any:
    try:
        # by a path torch would go by the name and hand *.safetensors elsewhere; its warning about pickle protocols
        # says nothing that the error after it does not
        with file.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"(?:GLOBAL|global|class|function) `?([A-Za-z_][\w.]*)", str(error))
        needs = f" (it asks for {wanted[1].rstrip('.')})" if wanted else ""
        raise CheckpointError(
            f"{file}: refused: reading this pickle would run code of its own{needs}, or it is damaged; ask its author "
            "for a safetensors file, or, if you trust it, save its state dict alone with torch.save where it was made"
        ) from None
    except Exception as error:  # damaged bytes reach every kind of error inside the unpickler
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointError(f"{file}: truncated or damaged torch file ({reason}); get it again") from None


def _state_dict(content: Any, file: Path, weights: Which) -> dict[str, Tensor]:
    if weights == "ema":
        content = _average(content, file)
    for _ in range(3):  # Lightning and DeepSpeed nest twice
        if not isinstance(content, Mapping):
            break
        nested = next((key for key in _NESTED_KEYS if isinstance(content.get(key), Mapping)), None)
        if nested is None:
            break
        content = content[nested]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file}: holds {type(content).__name__}, no tensors by name")
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    tensors.pop("n_averaged", None)  # torch.optim.swa_utils counts its updates among the tensors
    strange = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if tensors and not strange and all(isinstance(name, str) for name in tensors):
        odd = [name for name, value in tensors.items() if value.is_meta or value.layout is not torch.strided]
        if odd:
            raise CheckpointError(
                f"{file}: {len(odd)} of {len(tensors)} tensors are sparse or have a shape and no numbers (device "
                f"meta), such as {_some(odd)}; save them dense, from a model whose weights are loaded"
            )
        return tensors
    if any(isinstance(content.get(key), Mapping) for key in _EMA_KEYS):
        raise CheckpointError(f"{file}: holds averaged weights alone; pass weights='ema' to load them")
    if not content:
        raise CheckpointError(f"{file}: holds no tensors by name")
    if (known := of_content(content)) is not None:
        raise CheckpointError(f"{file}: {known}")
    first = next(iter(strange), next(iter(content)))
    raise CheckpointError(
        f"{file}: expected names with tensors, or a training checkpoint with one of {', '.join(_NESTED_KEYS)}; "
        f"{first!r} is {type(content[first]).__name__}"
    )


def _average(content: Any, file: Path) -> Mapping[str, Any]:
    found = [key for key in _EMA_KEYS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)]
    found = [key for key in found if content[key]]
    if not found:
        what = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(
            f"{file}: no averaged weights are in it (expected one of {', '.join(_EMA_KEYS)}; it holds {what}); "
            "leave out weights='ema' to load the model itself"
        )
    return content[found[0]]


def _plain_names(tensors: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    if not tensors:
        raise CheckpointError(f"{file}: holds no tensors")
    plain = {_INSERTED.sub("", name): tensor for name, tensor in tensors.items()}
    while prefix := next((p for p in _WRAPPERS if all(name.startswith(p) for name in plain)), None):
        plain = {name.removeprefix(prefix): tensor for name, tensor in plain.items()}
    if len(plain) != len(tensors):
        raise CheckpointError(
            f"{file}: some names become equal without the prefixes of torch.compile and FSDP ('_orig_mod.' ...); two "
            "models in one file?"
        )
    return plain


def _what_else(head: bytes, file: Path) -> str:
    if not head:
        return "the file is empty"
    if head.startswith(_LFS_MARK):
        return (
            "this is a Git LFS pointer, not the weights; run `git lfs pull` where it was cloned, or download the file"
        )
    if head.lstrip()[:1] == b"<":
        return "this is a web page, not weights; the download link was wrong or asked for a login"
    if (known := of_file(head, file)) is not None:
        return known
    size = file.stat().st_size
    return f"expected safetensors or a torch.save file, got {size:,} bytes that start with {head[:8]!r}"


def _shape(tensor: Tensor) -> str:
    return ",".join(str(side) for side in tensor.shape)


def _some(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:3])
