"""The tree of beginnings against the tower's own forward pass, a text at a time."""

import pytest
import torch

from eyesmith.eval.features import prefixes
from eyesmith.eval.features.prefixes import shared_features, text_batches
from eyesmith.models.text.model import ClipText, ClipTextConfig

TEXTS = [
    *(
        f"a photo of {article} {name}{end}"
        for article in ("a", "the")
        for name in ("cat", "red cat")
        for end in (".", "!")
    ),
    "cat",
    "",
    "a photo of a cat in the water, which is a much longer sentence than all of the others here are.",
    "A PHOTO of a  cat.",  # the same tokens as another one
]


@pytest.fixture(scope="module")
def tower() -> ClipText:
    torch.manual_seed(0)
    return ClipTextConfig(width=32, depth=3, heads=4, embed_dim=16).build().eval()


def encoded(tower: ClipText) -> tuple[torch.Tensor, list[torch.Tensor]]:
    ids = tower.tokenize(TEXTS)
    ends = ids.argmax(1) + 1
    rows = torch.zeros(len(TEXTS), 16)
    batches = text_batches(ids, ends)
    with torch.no_grad():
        for chosen in batches:
            rows[chosen] = shared_features(tower, ids[chosen, : int(ends[chosen].max())], ends[chosen])
    return rows, batches


@pytest.mark.parametrize("num_nodes", [4, 12, 4096])
def test_features_are_those_of_the_tower(tower: ClipText, monkeypatch: pytest.MonkeyPatch, num_nodes: int) -> None:
    monkeypatch.setattr(prefixes, "NUM_NODES", num_nodes)
    rows, batches = encoded(tower)
    assert sorted(torch.cat(batches).tolist()) == list(range(len(TEXTS)))
    assert (len(batches) == 1) == (num_nodes == 4096)
    with torch.no_grad():
        expected = torch.cat([tower(tower.tokenize([text])) for text in TEXTS])
    torch.testing.assert_close(rows, expected, atol=2e-6, rtol=1e-5)
    assert torch.equal(rows[TEXTS.index("a photo of a cat.")], rows[-1]) or num_nodes < 4096


def test_a_beginning_is_computed_once(tower: ClipText, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    forward = tower.token_embedding.forward
    monkeypatch.setattr(tower.token_embedding, "forward", lambda ids: seen.extend(ids.tolist()) or forward(ids))
    encoded(tower)
    rows = [tuple(row[: row.argmax() + 1].tolist()) for row in tower.tokenize(TEXTS)]
    assert len(seen) == len({row[:length] for row in rows for length in range(1, len(row) + 1)})


def test_a_tower_without_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = ClipTextConfig(width=32, depth=1, heads=4, embed_dim=16).build().eval()
    tower.transformer.resblocks = torch.nn.ModuleList()
    rows, _ = encoded(tower)
    with torch.no_grad():
        torch.testing.assert_close(rows[:2], tower(tower.tokenize(TEXTS[:2])))
