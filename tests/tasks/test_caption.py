"""Captions as one more loss: against slow loops, a whole run that resumes, and captions alone."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import eyesmith
from eyesmith.errors import ConfigError, ShapeError
from eyesmith.hub import verify
from eyesmith.losses.caption import _told, caption_loss
from eyesmith.models.captioner import Captioner, CaptionerConfig
from eyesmith.models.text import ClipTextConfig
from eyesmith.runs.train import resume, start
from eyesmith.runs.work import Work
from eyesmith.tasks.caption import CaptionTaskConfig
from eyesmith.tasks.contrastive import TrainConfig

SMALL = CaptionerConfig(width=16, depth=1, heads=2)


@pytest.fixture
def captions(config: TrainConfig) -> CaptionTaskConfig:
    fields = {name: getattr(config, name) for name in TrainConfig.__dataclass_fields__}
    return CaptionTaskConfig(**{**fields, "caption": SMALL, "epochs": 1, "save_every_steps": 3})


def test_the_loss_is_a_loop_over_the_words_of_each_caption() -> None:
    draws = torch.Generator().manual_seed(0)
    ids = torch.tensor([[8, 1, 2, 9, 0], [8, 3, 9, 0, 0], [8, 9, 0, 0, 0]])
    states, words = torch.randn(3, 4, 6, generator=draws), torch.randn(10, 6, generator=draws)
    logits = states @ words.T
    found = caption_loss(states, words, ids, torch.tensor([4, 3, 2]))
    whole = _told(states, words, ids[:, 1:])  # what is not on a CPU makes all
    for row, length in enumerate((4, 3, 2)):
        costs = []
        for place in range(length - 1):
            scores = logits[row, place].tolist()
            total = sum(math.exp(score) for score in scores)
            costs.append(-math.log(math.exp(scores[ids[row, place + 1]]) / total))
        assert found[row].item() == pytest.approx(sum(costs) / len(costs), rel=1e-5)
        assert whole[row, : length - 1].tolist() == pytest.approx(costs, rel=1e-5)


def test_padding_costs_nothing_and_gets_no_gradient() -> None:
    draws = torch.Generator().manual_seed(0)
    ids, lengths = torch.tensor([[8, 1, 2, 9, 0], [8, 9, 0, 0, 0]]), torch.tensor([4, 2])
    states = torch.randn(2, 4, 6, generator=draws, requires_grad=True)
    words = torch.randn(10, 6, generator=draws, requires_grad=True)
    caption_loss(states, words, ids, lengths).sum().backward()
    slow = torch.stack(
        [
            F.cross_entropy(states[0, :3] @ words.T, ids[0, 1:4]),
            F.cross_entropy(states[1, :1] @ words.T, ids[1, 1:2]),
        ]
    )
    for ours, theirs in zip((states.grad, words.grad), torch.autograd.grad(slow.sum(), (states, words)), strict=True):
        assert ours is not None
        torch.testing.assert_close(ours, theirs)
    with pytest.raises(ShapeError, match="caption_loss"):
        caption_loss(states[:, :3], words, ids, lengths)


def test_no_word_sees_a_later_one_and_every_word_sees_the_cells() -> None:
    torch.manual_seed(0)
    decoder = Captioner(SMALL, cells=6, vocab_size=12, context_len=8).eval()
    cells, ids = torch.randn(2, 4, 6), torch.tensor([[10, 1, 2, 3, 11], [10, 4, 5, 6, 11]])
    later = ids.clone()
    later[:, 3] = 7
    with torch.no_grad():
        found, changed, blind = decoder(cells, ids), decoder(cells, later), decoder(cells + 1, ids)
    assert found.shape == (2, 4, 16)
    torch.testing.assert_close(found[:, :3], changed[:, :3])
    assert not torch.allclose(found[:, 3], changed[:, 3])
    assert not torch.isclose(found, blind).all(-1).any()


def test_a_run_resumes_to_the_bit_and_leaves_a_plain_model_with_its_decoder_beside_it(
    captions: CaptionTaskConfig, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(captions, tmp_path / "whole")

    def broken(_: Work) -> None:
        raise RuntimeError("stopped here")

    with monkeypatch.context() as patched:
        patched.setattr(Work, "_leave_model", broken)
        with pytest.raises(RuntimeError, match="stopped here"):
            start(captions, tmp_path / "stopped")
    max((tmp_path / "stopped" / "state").iterdir()).unlink()
    resume(tmp_path / "stopped")
    for name in ("model.safetensors", "caption.safetensors"):
        ours, theirs = (load_file(tmp_path / run / name) for run in ("whole", "stopped"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    assert eyesmith.load(tmp_path / "whole").config == config.model
    assert verify(tmp_path / "whole").ok


def test_captions_alone_leave_the_text_tower_as_it_was(captions: CaptionTaskConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"optim\.freeze"):
        replace(captions, contrastive_weight=0.0)
    optim = replace(captions.optim, freeze=("text.*", "logit_scale"))
    alone = replace(captions, contrastive_weight=0.0, optim=optim)
    start(alone, tmp_path / "run")
    torch.manual_seed(alone.seed)
    begun, left = alone.model.build().state_dict(), load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(left[name], value) for name, value in begun.items() if name.startswith("text."))
    assert any(not torch.equal(left[name], value) for name, value in begun.items() if name.startswith("image."))


def test_what_does_not_go_with_captions_is_said(captions: CaptionTaskConfig) -> None:
    with pytest.raises(ConfigError, match="do not go with captions"):
        replace(captions, accumulate=3)
    text = captions.model.text
    assert isinstance(text, ClipTextConfig)
    for is_causal in (True, False):  # SigLIP's, whose padding would be told as words
        padded = replace(captions.model, text=replace(text, pooling="last", is_causal=is_causal))
        with pytest.raises(ConfigError, match="to their end token"):
            replace(captions, model=padded)
    with pytest.raises(ConfigError, match="which is not locked"):
        replace(captions, model=replace(captions.model, lock_text=True))
    with pytest.raises(ConfigError, match="above 0"):
        replace(captions, caption_weight=0.0)
    with pytest.raises(ConfigError, match="heads divide"):
        CaptionerConfig(width=10, heads=4)
