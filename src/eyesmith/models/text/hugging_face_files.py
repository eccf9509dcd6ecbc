"""What is read of a Hugging Face folder: sizes of a known kind of encoder, tensors, and a tokenizer's tables.

The library's own readers do more than that: they follow a config to Python files in the folder, to kernels on the hub,
to adapters, quantisers, other formats and other paths, and ask at the terminal whether they may. So the files are read
here, and the library is given values.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from eyesmith.errors import CheckpointError
from eyesmith.files import load_json, write_atomic, write_json
from eyesmith.models.foreign.packages import first_line, quiet

ATTENTION = {
    "albert": "sdpa",
    "bert": "sdpa",
    "camembert": "sdpa",
    "convbert": "eager",
    "data2vec-text": "sdpa",
    "deberta": "eager",
    "deberta-v2": "eager",
    "distilbert": "sdpa",
    "electra": "sdpa",
    "ernie": "sdpa",
    "mobilebert": "sdpa",
    "modernbert": "sdpa",
    "mpnet": "eager",
    "nomic_bert": "sdpa",
    "rembert": "eager",
    "roberta": "sdpa",
    "roberta-prelayernorm": "sdpa",
    "roformer": "eager",
    "xlm-roberta": "sdpa",
    "xlm-roberta-xl": "sdpa",
}
"""The kinds of text encoder that are known, and what each computes attention with; no file has a say in it."""

_TOKENIZERS = {
    *("AlbertTokenizer", "BertTokenizer", "CamembertTokenizer", "ConvBertTokenizer", "DebertaTokenizer"),
    *("DebertaV2Tokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MPNetTokenizer", "MobileBertTokenizer"),
    *("PreTrainedTokenizer", "RemBertTokenizer", "RoFormerTokenizer", "RobertaTokenizer", "TokenizersBackend"),
    *("CLIPTokenizer", "GemmaTokenizer", "Siglip2Tokenizer", "SiglipTokenizer", "XLMRobertaTokenizer"),
}
TABLES = (  # data alone: text, JSON, sentencepiece's tables
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "added_tokens.json",
    "special_tokens_map.json",
)
MARK = "eyesmith.json"  # in a folder of `save_parts`: the weights are kept elsewhere, in the run's model.safetensors
_WEIGHTS = "model.safetensors"
_ELSEWHERE = ("_file", "_files", "_object", "_path", "_kwargs", "_map")  # settings that name files or hold objects


def read_config(transformers: Any, folder: Path) -> Any:
    """The library's config of a folder's encoder: of a known kind, its own sizes and nothing else that a file may say.

    Raises CheckpointError for another kind, for one that wants Python of its own, and for a damaged file.
    """
    content = _json(folder / "config.json")
    _refuse_code(content, folder / "config.json")
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in ATTENTION or kind not in transformers.CONFIG_MAPPING:
        raise CheckpointError(
            f"{folder / 'config.json'}: expected one of the text encoders {', '.join(ATTENTION)}; its model_type is "
            f"{kind!r}"
        )
    if "quantization_config" in content:
        raise CheckpointError(f"{folder / 'config.json'}: expected weights as they are, these are quantised")
    config_class = transformers.CONFIG_MAPPING[kind]
    own = config_class().to_dict().keys() - transformers.PreTrainedConfig().to_dict().keys()
    own |= config_class.attribute_map.keys()
    try:
        config = config_class(**{name: value for name, value in content.items() if name in own})
    except Exception as error:  # sizes that make no sense reach any kind of error
        raise CheckpointError(f"{folder / 'config.json'}: cannot be used ({first_line(error)})") from None
    config._attn_implementation = ATTENTION[kind]
    return config


def read_weights(folder: Path) -> dict[str, Tensor] | None:
    """The tensors of model.safetensors, or of the parts that its index names, under the file's names; None without.

    Raises CheckpointError for a damaged file, and an index that names anything but files beside it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = [_WEIGHTS]
    if not (folder / _WEIGHTS).is_file():
        index = folder / f"{_WEIGHTS}.index.json"
        if not index.is_file():
            return None
        table = _json(index).get("weight_map")
        files = sorted(set(table.values())) if isinstance(table, dict) and table else [""]
        if any(name in ("", ".", "..") or Path(name).name != name for name in map(str, files)):
            raise CheckpointError(f"{index}: expected the names of weight files beside it")
    tensors: dict[str, Tensor] = {}
    for name in files:
        try:
            tensors |= load_file(folder / name)
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{folder / name}: cannot be read as safetensors ({error})") from None
    return tensors


def copy_tokenizer(folder: Path, target: Path) -> None:
    """Put a folder's tables of its tokenizer, and those settings that name nothing outside of them, into `target`.

    Raises CheckpointError for a tokenizer of an unknown class, or one that wants Python of its own.
    """
    for name in TABLES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)
    settings = {}
    if (folder / "tokenizer_config.json").is_file():
        settings = _json(folder / "tokenizer_config.json")
        _refuse_code(settings, folder / "tokenizer_config.json")
    wanted = settings.get("tokenizer_class") or "PreTrainedTokenizer"
    if not isinstance(wanted, str) or wanted.removesuffix("Fast") not in _TOKENIZERS:
        raise CheckpointError(
            f"{folder / 'tokenizer_config.json'}: expected one of the tokenizers {', '.join(sorted(_TOKENIZERS))}; its "
            f"tokenizer_class is {wanted!r}"
        )
    named = {"name_or_path", "chat_template", "init_inputs", "backend", "processor_class"}
    kept = {name: value for name, value in settings.items() if not name.endswith(_ELSEWHERE) and name not in named}
    (target / "tokenizer_config.json").write_text(json.dumps(kept), "utf-8")


def load_tokenizer(transformers: Any, folder: Path, config: Any, whose: str) -> Any:
    """The library's tokenizer out of a folder's tables, which pads on the right. config: the library's, of the encoder.

    Raises CheckpointError as copy_tokenizer does, and for damaged tables; whose: in the message of that.
    """
    try:
        with quiet(transformers), tempfile.TemporaryDirectory() as scratch:
            copy_tokenizer(folder, Path(scratch))
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                scratch, config=config, local_files_only=True, trust_remote_code=False
            )
    except CheckpointError:
        raise
    except Exception as error:  # damaged tables reach every kind of error
        raise CheckpointError(f"{folder}: expected the tokenizer files of {whose}; {first_line(error)}") from error
    tokenizer.name_or_path = ""  # it outlives the folder that it was read from
    tokenizer.padding_side = "right"
    return tokenizer


def save_parts(parts: Iterable[Any], folder: str | os.PathLike[str], mark: dict[str, str]) -> None:
    """Write the library's parts (a config, a tokenizer) to a folder, and `mark` to its MARK."""
    with tempfile.TemporaryDirectory() as scratch:
        for part in parts:
            part.save_pretrained(scratch)
        for made in sorted(Path(scratch).iterdir()):
            write_atomic(Path(folder) / made.name, made.read_bytes())
    write_json(Path(folder) / MARK, mark)


def _refuse_code(content: dict[str, Any], path: Path) -> None:
    if "auto_map" in content or "custom_pipelines" in content:
        raise CheckpointError(f"{path}: refused: it asks for Python files of its own (auto_map), which are never run")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = load_json(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content
