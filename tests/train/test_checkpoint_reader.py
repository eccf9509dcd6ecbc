import io
import os
import pickle
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata

from eyesmith.errors import CheckpointError
from eyesmith.train.checkpoint import consolidate, read_into, sizes
from eyesmith.train.checkpoint_reader import TensorsOnly, read_metadata

VALUES = {
    "model/weight": torch.arange(12.0).reshape(3, 4),
    "average/weight": torch.ones(2, 3, dtype=torch.bfloat16),
    "step": torch.tensor(7),
    "empty": torch.zeros(0, 5),
}


class Payload:
    """Unpickled by pickle itself, it makes the folder `mark`."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A folder as torch writes it, in the place that it has below a run folder."""
    return _written(tmp_path / "run/state/step-00000007", VALUES)


def _written(path: Path, values: Mapping[str, Any]) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(dict(values), checkpoint_id=path)
    return path


def _stored(path: Path) -> Metadata:
    return pickle.loads((path / ".metadata").read_bytes())


def _store(path: Path, content: object) -> None:
    (path / ".metadata").write_bytes(pickle.dumps(content))


def _empty() -> dict[str, Tensor]:
    return {name: torch.zeros_like(value) for name, value in VALUES.items()}


def test_the_list_is_what_torch_reads(state: Path) -> None:
    ours, theirs = read_metadata(state / ".metadata"), _stored(state)
    assert ours.state_dict_metadata == theirs.state_dict_metadata
    assert ours.storage_data == theirs.storage_data
    assert sizes(state) == {name: tuple(value.shape) for name, value in VALUES.items()}


def test_the_values_come_back(state: Path) -> None:
    content = _empty()
    read_into(state, content)
    for name, value in VALUES.items():
        assert torch.equal(content[name], value)


def test_a_prepared_list_runs_nothing(state: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    hidden = _stored(state)
    hidden.planner_data = {"deep": [Payload(mark)]}  # the list itself is right
    for content in (Payload(mark), hidden):
        _store(state, content)
        for attempt in (
            lambda: sizes(state),
            lambda: read_into(state, _empty()),
            lambda: consolidate(tmp_path / "run"),
        ):
            with pytest.raises(CheckpointError, match=r"\.metadata: refused: it names posix\.mkdir|nt\.mkdir"):
                attempt()
            assert not mark.exists()


def test_a_list_of_one_process_runs_nothing(state: Path, tmp_path: Path) -> None:
    # torch falls back on it where `.metadata` cannot be read
    mark = tmp_path / "mark"
    (state / ".metadata").write_bytes(b"damaged")
    (state / "__0.metadata").write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(CheckpointError, match="no list of a state's tensors"):
        read_into(state, _empty())
    assert not mark.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "torch.load", "torch.serialization.load", "collections.OrderedDict"])
def test_no_other_name_is_looked_up(state: Path, name: str) -> None:
    module, _, function = name.rpartition(".")
    (state / ".metadata").write_bytes(f"c{module}\n{function}\n(tR.".encode())
    with pytest.raises(CheckpointError, match=f"names {name}"):
        sizes(state)


def test_a_list_cannot_change_the_classes_of_the_format(state: Path) -> None:
    # pickle's BUILD on a class itself would set attributes of it
    code = b"ctorch.distributed.checkpoint.metadata\nMetadata\nN}X\x05\x00\x00\x00ownedI1\ns\x86b."
    (state / ".metadata").write_bytes(code)
    with pytest.raises(CheckpointError):
        sizes(state)
    assert not hasattr(Metadata, "owned")


def test_values_that_are_no_tensors_are_never_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    state = _written(tmp_path / "run/state/step-00000007", {**VALUES, "note": {"what": "text"}})
    assert any(isinstance(entry, BytesStorageMetadata) for entry in _stored(state).state_dict_metadata.values())
    with pytest.raises(CheckpointError, match="is no tensor"):
        sizes(state)
    stream = io.BytesIO()
    torch.save(Payload(mark), stream)
    stream.seek(0)
    reading = TensorsOnly()
    reading.state_dict, reading.flatten_state_dict = {}, False
    item: Any = type("Item", (), {"dest_index": type("Index", (), {"fqn": "note"})})
    with pytest.raises(CheckpointError, match="note: expected a tensor"):
        reading.load_bytes(item, stream)
    assert not mark.exists()


@pytest.mark.parametrize("place", ["../other/__0_0.distcp", "/etc/passwd", "..", "a\\b"])
def test_parts_lie_in_the_folder(state: Path, place: str) -> None:
    shutil.copytree(state, state.parent / "other")
    content = _stored(state)
    for entry in content.storage_data.values():
        entry.relative_path = place
    _store(state, content)
    with pytest.raises(CheckpointError, match="is no file of this folder"):
        read_into(state, _empty())


def test_a_prepared_part_runs_nothing(state: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    stream = io.BytesIO()
    torch.save(Payload(mark), stream)
    content = _stored(state)
    for entry in content.storage_data.values():
        entry.offset, entry.length = 0, len(stream.getvalue())
    _store(state, content)
    for part in state.glob("*.distcp"):
        part.write_bytes(stream.getvalue())
    with pytest.raises(CheckpointError):
        read_into(state, _empty())
    assert not mark.exists()


def test_a_file_that_holds_no_tensors_is_named(tmp_path: Path) -> None:
    for content in ([1, 2], {"step": 3}):
        torch.save(content, tmp_path / "last.pt")
        with pytest.raises(CheckpointError, match=r"last\.pt: is no state of a run"):
            sizes(tmp_path / "last.pt")
