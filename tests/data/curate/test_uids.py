from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from eyesmith.data.curate.uids import UID, find_uids, format_uids, parse_uids, read_subset, try_uids, write_subset
from eyesmith.errors import DataError


def _random_ids(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    # few different high halves: the low half has to decide
    return [f"{int(rng.integers(4)) * 2**62:016x}{int(rng.integers(0, 60)):016x}" for _ in range(count)]


def test_halves_are_those_of_the_number() -> None:
    text = "00ff00000000000180000000000000fe"
    ids = parse_uids([text, text.upper()])
    assert ids.dtype == np.dtype("u8,u8") == UID
    assert ids.tolist() == [(int(text[:16], 16), int(text[16:], 16))] * 2
    assert format_uids(ids) == [text, text]
    assert parse_uids([]).shape == (0,)


@pytest.mark.parametrize("text", ["0" * 31, "0" * 33, "g" + "0" * 31, "", "é" * 16])
def test_a_wrong_id_is_named(text: str) -> None:
    with pytest.raises(DataError, match="row 1: uid"):
        parse_uids(["0" * 32, text])
    assert try_uids(["0" * 32, text, "F" * 32])[1].tolist() == [True, False, True]


@pytest.mark.parametrize("is_raw", [False, True])
def test_a_subset_file_is_sorted_and_keeps_copies(tmp_path: Path, is_raw: bool) -> None:
    texts = _random_ids(300, 0)
    write_subset(tmp_path / "subset.npy", parse_uids(texts))
    if is_raw:
        np.load(tmp_path / "subset.npy").tofile(tmp_path / "subset.npy")
    subset = read_subset(tmp_path / "subset.npy")
    assert format_uids(np.array(subset)) == sorted(texts)
    asked = [*_random_ids(500, 1), "f" * 32, "0" * 32]
    counts = Counter(texts)
    place, copies = find_uids(subset, parse_uids(asked))
    assert copies.tolist() == [counts[text] for text in asked]
    assert [sorted(texts).index(text) for text in asked if text in counts] == place[copies > 0].tolist()


def test_an_empty_subset_has_nothing(tmp_path: Path) -> None:
    write_subset(tmp_path / "none.npy", parse_uids([]))
    assert find_uids(read_subset(tmp_path / "none.npy"), parse_uids(["0" * 32]))[1].tolist() == [0]


def test_unsorted_cut_and_other_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", parse_uids(["f" * 32, "0" * 32]))
    with pytest.raises(DataError, match="row 1 is smaller"):
        read_subset(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(DataError, match="u8,u8"):
        read_subset(tmp_path / "b.npy")
    (tmp_path / "c.npy").write_bytes(b"123456789")
    with pytest.raises(DataError, match="whole number of ids"):
        read_subset(tmp_path / "c.npy")
    with pytest.raises(DataError, match="cannot be read"):
        read_subset(tmp_path / "d.npy")
