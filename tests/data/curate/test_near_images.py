import itertools

import numpy as np
import pytest
from PIL import Image

from eyesmith.data.curate.groups import groups_of
from eyesmith.data.curate.near_images import is_near_hash, near_hash_pairs
from eyesmith.data.curate.perceptual import perceptual_hash


def _hashes(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**64, count, dtype=np.uint64)
    for row in range(count // 2, count):  # near and equal ones
        value = values[rng.integers(count // 2)]
        for bit in rng.integers(0, 64, int(rng.integers(0, 8))):
            value ^= np.uint64(1) << np.uint64(bit)
        values[row] = value
    return values


@pytest.mark.parametrize("max_bits", [0, 1, 4, 9])
def test_near_hashes_equal_a_loop(max_bits: int) -> None:
    hashes = _hashes(150, max_bits)
    values = hashes.tolist()
    near = {(i, j) for i, j in itertools.combinations(range(150), 2) if (values[i] ^ values[j]).bit_count() <= max_bits}
    found = [*near_hash_pairs(hashes, max_bits)]
    assert {(min(pair), max(pair)) for part in found for pair in part.tolist()} <= near
    assert groups_of(150, found).tolist() == groups_of(150, [np.array(sorted(near))]).tolist()
    expected = [any((a ^ b).bit_count() <= max_bits for b in values[:60]) for a in values]
    assert is_near_hash(hashes, hashes[:60], max_bits).tolist() == expected


def test_bands_are_exact_with_many_values() -> None:
    rng = np.random.default_rng(0)
    many = rng.integers(0, 2**64, 40_000, dtype=np.uint64)  # more than one band has to agree from here on
    changed = many[:200].copy()
    for row in range(200):
        for bit in rng.choice(64, 4, replace=False):
            changed[row] ^= np.uint64(1) << np.uint64(bit)
    assert is_near_hash(changed, many, 4).all()
    assert not is_near_hash(changed, many, 3).any()
    pairs = np.sort(np.concatenate([*near_hash_pairs(np.concatenate([many, changed]), 4)]), axis=1)
    assert {*map(tuple, pairs.tolist())} >= {(row, 40_000 + row) for row in range(200)}


def test_every_near_pair_of_thousands_is_found_where_hashes_crowd() -> None:
    rng = np.random.default_rng(5)
    hashes = rng.integers(0, 2**14, 3000, dtype=np.uint64) << np.uint64(20)  # flat pictures: most bits are equal
    hashes ^= (
        rng.integers(0, 2**64, 3000, dtype=np.uint64)
        & rng.integers(0, 2**64, 3000, dtype=np.uint64)
        & np.uint64((1 << 64) - (1 << 50))
    )
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    expected = {(i, j) for i, j in np.argwhere(np.triu((apart <= 5) & (apart > 0), 1)).tolist()}
    found = np.sort(np.concatenate([*near_hash_pairs(hashes, 5)]), axis=1)
    assert len(expected) > 2000
    assert {*map(tuple, found.tolist())} >= expected
    assert (apart[found[:, 0], found[:, 1]] <= 5).all()


def test_hash_is_that_of_its_source() -> None:
    fftpack = pytest.importorskip("scipy.fftpack")
    rng = np.random.default_rng(2)
    for _ in range(5):
        rough = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8))
        image = rough.resize((90, 60), Image.Resampling.BICUBIC)
        grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS))
        low = fftpack.dct(fftpack.dct(grey, axis=0), axis=1)[:8, :8]
        bits = "".join("1" if bit else "0" for bit in (low > np.median(low)).ravel())
        assert perceptual_hash(image) == int(bits, 2)


def test_a_picture_saved_again_is_near_and_another_is_not() -> None:
    rng = np.random.default_rng(3)
    images = [
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((96, 96), Image.Resampling.BICUBIC)
        for _ in range(8)
    ]
    hashes = np.array([perceptual_hash(image) for image in images], dtype=np.uint64)
    smaller = np.array([perceptual_hash(image.resize((60, 60))) for image in images], dtype=np.uint64)
    assert (np.bitwise_count(hashes ^ smaller) <= 4).all()
    assert sum(map(len, near_hash_pairs(hashes, 8))) == 0
