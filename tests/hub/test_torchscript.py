"""TorchScript archives: the tensors out of them, and none of the program."""

import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eyesmith.errors import CheckpointError
from eyesmith.hub.torchscript import is_torchscript, read_torchscript


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2).half()
        self.table = nn.Parameter(torch.randn(2, 3).mT)  # strided
        self.register_buffer("input_resolution", torch.tensor(224))
        self.register_buffer("mask", torch.tensor([True, False]))

    def forward(self, x: Tensor) -> Tensor:
        return x


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual = Part()
        self.tied = self.visual.table
        self.names: list[int] = [1, 2]
        self.blocks = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 3).bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        return self.visual(x)


def archive(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own
        torch.jit.save(torch.jit.script(module), path)
    return path


def test_the_tensors_are_those_of_the_module(tmp_path: Path) -> None:
    module = Whole()
    file = archive(module, tmp_path / "model.pt")
    assert is_torchscript(file)
    found, expected = read_torchscript(file), module.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


def test_torch_is_not_asked_to_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = archive(Whole(), tmp_path / "model.pt")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("was run")

    monkeypatch.setattr(torch.jit, "load", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert "visual.table" in read_torchscript(file)


def repacked(file: Path, out: Path, changes: dict[str, bytes | None]) -> Path:
    """The archive with some members replaced or left out; names end as given."""
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            ending = next((ending for ending in changes if name.endswith(ending)), None)
            content = source.read(name) if ending is None else changes[ending]
            if content is not None:
                target.writestr(name, content)
    return out


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("ran",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = archive(Whole(), tmp_path / "model.pt")
    evil = io.BytesIO()
    pickle.Pickler(evil, protocol=2).dump(Evil())
    bad = repacked(file, tmp_path / "evil.pt", {"/data.pkl": evil.getvalue()})
    with pytest.raises(CheckpointError, match=r"refused: this TorchScript archive names .*print"):
        read_torchscript(bad)
    assert capsys.readouterr().out == ""


def test_damaged_archives_say_so(tmp_path: Path) -> None:
    file = archive(Whole(), tmp_path / "model.pt")
    faults: tuple[dict[str, bytes | None], ...] = ({"/data/0": None}, {"/data/0": b"1"}, {"/data.pkl": b"\x80\x02}q"})
    for number, changes in enumerate(faults):
        bad = repacked(file, tmp_path / f"{number}.pt", changes)
        with pytest.raises(CheckpointError, match="truncated or damaged TorchScript archive"):
            read_torchscript(bad)


def test_a_module_without_tensors_holds_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_torchscript(archive(nn.ReLU(), tmp_path / "empty.pt"))
