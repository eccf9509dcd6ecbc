import pytest
import torch

from eyesmith.models import create
from eyesmith.models.clip import Clip
from eyesmith.train.text_bank import PassingTexts, TextBank

TEXTS = ["a red ball", "a cube", "a red ball", "two of them beside a red ball", "a cube"]


@pytest.fixture(scope="module")
def clip() -> Clip:
    torch.manual_seed(0)
    return create("ViTamin-Nano", lock_text=True).train()


def test_texts_that_pass_have_the_features_of_those_that_are_kept(clip: Clip, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path))
    kept, passing = TextBank(clip, TEXTS), PassingTexts(clip, "fp32")
    torch.testing.assert_close(passing(TEXTS), kept(TEXTS))
    assert not passing(TEXTS).requires_grad
    assert clip.image.training


def test_each_distinct_text_of_a_batch_is_encoded_once(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    encode = Clip.encode_text
    monkeypatch.setattr(Clip, "encode_text", lambda clip, texts: asked.extend(texts) or encode(clip, texts))
    passing = PassingTexts(clip, "fp32")
    features = passing(TEXTS)
    assert sorted(asked) == sorted(set(TEXTS))
    assert passing.num_encoded == 3
    assert torch.equal(features[0], features[2])
    assert torch.equal(passing(TEXTS), features)
