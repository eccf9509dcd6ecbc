"""Void where things were learnt without their names: told by the words of training, whatever words are in use."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.dense.segment.head import SegmentHeadConfig
from eyesmith.dense.segment.pmt import PmtConfig
from eyesmith.dense.vocabulary import Vocabulary
from eyesmith.errors import ConfigError
from eyesmith.models.encoder import Tap

TAPS = {"half": Tap(16, 8), "last": Tap(16, 8)}
SMALL = SegmentHeadConfig(decoder=PmtConfig(width=16, num_heads=2, num_blocks=1, num_queries=3))


def words(count: int, seed: int) -> Vocabulary:
    vectors = F.normalize(torch.randn(count, 6, generator=torch.Generator().manual_seed(seed)), dim=-1)
    names = tuple(map(str, range(count)))
    return Vocabulary(names, names, vectors, torch.arange(count))


@pytest.fixture
def maps() -> dict[str, Tensor]:
    return {name: torch.randn(2, 8, 3, 4, generator=torch.Generator().manual_seed(1)) for name in TAPS}


def test_the_answer_is_the_last_layer_s(maps: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    head = SMALL.build(TAPS, 6).eval()
    with pytest.raises(ConfigError, match="needs words"):
        head.answer(maps)
    with pytest.raises(ConfigError, match="needs words"):
        head(maps)
    head.use(words(4, 0))
    last, answer = head(maps)[-1], head.answer(maps)
    torch.testing.assert_close(answer.classes, last.classes)
    torch.testing.assert_close(answer.masks, last.masks)
    with pytest.raises(ConfigError, match="in a space of 6"):
        head.use(Vocabulary(("a",), ("a",), torch.ones(1, 5), torch.tensor([0])))


def test_void_does_not_depend_on_the_words_in_use(maps: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    head, known = SMALL.build(TAPS, 6).eval(), words(40, 0)
    head.use(known)
    before = head.answer(maps, known).classes.softmax(-1)[..., -1]
    torch.testing.assert_close(before, head.answer(maps).classes.softmax(-1)[..., -1])
    plain = {}
    for count in (1, 5):
        head.use(words(count, 7))
        table = head.answer(maps, known).classes
        torch.testing.assert_close(table.softmax(-1)[..., -1], before)
        plain = head.answer(maps).classes
        torch.testing.assert_close(table[..., :-1], plain[..., :-1])
        assert not torch.allclose(plain.softmax(-1)[..., -1], before)
