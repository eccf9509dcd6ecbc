import io
import json
import os
import pickle
import struct
import warnings
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.hub.weights import load_tensors, own_memory, read_tensors

TENSORS = {
    "stem.weight": torch.arange(6.0).view(2, 3),
    "stem.bias": torch.tensor([1.5, -2.0]),
    "scale": torch.tensor(2.0),
}


def assert_equal(found: dict[str, torch.Tensor]) -> None:
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(found[name], tensor)


class Bomb:
    """A pickle that leaves a file behind when it is run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["model.safetensors", "weights.bin", "no_suffix"])
def test_safetensors_are_read_under_any_name(tmp_path: Path, name: str) -> None:
    save_file(TENSORS, tmp_path / name)
    assert_equal(read_tensors(tmp_path / name))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "epoch.pt", "odd.safetensors"])
def test_torch_files_old_and_new_are_read_under_any_name(tmp_path: Path, name: str, zipped: bool) -> None:
    torch.save(TENSORS, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert_equal(read_tensors(tmp_path / name))


@pytest.mark.parametrize("key", ["state_dict", "model", "module", "model_state_dict"])
def test_training_checkpoints_give_their_model(tmp_path: Path, key: str) -> None:
    checkpoint = {"epoch": 3, "name": "run", key: TENSORS, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}}
    torch.save(checkpoint, tmp_path / "epoch_3.pt")
    assert_equal(read_tensors(tmp_path / "epoch_3.pt"))


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
)
def test_prefixes_of_wrappers_go(tmp_path: Path, prefix: str) -> None:
    torch.save({"state_dict": {prefix + name: tensor for name, tensor in TENSORS.items()}}, tmp_path / "c.pt")
    assert_equal(read_tensors(tmp_path / "c.pt"))


def test_a_compiled_part_loses_its_mark_but_a_part_called_module_stays(tmp_path: Path) -> None:
    torch.save({"image._orig_mod.w": torch.ones(1), "module.w": torch.ones(2)}, tmp_path / "c.pt")
    assert sorted(read_tensors(tmp_path / "c.pt")) == ["image.w", "module.w"]


def test_names_that_would_collide_are_refused(tmp_path: Path) -> None:
    torch.save({"image._orig_mod.w": torch.ones(1), "image.w": torch.ones(1)}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="become equal"):
        read_tensors(tmp_path / "c.pt")


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    file, trace = tmp_path / "evil.pt", tmp_path / "ran"
    content = {"state_dict": TENSORS, "extra": Bomb(trace)}
    if form == "plain":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match=r"refused.*safetensors"):
        read_tensors(file)
    assert not trace.exists()


def test_a_harmless_object_that_needs_code_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"state_dict": TENSORS, "args": Namespace(lr=1)}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"argparse\.Namespace"):
        read_tensors(tmp_path / "c.pt")


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_a_file_cut_anywhere_is_an_error(tmp_path: Path, kind: str) -> None:
    whole = tmp_path / "whole"
    if kind == "safetensors":
        save_file(TENSORS, whole)
    else:
        torch.save(TENSORS, whole, _use_new_zipfile_serialization=kind == "zip")
    content = whole.read_bytes()
    for length in {0, 1, 5, 8, 9, 40, len(content) // 3, len(content) // 2, len(content) - 8, len(content) - 1}:
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="cut"):
            read_tensors(tmp_path / "cut")


def test_a_cut_safetensors_file_names_both_sizes(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-8])
    with pytest.raises(CheckpointError, match=rf"cut off: {len(content) - 8} bytes .* names {len(content)}"):
        read_tensors(tmp_path / "model.safetensors")


@pytest.mark.parametrize("offsets", [[0, 4], "", [], [0], {}, [0, "8"], None])
def test_a_damaged_safetensors_header_is_an_error(tmp_path: Path, offsets: object) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": offsets}}).encode()
    (tmp_path / "w").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(CheckpointError, match="damaged"):
        read_tensors(tmp_path / "w")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>login</html>", "web page"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "expected safetensors"),
        (b"epoch,loss\n1,2\n", "expected safetensors"),
    ],
)
def test_what_is_no_weight_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_tensors(tmp_path / "model.safetensors")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such weight file"):
        read_tensors(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="folder"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("content", [[1, 2], torch.ones(2), {}, {"epoch": 3}, {"state_dict": {}}, {1: torch.ones(1)}])
def test_torch_files_without_named_tensors_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"c\.pt"):
        read_tensors(tmp_path / "c.pt")


@pytest.mark.parametrize("odd", [torch.ones(3, 3, device="meta"), torch.eye(3).to_sparse()], ids=["meta", "sparse"])
def test_tensors_that_hold_no_plain_numbers_are_refused(tmp_path: Path, odd: torch.Tensor) -> None:
    torch.save({"a": torch.ones(2), "b": odd}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"c\.pt: 1 of 2 tensors are sparse or have a shape and no numbers.*'b'"):
        read_tensors(tmp_path / "c.pt")


def test_a_zip_that_is_no_torch_file_is_damaged(tmp_path: Path) -> None:
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("hello.txt", "hello")
    (tmp_path / "c.pt").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="damaged"):
        read_tensors(tmp_path / "c.pt")


def test_loading_names_what_does_not_fit_and_changes_nothing() -> None:
    module = nn.Linear(3, 2)
    before = module.weight.detach().clone()
    wrong = {"weight": torch.zeros(2, 4), "extra": torch.zeros(1)}
    with pytest.raises(
        CheckpointError, match=r"f.pt.*'weight': \[2,4\].* needs \[2,3\].*missing.*'bias'.*no place.*'extra'"
    ):
        load_tensors(module, wrong, where="f.pt")
    assert torch.equal(module.weight, before)
    load_tensors(module, {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, where="f.pt")
    assert torch.equal(module.weight, torch.ones(2, 3))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "model.module."])
@pytest.mark.parametrize(
    "key", ["state_dict_ema", "model_ema", "ema", "ema_state_dict", "ema_model", "averaged_model", "average"]
)
def test_the_average_is_taken_when_it_is_asked_for(tmp_path: Path, key: str, prefix: str) -> None:
    other = {prefix + name: tensor + 1 for name, tensor in TENSORS.items()}
    torch.save({"epoch": 3, "model": other, key: {prefix + n: t for n, t in TENSORS.items()}}, tmp_path / "c.pt")
    assert_equal(read_tensors(tmp_path / "c.pt", weights="ema"))
    assert torch.equal(read_tensors(tmp_path / "c.pt")["scale"], torch.tensor(3.0))


def test_averages_of_torch_and_nested_ones_are_read(tmp_path: Path) -> None:
    average = torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2))
    torch.save({"model_ema": average.state_dict(), "model": {}}, tmp_path / "c.pt")
    assert sorted(read_tensors(tmp_path / "c.pt", weights="ema")) == ["bias", "weight"]
    torch.save({"model_ema": {"module": TENSORS}}, tmp_path / "d.pt")
    assert_equal(read_tensors(tmp_path / "d.pt", weights="ema"))


def test_an_average_that_is_not_there_or_alone_is_explained(tmp_path: Path) -> None:
    torch.save({"state_dict": TENSORS, "ema": 0.999, "model_ema": None, "average": {}}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"no averaged weights .* it holds state_dict, ema.*leave out"):
        read_tensors(tmp_path / "c.pt", weights="ema")
    save_file(TENSORS, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="no average beside it"):
        read_tensors(tmp_path / "w.safetensors", weights="ema")
    torch.save({"epoch": 1, "model_ema": TENSORS}, tmp_path / "d.pt")
    with pytest.raises(CheckpointError, match="averaged weights alone; pass weights='ema'"):
        read_tensors(tmp_path / "d.pt")
    with pytest.raises(ConfigError, match="expected 'model' or 'ema'"):
        read_tensors(tmp_path / "d.pt", weights="both")  # pyright: ignore[reportArgumentType]


def shards(folder: Path, *, suffix: str = "safetensors") -> Path:
    names = list(TENSORS)
    parts = {f"model-0000{i}-of-00002.{suffix}": part for i, part in ((1, names[:1]), (2, names[1:]))}
    for file, part in parts.items():
        content = {f"module.{name}": TENSORS[name] for name in part}
        save_file(content, folder / file) if suffix == "safetensors" else torch.save(content, folder / file)
    table = {f"module.{name}": file for file, part in parts.items() for name in part}
    index = folder / f"model.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return index


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_model_in_several_files_is_read_by_its_index(tmp_path: Path, suffix: str) -> None:
    assert_equal(read_tensors(shards(tmp_path, suffix=suffix)))


def test_what_is_wrong_with_parts_is_named(tmp_path: Path) -> None:
    index = shards(tmp_path)
    table = json.loads(index.read_text())
    second = tmp_path / "model-00002-of-00002.safetensors"
    moved = second.rename(tmp_path / "away")
    with pytest.raises(CheckpointError, match=r"1 are missing, such as model-00002"):
        read_tensors(index)
    moved.rename(second)
    table["weight_map"]["module.more"] = second.name
    index.write_text(json.dumps(table))
    with pytest.raises(CheckpointError, match=r"1 tensors it lists are in no file, such as 'module.more'"):
        read_tensors(index)
    save_file({"module.scale": torch.ones(1), "module.stem.weight": torch.ones(1)}, second)
    with pytest.raises(CheckpointError, match=r"'module.stem.weight' is in two of its files"):
        read_tensors(index)
    for content in ("no json", "[]", '{"weight_map": {}}', '{"weight_map": {"a": "../b"}}'):
        index.write_text(content)
        with pytest.raises(CheckpointError, match="cannot be read as an index"):
            read_tensors(index)
    with pytest.raises(CheckpointError, match="no such weight file"):
        read_tensors(tmp_path / "none.index.json")


def test_what_was_read_does_not_change_with_the_file(tmp_path: Path) -> None:
    big = {"w": torch.ones(1 << 20)}
    save_file(big, tmp_path / "w.safetensors")
    found = read_tensors(tmp_path / "w.safetensors")
    with (tmp_path / "w.safetensors").open("r+b") as stream:
        stream.seek(-1000, os.SEEK_END)
        stream.write(bytes(1000))
    assert torch.equal(found["w"], big["w"])


def test_a_module_without_memory_takes_the_tensors_themselves() -> None:
    with torch.device("meta"):
        module = nn.Linear(3, 2)
    module.bias.requires_grad_(False)
    tensors = {"weight": torch.ones(2, 3), "bias": torch.zeros(2, dtype=torch.float16)}
    load_tensors(module, tensors, where="f.pt")
    assert module.weight.data_ptr() == tensors["weight"].data_ptr()
    assert module.weight.requires_grad
    assert not module.bias.requires_grad
    assert module.bias.dtype == torch.float32
    load_tensors(module, tensors, where="f.pt", dtype=torch.bfloat16)
    assert {value.dtype for value in module.state_dict().values()} == {torch.bfloat16}


def test_tensors_that_share_memory_get_their_own() -> None:
    whole = torch.arange(12.0).view(3, 4)
    found = own_memory({"a": whole, "b": whole, "c": whole.T, "d": whole[1], "n": torch.tensor(3)}, dtype=torch.float64)
    assert found["n"].dtype == torch.int64
    found = own_memory({"a": whole, "b": whole, "c": whole.T, "d": whole[1]})
    assert found["a"] is not whole
    assert found["a"].data_ptr() == whole.data_ptr()
    assert len({value.data_ptr() for value in found.values()}) == 4
    assert all(value.is_contiguous() for value in found.values())
    assert torch.equal(found["c"], whole.T)
    assert torch.equal(found["d"], whole[1])


def test_a_torchscript_archive_has_no_average(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "model.pt")
    assert set(read_tensors(tmp_path / "model.pt")) == {"weight", "bias"}
    with pytest.raises(CheckpointError, match="a TorchScript archive holds one set of weights"):
        read_tensors(tmp_path / "model.pt", weights="ema")


def test_the_prefixes_of_fsdp_are_removed_anywhere(tmp_path: Path) -> None:
    wrapped = {
        "_fsdp_wrapped_module.stem._fsdp_wrapped_module._checkpoint_wrapped_module.weight": TENSORS["stem.weight"],
        "_fsdp_wrapped_module.stem._fsdp_wrapped_module.bias": TENSORS["stem.bias"],
        "_fsdp_wrapped_module.scale": TENSORS["scale"],
    }
    torch.save(wrapped, tmp_path / "fsdp.pt")
    assert_equal(read_tensors(tmp_path / "fsdp.pt"))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(number: float) -> None:
    module = nn.Linear(2, 2)
    before = module.weight.detach().clone()
    bad = {"weight": torch.tensor([[1.0, number], [0.0, 1.0]]), "bias": torch.zeros(2)}
    with pytest.raises(CheckpointError, match=r"here: 1 of 2 tensors hold NaN or infinity, such as 'weight'"):
        load_tensors(module, bad, where="here")
    assert torch.equal(module.weight, before)


def test_whole_numbers_are_no_weights() -> None:
    quantised = {"weight": torch.ones(2, 2, dtype=torch.int8), "bias": torch.zeros(2)}
    with pytest.raises(CheckpointError, match=r"1 of 2 tensors hold int8 .* 'weight': these are quantised weights"):
        load_tensors(nn.Linear(2, 2), quantised, where="here")
