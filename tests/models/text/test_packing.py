import pytest
import torch
from torch import Tensor

from eyesmith.models.text import ClipText, ClipTextConfig
from eyesmith.models.text import model as text_model
from eyesmith.models.text.packing import pack_texts

LENGTHS = [9, 2, 16, 9, 5, 2, 12, 15]
SMALL = ClipTextConfig(width=24, depth=3, heads=2, embed_dim=20, context_len=16, vocab_size=100)


def ids_of(lengths: list[int]) -> Tensor:
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = torch.randint(1, 98, (length,))
        row[0], row[length - 1] = 98, 99
    return ids


@pytest.mark.parametrize("spare", [0, 1, 3, 8, 1000])
def test_every_token_once_and_no_more_padding_than_allowed(spare: int) -> None:
    packing = pack_texts(LENGTHS, spare)
    assert sum(count for count, _ in packing.groups) == len(LENGTHS)
    assert sum(count * length for count, length in packing.groups) == len(packing.texts) == len(packing.places)
    rows = list(zip(packing.texts.tolist(), packing.places.tolist(), strict=True))
    assert len(set(rows)) == len(rows)
    assert {(text, place) for text, length in enumerate(LENGTHS) for place in range(length)} <= set(rows)
    assert [rows[end] for end in packing.ends.tolist()] == [(text, length - 1) for text, length in enumerate(LENGTHS)]
    first = 0
    for count, length in packing.groups:  # the rows of a text stand together, texts of a group one after the other
        texts = [rows[first + i * length][0] for i in range(count)]
        assert rows[first : first + count * length] == [(text, place) for text in texts for place in range(length)]
        assert sum(length - LENGTHS[text] for text in texts) <= max(spare - 1, 0)
        first += count * length
    if spare == 0:
        assert packing.groups == ((1, 16), (1, 15), (1, 12), (2, 9), (1, 5), (2, 2))
    if spare == 1000:
        assert packing.groups == ((8, 16),)


def test_features_and_gradients_are_those_of_padded_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    tower: ClipText = SMALL.build().double()
    ids, target = ids_of(LENGTHS), torch.randn(len(LENGTHS), 20, dtype=torch.float64)
    rows = torch.arange(len(LENGTHS))
    x = tower.token_embedding(ids) + tower.positional_embedding[: ids.shape[1]]
    states = tower.transformer(x)[rows, ids.argmax(1)]
    padded = tower.ln_final(states) @ tower.text_projection
    (padded * target).sum().backward()
    expected = {name: parameter.grad for name, parameter in tower.named_parameters()}
    for macs in (0, 36 * 24**2 * 4, 10**9):  # no padding, less than 4 tokens of it a group, one group
        monkeypatch.setattr(text_model, "GROUP_MACS", macs)
        tower.zero_grad()
        packed = tower(ids)
        torch.testing.assert_close(packed, padded, rtol=0, atol=1e-12)
        (packed * target).sum().backward()
        for name, parameter in tower.named_parameters():
            torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=1e-12)
        with torch.inference_mode():
            torch.testing.assert_close(tower(ids), padded, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_gradient_it_takes_the_fused_kernels(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    tower = SMALL.build()
    ids = ids_of(LENGTHS)
    expected = tower.double()(ids).detach()
    monkeypatch.setattr(text_model, "GROUP_MACS", 0)
    tower.to(dtype)
    with torch.inference_mode():
        found = tower(ids)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.1)
