import itertools

import numpy as np
import pytest
from PIL import Image

from eyesmith.data.curate.near_images import (
    groups_of,
    is_near_embedding,
    is_near_hash,
    kept_of_groups,
    near_embedding_pairs,
    near_hash_pairs,
)
from eyesmith.data.curate.perceptual import perceptual_hash
from eyesmith.data.curate.uids import join_uids


def _hashes(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**64, count, dtype=np.uint64)
    for row in range(count // 2, count):  # near and equal ones
        value = values[rng.integers(count // 2)]
        for bit in rng.integers(0, 64, int(rng.integers(0, 8))):
            value ^= np.uint64(1) << np.uint64(bit)
        values[row] = value
    return values


def _loop_groups(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    label = list(range(count))
    for _ in range(count):
        for i, j in pairs:
            label[i] = label[j] = min(label[i], label[j])
    return label


@pytest.mark.parametrize("max_bits", [0, 1, 4, 9])
def test_near_hashes_equal_a_loop(max_bits: int) -> None:
    hashes = _hashes(150, max_bits)
    values = hashes.tolist()
    near = {(i, j) for i, j in itertools.combinations(range(150), 2) if (values[i] ^ values[j]).bit_count() <= max_bits}
    found = near_hash_pairs(hashes, max_bits)
    assert {*map(tuple, found.tolist())} <= near
    assert groups_of(150, found).tolist() == _loop_groups(150, sorted(near))
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
    pairs = near_hash_pairs(np.concatenate([many, changed]), 4)
    assert {*map(tuple, pairs.tolist())} >= {(row, 40_000 + row) for row in range(200)}


def test_near_embeddings_equal_a_loop() -> None:
    rows = np.random.default_rng(1).normal(size=(60, 4))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    near = [(i, j) for i, j in itertools.combinations(range(60), 2) if float(unit[i] @ unit[j]) >= 0.9]
    assert len(near) > 10
    assert sorted(map(tuple, near_embedding_pairs(rows, 0.9).tolist())) == near
    expected = [max(float(unit[i] @ unit[j]) for j in range(20)) >= 0.9 for i in range(60)]
    assert is_near_embedding(rows, rows[:20], 0.9).tolist() == expected


def test_a_chain_is_one_group_and_the_best_of_it_stays() -> None:
    groups = groups_of(7, np.array([[5, 6], [2, 5], [1, 2], [0, 3]]))
    assert groups.tolist() == [0, 1, 1, 0, 4, 1, 1]
    uids = join_uids(np.array([9, 8, 7, 6, 5, 4, 3]), np.zeros(7, int))
    prefer = np.array([1.0, 2.0, 3.0, 1.0, np.nan, 3.0, np.nan])
    # of 0 and 3 the smaller uid, of the others the highest score and then the smaller uid
    assert kept_of_groups(groups, prefer, uids).tolist() == [False, False, False, True, True, True, False]


def test_long_chains_are_joined() -> None:
    order = np.random.default_rng(0).permutation(500)
    pairs = np.stack([order[:-1], order[1:]], axis=1)
    assert (groups_of(500, np.sort(pairs, axis=1)) == 0).all()


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
    assert near_hash_pairs(hashes, 8).size == 0
