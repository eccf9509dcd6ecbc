from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from eyesmith.models.identity import module_hash
from eyesmith.models.text.cache import TextCache


class _Tower(nn.Module):
    context_len = 8

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(4.0))
        self.register_buffer("bits", torch.zeros(2, dtype=torch.bfloat16))
        self.register_buffer("scalar", torch.tensor(1.0))
        self.calls: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> Tensor:
        self.calls.append(list(texts))
        return torch.tensor([[float(len(text)), float(ord(text[0]))] for text in texts])


def test_a_text_is_encoded_once_and_never_again(tmp_path: Path) -> None:
    tower = _Tower()
    cache = TextCache(tower, tower.encode, folder=tmp_path)
    rows = cache(["cat", "a", "cat"])
    assert rows.tolist() == [[3.0, 99.0], [1.0, 97.0], [3.0, 99.0]]
    assert tower.calls == [["a", "cat"]]  # by length, each once
    later = TextCache(tower, tower.encode, folder=tmp_path)  # another run
    assert later(["a", "dog", "\ud800 surrogate"]).tolist()[:2] == [[1.0, 97.0], [3.0, 100.0]]
    assert tower.calls[1:] == [["dog", "\ud800 surrogate"]]
    assert (cache.num_encoded, later.num_encoded) == (2, 2)


def test_another_tower_shares_nothing(tmp_path: Path) -> None:
    one, other = _Tower(), _Tower()
    with torch.no_grad():
        other.weight[2] += 1e-6
    assert module_hash(one) != module_hash(other)
    assert module_hash(one) == module_hash(_Tower())
    TextCache(one, one.encode, folder=tmp_path)(["cat"])
    TextCache(other, other.encode, folder=tmp_path)(["cat"])
    assert other.calls == [["cat"]]


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    tower = _Tower()
    TextCache(tower, tower.encode, folder=tmp_path)(["cat"])
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:20])
    assert TextCache(tower, tower.encode, folder=tmp_path)(["cat"]).tolist() == [[3.0, 99.0]]
    assert TextCache(tower, tower.encode, folder=tmp_path)(["cat"]).tolist() == [[3.0, 99.0]]
    assert len(tower.calls) == 2


def test_one_bit_that_turned_is_found(tmp_path: Path) -> None:
    tower = _Tower()
    TextCache(tower, tower.encode, folder=tmp_path)(["cat", "horse"])
    (file,) = tmp_path.iterdir()
    whole = bytearray(file.read_bytes())
    whole[whole.find(b"\0\0\x40\x40")] ^= 1  # of 3.0, the first feature
    file.write_bytes(whole)
    assert TextCache(tower, tower.encode, folder=tmp_path)(["cat"]).tolist() == [[3.0, 99.0]]
    assert len(tower.calls) == 2
