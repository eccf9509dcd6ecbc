import zipfile

import numpy as np
import pytest

from eyesmith.data.curate.pool import FeatureReader
from eyesmith.errors import DataError


def npz(path, shape: str, content: bytes) -> None:
    header = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content)


def test_features_are_those_that_numpy_wrote(tmp_path):
    rows = np.arange(12, dtype=np.float16).reshape(4, 3)
    np.savez(tmp_path / "f.npz", x=rows)
    with FeatureReader(tmp_path / "f.npz", "x") as reader:
        assert np.array_equal(np.concatenate([reader.read(3), reader.read(1)]), rows)


@pytest.mark.parametrize("shape", ["(4, 1000000000000)", "(4, 9000000000000000000)", "(8, 3)", "(1, 99999)", "(-1, 3)"])
def test_features_that_promise_more_than_they_hold_are_refused(tmp_path, shape):
    npz(tmp_path / "f.npz", shape, bytes(200_000 if shape == "(1, 99999)" else 24))
    with pytest.raises(DataError, match=r"f\.npz"):
        FeatureReader(tmp_path / "f.npz", "x")
