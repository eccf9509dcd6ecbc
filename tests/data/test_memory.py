import numpy as np
import pytest
import torch
from PIL import Image

from eyesmith.data.memory import decode_all, decoded_bytes
from eyesmith.data.sources import open_source
from eyesmith.errors import ConfigError, DataError


@pytest.mark.parametrize("num_workers", [1, 3])
def test_rows_are_the_samples_in_order(made, num_workers):
    source = open_source(made, split="train")
    seen = []
    decoded = decode_all(
        source, 16, num_workers=num_workers, on_progress=lambda done, whole: seen.append((done, whole))
    )
    assert decoded.pixels.shape == (6, 3, 16, 16)
    assert decoded.pixels.dtype == torch.uint8
    assert decoded.pixels.nbytes == decoded_bytes(6, 16)
    assert decoded.indices == tuple(range(6))
    assert decoded.keys == tuple(source.keys)
    assert decoded.texts == [source.texts(index) for index in range(6)]
    assert decoded.labels == source.labels
    assert decoded.skipped == []
    assert seen == [(6, 6)]


def test_pixels_are_those_of_pillow(tmp_path, picture):
    (tmp_path / "a.png").write_bytes(picture(3, size=(30, 20)))
    (tmp_path / "a.txt").write_text("x")
    source = open_source(tmp_path)
    with Image.open(tmp_path / "a.png") as image:
        squashed = np.asarray(image.resize((10, 10), Image.Resampling.BICUBIC))
        middle = np.asarray(image.resize((15, 10), Image.Resampling.BICUBIC).crop((2, 0, 12, 10)))
    row = decode_all(source, 10).pixels[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(row, squashed)
    row = decode_all(source, 10, resize="shortest").pixels[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(row, middle)


def test_broken_samples_are_skipped_up_to_the_rate(made, write_tar, members):
    broken = {"train-1.png": b"no image", "train-2.txt": b" ", "train-2.json": b"{}"}
    parts = members(0) | members(1, label=1) | members(2, label=2) | broken
    write_tar(made / "train" / "0.tar", parts)
    source = open_source(made, split="train")
    with pytest.raises(
        DataError, match=r"2 of the first 6 samples cannot be used, 1 are allowed; first: train-1 in 0\.tar"
    ):
        decode_all(source, 8)
    decoded = decode_all(source, 8, max_skipped_frac=0.4)
    assert decoded.indices == (0, 3, 4, 5)
    assert decoded.labels == [0, 0, 1, 2]
    assert len(decoded) == len(decoded.pixels) == 4
    assert [(finding.kind, finding.key) for finding in decoded.skipped] == [
        ("undecodable", "train-1"),
        ("empty_caption", "train-2"),
    ]
    write_tar(made / "train" / "0.tar", members(0) | {"train-0.png": b"no image"})
    source = open_source(made, split="train")
    assert len(decode_all(source, 8)) == 3  # one is always allowed
    with pytest.raises(DataError, match="0 are allowed"):
        decode_all(source, 8, max_skipped_frac=0)


def test_nothing_left(tmp_path, picture):
    (tmp_path / "a.png").write_bytes(picture(0)[:40])
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="cannot be used"):
        decode_all(open_source(tmp_path), 8)


def test_wrong_arguments(made):
    source = open_source(made, split="train")
    for wrong in ({"size_px": 0}, {"size_px": 8, "num_workers": 0}, {"size_px": 8, "max_skipped_frac": 1.5}):
        with pytest.raises(ConfigError):
            decode_all(source, **wrong)
