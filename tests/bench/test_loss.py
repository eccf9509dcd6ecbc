"""The comparison of losses, taken whole on a batch that is small."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from bench import loss
from bench.loss import COPIES, equal, expected, features, rows, side, value_and_grads

pytestmark = pytest.mark.skipif(find_spec("open_clip") is None, reason="needs open_clip_torch")


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_what_a_repeated_batch_must_give(kind: Any) -> None:
    image, text = features(0, 100)
    dense = value_and_grads(side("theirs", kind), kind, image, text)
    found = value_and_grads(side("ours", kind), kind, image.repeat(COPIES, 1), text.repeat(COPIES, 1))
    found = [value[:100] if value.ndim else value for value in found]
    wanted, terms = expected(kind, image, text, dense)
    assert equal(found, wanted, terms)
    assert not equal([value * (1 + 1e-4) for value in found], wanted, terms)


@pytest.mark.slow
def test_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "features", lambda seed: features(seed, 64))
    monkeypatch.setattr(loss, "_memory", lambda kind: _fake_row(f"{kind}_32k_memory"))
    found = {row.row: row for row in rows()}
    assert list(found) == ["softmax_32k_memory", "sigmoid_32k_memory", "softmax_8k_time", "sigmoid_8k_time"]
    assert found["softmax_8k_time"].equal
    assert found["sigmoid_8k_time"].equal
    assert "open_clip" in found["sigmoid_8k_time"].peer


def test_another_gradient_is_not_called_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "features", lambda seed: features(seed, 64))
    monkeypatch.setattr(loss, "softmax_loss", lambda image, text, scale: (image @ text.mT * scale).mean())
    assert not loss._time("softmax").equal


def test_nan_is_not_called_equal() -> None:
    assert not equal([torch.tensor(torch.nan)], [torch.tensor(1.0)])


@pytest.mark.slow
def test_memory_is_flat() -> None:
    row = loss._memory("softmax")
    assert row.equal
    assert row.ours <= 1024
    assert row.ratio >= 16


def _fake_row(name: str) -> Any:
    return type("Row", (), {"row": name})()
