import io
import json
import os
import pickle
import struct
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from eyesmith.errors import CheckpointError
from eyesmith.hub.weights import load_tensors, read_tensors

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


def test_a_damaged_safetensors_header_is_an_error(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}).encode()
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
