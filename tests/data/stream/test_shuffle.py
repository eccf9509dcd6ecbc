import numpy as np
import pytest

from eyesmith.data.stream.shuffle import Recent, Shuffle
from eyesmith.errors import ConfigError


@pytest.mark.parametrize("size", [1, 2, 7, 100, 5_000, 131_072])
def test_parts_are_those_of_the_whole_order(size) -> None:
    shuffle = Shuffle(size, seed=3, epoch=2, stream=(2, 1, 0))
    whole = shuffle.all()
    assert sorted(whole.tolist()) == list(range(size))
    for start, stop in ((0, size), (0, 1), (size // 3, size // 2), (size - 1, size), (size // 2, size // 2)):
        assert shuffle.part(start, stop).tolist() == whole[start:stop].tolist()


def test_words_that_are_equal_keep_the_order_of_their_numbers() -> None:
    shuffle = Shuffle(64, seed=0, epoch=0, stream=(2, 0, 0))
    shuffle._words = np.repeat(np.array([7, 2**63, 2**64 - 1, 5], dtype=np.uint64), 16)
    whole = shuffle.all()
    assert whole[:16].tolist() == list(range(48, 64))
    for start in range(64):
        assert shuffle.part(start, min(start + 5, 64)).tolist() == whole[start : start + 5].tolist()
        before = [
            sum(first <= number < last for number in whole[:start]) for first, last in ((0, 10), (10, 40), (40, 64))
        ]
        assert shuffle.counts_before(start, np.array([0, 10, 40])).tolist() == before


def test_an_order_depends_on_each_of_its_names() -> None:
    names = {"seed": 1, "epoch": 0, "stream": (2, 0, 0)}
    one = Shuffle(50, **names).all().tolist()
    for other in ({"seed": 2}, {"epoch": 1}, {"stream": (1, 0, 0)}, {"stream": (2, 1, 0)}, {"stream": (2, 0, 1)}):
        assert Shuffle(50, **{**names, **other}).all().tolist() != one
    with pytest.raises(ConfigError, match="seed and epoch"):
        Shuffle(5, seed=-1, epoch=0, stream=(0, 0, 0))


def test_what_is_recent_is_kept_for_one_more_round() -> None:
    made: list[int] = []
    kept: Recent[int, int] = Recent()

    def get(key: int) -> int:
        return kept.get(key, lambda: made.append(key) or key)

    assert [get(1), get(1), get(2)] == [1, 1, 2]
    kept.next_round()
    assert get(1) == 1
    kept.next_round()
    assert [get(1), get(2)] == [1, 2]
    assert made == [1, 2, 2]
