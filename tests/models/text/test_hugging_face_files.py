import builtins
import importlib
import json
import shutil
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from eyesmith.errors import CheckpointError, MissingDependencyError
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.text import HuggingFaceText, HuggingFaceTextConfig
from eyesmith.models.text.hugging_face import locate
from eyesmith.models.text.hugging_face_files import ATTENTION, copy_tokenizer

pytestmark = pytest.mark.skipif(find_spec("transformers") is None, reason="needs transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog"]
SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "embedding_size": 16,
    "pad_token_id": 0,
}
RUN = "import pathlib; pathlib.Path({!r}).mkdir()\n"


@pytest.fixture
def transformers() -> Any:
    if find_spec("torchvision") is not None:
        ensure_torchvision()
    return importlib.import_module("transformers")


def _write(folder: Path, transformers: Any, kind: str = "bert") -> Path:
    """An encoder as the library saves it, with a tokenizer of eight words."""
    folder.mkdir()
    config = transformers.CONFIG_MAPPING[kind](**SIZES)
    with torch.random.fork_rng(devices=[]):
        transformers.AutoModel.from_config(config).save_pretrained(folder)
    transformers.BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)}).save_pretrained(folder)
    if kind != "bert":
        _edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    return folder


@pytest.fixture
def folder(tmp_path: Path, transformers: Any) -> Path:
    return _write(tmp_path / "encoder", transformers)


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a payload makes; whoever is asked at the terminal says yes."""
    monkeypatch.setattr(builtins, "input", lambda *_: "y")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return tmp_path / "mark"


def _edit(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | values))


def _build(folder: Path) -> HuggingFaceText:
    return HuggingFaceTextConfig(source=str(folder), context_len=8).build()


@pytest.mark.parametrize("kind", sorted(ATTENTION))
def test_each_known_kind_gives_what_the_library_reads(kind: str, tmp_path: Path, transformers: Any) -> None:
    folder = _write(tmp_path / kind, transformers, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tower = _build(folder)
        theirs = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    ids = torch.tensor([[5, 6, 7, 5], [6, 6, 5, 7]])
    with torch.inference_mode():
        expected = theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(tower(ids), expected, rtol=0, atol=1e-6)
    assert tower.out_dim == 16


def test_python_files_of_a_folder_are_never_run(folder: Path, mark: Path) -> None:
    (folder / "evil.py").write_text(
        RUN.format(str(mark)) + "from transformers import PretrainedConfig\nclass C(PretrainedConfig): pass\n"
    )
    reference = {"AutoConfig": "evil.C", "AutoModel": "evil.C", "AutoTokenizer": ["evil.C", None]}
    for kind in ("unheard-of", "bert"):
        _edit(folder / "config.json", model_type=kind, auto_map=reference)
        with pytest.raises(CheckpointError, match=r"refused: it asks for Python files of its own \(auto_map\)"):
            _build(folder)
        assert not mark.exists()


def test_python_files_of_a_tokenizer_are_never_run(folder: Path, mark: Path) -> None:
    (folder / "evil.py").write_text(RUN.format(str(mark)))
    _edit(folder / "tokenizer_config.json", tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.C", "evil.C"]})
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: refused"):
        _build(folder)
    assert not mark.exists()


def test_a_file_has_no_say_in_how_attention_is_computed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, mark: Path
) -> None:
    # the library reads "owner/name" as a kernel that it loads from the hub, and the package `kernels` runs it
    from transformers import PreTrainedModel

    asked: list[str | None] = []
    checked = PreTrainedModel._check_and_adjust_attn_implementation

    def spy(self: Any, attn_implementation: str | None, *rest: Any, **named: Any) -> Any:
        asked.append(attn_implementation)
        return checked(self, None if "/" in str(attn_implementation) else attn_implementation, *rest, **named)

    monkeypatch.setattr(PreTrainedModel, "_check_and_adjust_attn_implementation", spy)
    for name in ("attn_implementation", "_attn_implementation", "_attn_implementation_internal"):
        _edit(folder / "config.json", **{name: "owner/kernel"})
    assert _build(folder).encoder.config._attn_implementation == "sdpa"  # pyright: ignore
    assert set(asked) == {"sdpa"}


@pytest.mark.parametrize("kind", ["gpt2", "no such", "", None, 3, ["bert"]])
def test_other_kinds_are_refused(kind: object, folder: Path) -> None:
    _edit(folder / "config.json", model_type=kind)
    with pytest.raises(CheckpointError, match="expected one of the text encoders"):
        _build(folder)


def test_a_package_is_never_imported_to_find_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: Path) -> None:
    package = tmp_path / "found" / "evil_package"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text(RUN.format(str(mark)))
    (package / "inner" / "__init__.py").touch()
    monkeypatch.syspath_prepend(package.parent)
    for name in ("evil_package.inner", "evil_package.inner.deep"):
        with pytest.raises(MissingDependencyError):
            locate(f"package:{name}")
    with pytest.raises(CheckpointError):  # it is found, without a folder `model`
        locate("package:evil_package")
    assert not mark.exists()
    assert "evil_package" not in sys.modules


def test_nothing_else_in_the_folder_is_followed(folder: Path, tmp_path: Path, mark: Path, transformers: Any) -> None:
    other = _write(tmp_path / "other", transformers)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(other)}))
    _edit(folder / "config.json", transformers_weights=str(other / "model.safetensors"), use_kernels=True)
    _edit(
        folder / "tokenizer_config.json",
        vocab_file=str(other / "config.json"),
        tokenizer_file=str(other / "config.json"),
        chat_template="{{ ''.__class__ }}",
    )
    weights = load_file(folder / "model.safetensors")
    tower = _build(folder)
    own = tower.state_dict()
    assert all(torch.equal(own[f"encoder.{name}"], value) for name, value in weights.items())
    assert tower.tokenize(["a cat"]).tolist() == [[2, 5, 6, 3]]
    tower.save_assets(tmp_path / "saved")
    for file in (tmp_path / "saved").iterdir():
        assert str(tmp_path) not in file.read_text("utf-8")


def test_quantised_weights_and_strange_tokenizers_are_refused(folder: Path, tmp_path: Path) -> None:
    _edit(folder / "tokenizer_config.json", tokenizer_class="TransfoXLTokenizer")  # which unpickles its vocabulary
    with pytest.raises(CheckpointError, match="expected one of the tokenizers"):
        copy_tokenizer(folder, tmp_path)
    _edit(folder / "config.json", quantization_config={"quant_method": "gptq"})
    with pytest.raises(CheckpointError, match="quantised"):
        _build(folder)


def test_weights_in_parts_lie_in_the_folder(folder: Path, tmp_path: Path) -> None:
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(whole)
    parts = {"a.safetensors": names[:3], "b.safetensors": names[3:]}
    for file, mine in parts.items():
        save_file({name: whole[name] for name in mine}, folder / file)
    index = folder / "model.safetensors.index.json"
    table = {name: file for file, mine in parts.items() for name in mine}
    index.write_text(json.dumps({"weight_map": table}))
    own = _build(folder).state_dict()
    assert all(torch.equal(own[f"encoder.{name}"], value) for name, value in whole.items())
    shutil.copy(folder / "b.safetensors", tmp_path / "b.safetensors")
    for wrong in ("../b.safetensors", str(tmp_path / "b.safetensors"), "..", ""):
        index.write_text(json.dumps({"weight_map": table | {names[3]: wrong}}))
        with pytest.raises(CheckpointError, match="expected the names of weight files beside it"):
            _build(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["[" * 100_000, "[1]", "{broken", "\0"])
def test_damaged_files_are_named(file: str, content: str, folder: Path) -> None:
    (folder / file).write_text(content)
    with pytest.raises(CheckpointError, match=file):
        _build(folder)
