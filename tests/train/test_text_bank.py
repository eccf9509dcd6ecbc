from pathlib import Path

import pytest
import torch

from eyesmith.models import create
from eyesmith.models.clip import Clip
from eyesmith.train.text_bank import ClassTexts, PassingTexts, TextBank

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


def test_every_class_is_said_in_a_caption_of_its_own_drawn_anew_each_step(clip: Clip, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path))
    captions = {4: ["a cube", "a cube", "a red ball"], 1: [TEXTS[3]]}
    bank = TextBank(clip, TEXTS)
    texts = ClassTexts(bank, captions, num_classes=6, seed=3)
    assert texts.places.tolist() == [-1, 0, -1, -1, 1, -1]
    drawn = [texts(step) for step in range(20)]
    assert all(torch.equal(one[0], bank([TEXTS[3]])[0]) for one in drawn)
    cube, ball = bank(["a cube", "a red ball"])
    said = ["cube" if torch.equal(one[1], cube) else "ball" if torch.equal(one[1], ball) else "?" for one in drawn]
    assert set(said) == {"cube", "ball"}
    assert torch.equal(texts(7), drawn[7])


def test_each_distinct_text_of_a_batch_is_encoded_once(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    tokenize = type(clip.text).tokenize
    monkeypatch.setattr(type(clip.text), "tokenize", lambda text, some: asked.extend(some) or tokenize(text, some))
    passing = PassingTexts(clip, "fp32")
    features = passing(TEXTS)
    assert sorted(asked) == sorted(set(TEXTS))
    assert passing.num_encoded == 3
    assert torch.equal(features[0], features[2])
    assert torch.equal(passing(TEXTS), features)


def test_texts_are_encoded_in_the_run_s_precision(clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept apart on disk: features of one precision are never another's."""
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path))
    exact = TextBank(clip, TEXTS, "fp32")
    half = TextBank(clip, TEXTS, "bf16")
    assert (exact.num_encoded, half.num_encoded) == (3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        expected = clip.encode_text(sorted(set(TEXTS), key=lambda text: (len(text), text)))
    assert torch.equal(half(["a cube"])[0], expected[0].float())
    assert not torch.equal(half(TEXTS), exact(TEXTS))
    torch.testing.assert_close(half(TEXTS), exact(TEXTS), atol=2e-2, rtol=0)
    torch.testing.assert_close(PassingTexts(clip, "bf16")(TEXTS), half(TEXTS), atol=1e-2, rtol=0)
    assert TextBank(clip, TEXTS, "fp32").num_encoded == TextBank(clip, TEXTS, "bf16").num_encoded == 0
