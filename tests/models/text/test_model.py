import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.config import from_dict, to_dict
from eyesmith.errors import ConfigError, ShapeError
from eyesmith.models.text import ClipText, ClipTextConfig
from eyesmith.models.text import model as text_model
from eyesmith.models.text.model import Block, attend_causal, pack_texts
from eyesmith.models.text.weights import from_open_clip, to_open_clip

SMALL = ClipTextConfig(width=48, depth=3, heads=4, embed_dim=20, context_len=16, vocab_size=100)


@pytest.fixture
def tower() -> ClipText:
    torch.manual_seed(0)
    return SMALL.build().double()


def slow(tower: ClipText, row: torch.Tensor) -> torch.Tensor:
    """One text, head by head and with a written-out mask, every position through to the projection."""
    x = tower.token_embedding.weight[row] + tower.positional_embedding[: len(row)]
    for block in tower.transformer.resblocks:
        assert isinstance(block, Block)
        packed = block.ln_1(x) @ block.attn.in_proj_weight.T + block.attn.in_proj_bias
        q, k, v = packed.chunk(3, dim=-1)
        heads = []
        for q_h, k_h, v_h in zip(*(part.chunk(4, dim=-1) for part in (q, k, v)), strict=True):
            scores = q_h @ k_h.T / math.sqrt(12)
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)
            heads.append(scores.softmax(-1) @ v_h)
        x = x + block.attn.out_proj(torch.cat(heads, dim=-1))
        x = x + block.mlp.c_proj(F.gelu(block.mlp.c_fc(block.ln_2(x))))
    return (tower.ln_final(x) @ tower.text_projection)[row.argmax()]


def random_ids(lengths: list[int], columns: int) -> torch.Tensor:
    ids = torch.zeros(len(lengths), columns, dtype=torch.int64)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = torch.randint(1, 98, (length,))
        row[0], row[length - 1] = 98, 99
    return ids


def test_equals_the_written_out_transformer(tower: ClipText) -> None:
    ids = random_ids([2, 5, 9, 16], 16)
    expected = torch.stack([slow(tower, row) for row in ids])
    torch.testing.assert_close(tower(ids), expected, rtol=0, atol=1e-12)


def test_what_follows_the_end_token_changes_nothing(tower: ClipText) -> None:
    ids = random_ids([4, 7], 16)
    expected = tower(ids)
    torch.testing.assert_close(tower(ids[:, :7]), expected, rtol=0, atol=1e-14)
    junk = ids.clone()
    junk[0, 4:], junk[1, 7:] = 3, 99  # the first of the largest ids is the end
    torch.testing.assert_close(tower(junk), expected, rtol=0, atol=1e-14)


def test_rows_do_not_touch_each_other(tower: ClipText) -> None:
    ids = random_ids([3, 16, 8], 16)
    alone = torch.cat([tower(row[None]) for row in ids])
    torch.testing.assert_close(tower(ids), alone, rtol=0, atol=1e-14)
    assert tower(ids[:0]).shape == (0, 20)


def test_gradients_reach_every_parameter(tower: ClipText) -> None:
    tower(random_ids([6, 12], 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tower.parameters())


def test_training_in_bfloat16_stays_near_full_precision() -> None:
    torch.manual_seed(0)
    q, k, v, target = (torch.randn(2, 3, 9, 16) for _ in range(4))
    results = []
    for dtype in (torch.float64, torch.bfloat16):
        inputs = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        out = attend_causal(*inputs)
        (out * target.to(dtype)).sum().backward()
        results.append([out, *(x.grad for x in inputs)])
    for exact, rounded in zip(*results, strict=True):
        assert exact is not None
        assert rounded is not None
        torch.testing.assert_close(rounded.double(), exact, rtol=0, atol=0.06)


def test_wrong_shapes_are_refused(tower: ClipText) -> None:
    for shape in ((16,), (2, 17), (2, 0), (1, 2, 3)):
        with pytest.raises(ShapeError, match="ids"):
            tower(torch.zeros(shape, dtype=torch.int64))


def test_initial_deviations() -> None:
    torch.manual_seed(0)
    tower = ClipTextConfig(width=128, depth=2, heads=2, embed_dim=128, vocab_size=2000).build()
    block = tower.transformer.resblocks[1]
    assert isinstance(block, Block)
    expected = {
        tower.token_embedding.weight: 0.02,
        tower.positional_embedding: 0.01,
        tower.text_projection: 128**-0.5,
        block.attn.in_proj_weight: 128**-0.5,
        block.attn.out_proj.weight: 128**-0.5 / 2,
        block.mlp.c_fc.weight: 256**-0.5,
        block.mlp.c_proj.weight: 128**-0.5 / 2,
        block.mlp.c_fc.bias: 128**-0.5 / 3**0.5,  # uniform within +-1/sqrt(inputs)
    }
    for weight, deviation in expected.items():
        assert weight.std().item() == pytest.approx(deviation, rel=0.1)
    assert not block.attn.in_proj_bias.any()
    assert not block.attn.out_proj.bias.any()


def test_tokenize_cuts_to_the_longest_and_assets_restore_it(tmp_path: Path) -> None:
    config = ClipTextConfig(width=8, depth=1, heads=1, embed_dim=4, context_len=12)
    tower = config.build()
    texts = ["a photo of a cat", "a cat"]
    ids = tower.tokenize(texts)
    assert ids.shape == (2, 7)
    assert tower.tokenize(["word " * 50]).shape == (1, 12)
    torch.testing.assert_close(tower(ids), tower(tower.tokenizer(texts)))
    tower.save_assets(tmp_path / "text")
    other = config.build()
    other.load_assets(tmp_path / "text")
    assert torch.equal(other.tokenize(texts), ids)


def test_names_of_both_open_clip_layouts(tower: ClipText) -> None:
    state = tower.state_dict()
    custom = {**to_open_clip(state), "visual.proj": torch.zeros(1), "logit_scale": torch.zeros(())}
    old = {**to_open_clip(state, prefix=""), "visual.proj": torch.zeros(1), "attn_mask": torch.zeros(1)}
    for layout in (custom, old):
        found = from_open_clip(layout)
        assert found.keys() == state.keys()
        tower.load_state_dict(found)
    assert from_open_clip({"visual.proj": torch.zeros(1)}) == {}


def test_config_survives_json_and_refuses_nonsense() -> None:
    assert from_dict(ClipTextConfig, to_dict(SMALL)) == SMALL
    for wrong in ({"heads": 5}, {"depth": 0}, {"context_len": 1}, {"mlp_ratio": 0.0}, {"vocab_size": 2}):
        with pytest.raises(ConfigError):
            from_dict(ClipTextConfig, {**to_dict(SMALL), **wrong})


LENGTHS = [9, 2, 16, 9, 5, 2, 12, 15]
SHALLOW = ClipTextConfig(width=24, depth=3, heads=2, embed_dim=20, context_len=16, vocab_size=100)


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
    tower: ClipText = SHALLOW.build().double()
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
    tower = SHALLOW.build()
    ids = ids_of(LENGTHS)
    expected = tower.double()(ids).detach()
    monkeypatch.setattr(text_model, "GROUP_MACS", 0)
    tower.to(dtype)
    with torch.inference_mode():
        found = tower(ids)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.1)
