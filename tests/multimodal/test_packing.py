"""Rows of ids: what is learnt, what is cut, and that packed questions are the questions one by one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from eyesmith.data.conversations import Turn
from eyesmith.errors import DataError
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.multimodal.eye import Eye, EyeConfig
from eyesmith.multimodal.language import Language, TinyConfig, build_language
from eyesmith.multimodal.model import ChatModel, Read
from eyesmith.multimodal.packing import NOT_LEARNT, ChatEncoder, may_see, padded
from eyesmith.multimodal.template import TEMPLATES, TemplateName

SMALL = TinyConfig(width=16, layers=2, heads=2, hidden=24)
EYE = ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 3), num_heads=2, embed_dim=0)
ASKED = (
    (Turn("Is there a red circle?", "yes"),),
    (Turn("What color is it?", "dark red"), Turn("Sure?", "no")),
    (Turn("How many?", "two"),),
)


@pytest.fixture
def language() -> Language:
    torch.manual_seed(0)
    texts = [text for branch in ASKED for turn in branch for text in (turn.question, turn.answer)]
    return build_language("tiny", tiny=SMALL, texts=texts)


def _encoder(language: Language, name: TemplateName = "bare", max_tokens: int = 64) -> ChatEncoder:
    return ChatEncoder(
        tokenizer=language.tokenizer, template=TEMPLATES[name], num_image_tokens=4, max_tokens=max_tokens
    )


def _losses(model: ChatModel, rows: list, seen: Tensor) -> Tensor:
    made = padded(rows, 0)
    places = (made["labels"].flatten() != NOT_LEARNT).nonzero()[:, 0]
    logits = model(Read(made["ids"], made["segments"], made["positions"], seen), places)
    return F.cross_entropy(logits, made["labels"].flatten()[places], reduction="none")


def test_packed_questions_give_the_loss_and_the_gradient_of_single_ones(language: Language) -> None:
    encoder = _encoder(language)
    model = ChatModel(Eye(EYE.build(), EyeConfig()), language.model, image_id=encoder.image_id).double()
    seen = torch.randn(1, 4, 32, dtype=torch.float64)
    packed = _losses(model, [encoder.row(ASKED, has_image=True)], seen)
    packed.sum().backward()
    ours = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    single = [_losses(model, [encoder.row((branch,), has_image=True)], seen) for branch in ASKED]
    torch.testing.assert_close(packed, torch.cat(single), rtol=0, atol=1e-12)
    torch.cat(single).sum().backward()
    theirs = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert ours.keys() == theirs.keys()
    assert "projector.linear_1.weight" in ours
    for name in ours:
        torch.testing.assert_close(
            ours[name], theirs[name], rtol=0, atol=1e-8
        )  # norms of transformers are computed in fp32


def test_padding_and_neighbours_change_nothing(language: Language) -> None:
    encoder = _encoder(language)
    model = ChatModel(Eye(EYE.build(), EyeConfig()), language.model, image_id=encoder.image_id).double()
    seen = torch.randn(2, 4, 32, dtype=torch.float64)
    rows = [encoder.row(ASKED, has_image=True), encoder.row(ASKED[2:], has_image=False)]
    together = _losses(model, rows, seen)
    alone = torch.cat([_losses(model, rows[:1], seen[:1]), _losses(model, rows[1:], seen[1:])])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_another_picture_is_noticed_and_a_blind_model_notices_none(language: Language) -> None:
    encoder = _encoder(language)
    rows = [encoder.row(ASKED, has_image=True)]
    pictures = torch.randn(2, 1, 4, 32)
    for is_blind in (False, True):
        model = ChatModel(Eye(EYE.build(), EyeConfig()), language.model, image_id=encoder.image_id, is_blind=is_blind)
        one, two = (_losses(model, rows, seen) for seen in pictures)
        assert torch.equal(one, two) == is_blind
        one.sum().backward()
        assert model.projector.linear_1.weight.grad is not None, "every process needs a gradient"


def test_who_sees_whom() -> None:
    found = may_see(torch.tensor([[1, 1, 2, 2, 3, 0]]))[0, 0].int().tolist()
    assert found == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def _trained_tokenizer(*, is_metaspace: bool) -> PreTrainedTokenizerFast:
    """Byte-pair encodings of the two kinds there are, trained here: no published vocabulary can be had offline."""
    table = Tokenizer(models.BPE(unk_token=None))
    if is_metaspace:
        table.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        table.decoder = decoders.Metaspace()
    else:
        table.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        table.decoder = decoders.ByteLevel()
    words = [f"{TEMPLATES['vicuna_v1'].system} USER: What color is it? ASSISTANT: dark red, no, Sure? yes 你好\n"] * 9
    trainer = trainers.BpeTrainer(vocab_size=220, special_tokens=["<pad>", "</s>", "<image>"], show_progress=False)
    table.train_from_iterator(words, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=table, pad_token="<pad>", eos_token="</s>", additional_special_tokens=["<image>"]
    )


@pytest.mark.parametrize("is_metaspace", [True, False])
def test_exactly_the_answers_and_their_ends_are_learnt(is_metaspace: bool) -> None:
    tokenizer = _trained_tokenizer(is_metaspace=is_metaspace)
    encoder = ChatEncoder(tokenizer=tokenizer, template=TEMPLATES["vicuna_v1"], num_image_tokens=4, max_tokens=500)
    ids, learnt = encoder.dialogue(ASKED[1], has_image=True)
    assert np.count_nonzero(ids == encoder.image_id) == 4
    assert tokenizer.decode(ids[learnt]).replace(" ", "") == "darkred</s>no</s>"
    assert ids.tolist() == tokenizer(encoder.expand(encoder.template.render(ASKED[1], has_image=True).text)).input_ids
    before = encoder.prompt(ASKED[1][:1], "Sure?", has_image=True)
    assert ids[: len(before)].tolist() == before, "an answer follows what is read before it"
    row = encoder.row((ASKED[1],), has_image=True)
    shown = row.labels != NOT_LEARNT
    assert np.array_equal(row.labels[shown], ids[learnt])
    assert np.array_equal(row.labels[:-1][shown[:-1]], ids[1:][shown[:-1]]), "each place foretells the next id"


def test_long_dialogues_are_cut_and_those_without_an_answer_left_are_refused(language: Language) -> None:
    whole, _ = _encoder(language).dialogue(ASKED[1], has_image=True)
    ids, learnt = _encoder(language, max_tokens=12).dialogue(ASKED[1], has_image=True)
    assert ids.tolist() == whole[:12].tolist()
    assert learnt.any()
    with pytest.raises(DataError, match=r"is 16 tokens long, and of the first 6 none is an answer's"):
        _encoder(language, max_tokens=6).dialogue(ASKED[1], has_image=True)


def test_a_text_that_says_the_word_for_a_picture_is_refused(language: Language) -> None:
    with pytest.raises(DataError, match="says <image>"):
        _encoder(language).dialogue((Turn("What is <image>?", "yes"),), has_image=True)
