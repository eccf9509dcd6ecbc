"""Class names as text vectors, against sentences written out by hand and a slow loop over synonyms."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.dense.prompts import FC_CLIP_TEMPLATES, PROMPTS, VILD_TEMPLATES, Prompts
from eyesmith.dense.vocabulary import Vocabulary, encode_vocabulary, split_synonyms
from eyesmith.errors import ConfigError, DataError, ShapeError
from eyesmith.models.clip import Clip, ClipConfig


@pytest.fixture
def clip(tiny_model: ClipConfig) -> Clip:
    torch.manual_seed(0)
    return tiny_model.build().eval()


def test_a_vector_is_the_mean_of_the_sentences_of_its_synonym(clip: Clip) -> None:
    asked = Prompts(templates=("a photo of a {}.", "the {} there"))
    found = encode_vocabulary(clip, [["dog", "puppy"], ["cat"]], prompts=asked)
    assert found.names == ("dog", "cat")
    assert found.synonyms == ("dog", "puppy", "cat")
    assert found.owner.tolist() == [0, 0, 1]
    for row, name in zip(found.vectors, found.synonyms, strict=True):
        sentences = clip.encode_text([f"a photo of a {name}.", f"the {name} there"])
        torch.testing.assert_close(row, F.normalize(sentences.mean(0), dim=0), atol=1e-6, rtol=1e-5)
    own = encode_vocabulary(clip, {"dog": ["dog", "puppy"], "cat": ["cat"]})  # the model's own prompts
    torch.testing.assert_close(own.vectors, clip.class_weights(["dog", "puppy", "cat"]), atol=1e-6, rtol=1e-5)


def test_scores_are_the_best_cosine_of_a_class() -> None:
    torch.manual_seed(0)
    vectors = F.normalize(torch.randn(7, 5), dim=-1)
    owner = torch.tensor([0, 0, 0, 1, 2, 2, 3])
    found = Vocabulary(tuple("abcd"), tuple("ABCDEFG"), vectors, owner)
    features = F.normalize(torch.randn(2, 3, 5), dim=-1).requires_grad_()
    scores = found.scores(features)
    assert scores.shape == (2, 3, 4)
    for i in range(2):
        for j in range(3):
            for k in range(4):
                best = max(float(features[i, j].detach() @ vectors[s]) for s in range(7) if owner[s] == k)
                assert float(scores[i, j, k].detach()) == pytest.approx(best, abs=1e-6)
    scores.sum().backward()
    assert features.grad is not None
    assert bool(features.grad.abs().sum() > 0)
    with pytest.raises(ShapeError, match="as wide as the text vectors"):
        found.scores(torch.zeros(3, 4))


def test_published_sentences() -> None:
    assert len(set(FC_CLIP_TEMPLATES)) == len(FC_CLIP_TEMPLATES) == 14
    assert len(set(VILD_TEMPLATES)) == len(VILD_TEMPLATES) == 63
    assert "This is a photo of a medium {}." in FC_CLIP_TEMPLATES
    assert "There is a {} in the scene" in FC_CLIP_TEMPLATES  # without a full stop, and with one after a size
    assert "There is a small {} in the scene." in FC_CLIP_TEMPLATES
    sentences = PROMPTS["f-vit"].sentences("Aerosol_can/Spray.")
    assert sentences[:3] == [
        "There is an aerosol can or spray in the scene.",
        "There is the aerosol can or spray in the scene.",
        "This is a photo of an aerosol can or spray in the scene.",
    ]
    assert "This is a photo of the hard to see aerosol can or spray." in sentences
    assert "itap of my aerosol can or spray." in sentences  # no This is: it begins with neither a nor the
    assert "This is an embroidered aerosol can or spray." in sentences
    assert PROMPTS["f-vit"].sentences("dog")[0] == "There is a dog in the scene."
    assert PROMPTS["fc-clip"].sentences("Dog_house")[0] == "a photo of a Dog_house."  # FC-CLIP leaves names alone
    # the bare test for the letter a hits a name too
    assert Prompts(templates=("{}",), this_is=True).sentences("angry bird") == ["This is angry bird"]


def test_seen_classes_share_a_synonym_string_with_training() -> None:
    vectors = F.normalize(torch.ones(5, 3), dim=-1)
    found = Vocabulary(
        ("person", "tv", "rug"), ("person", "child", "tv", "rug", "mat"), vectors, torch.tensor([0, 0, 1, 2, 2])
    )
    assert found.seen(["child", "girl", "television"]).tolist() == [True, False, False]
    assert found.seen(["Rug"]).tolist() == [False, False, False]  # strings as they are
    training = Vocabulary(("carpet",), ("carpet", "mat"), vectors[:2], torch.tensor([0, 0]))
    assert found.seen(training).tolist() == [False, False, True]
    assert split_synonyms("person,child, girl") == ("person", "child", "girl")


def test_it_is_encoded_once_for_a_tower_and_its_texts(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    tokenize = clip.text.tokenize

    def counted(given: Sequence[str]) -> Tensor:
        texts.extend(given)
        return tokenize(given)

    monkeypatch.setattr(clip.text, "tokenize", counted)
    first = encode_vocabulary(clip, ["apple", "dog"], prompts="f-vit", folder=tmp_path)
    assert len(texts) == 2 * 63
    again = encode_vocabulary(clip, ["apple", "dog"], prompts="f-vit", folder=tmp_path)
    assert len(texts) == 2 * 63  # nothing new: from the folder
    assert torch.equal(again.vectors, first.vectors)
    encode_vocabulary(clip, ["apple", "cow"], prompts="f-vit", folder=tmp_path)
    assert len(texts) == 3 * 63  # "an apple" is kept by itself, "a cow" is new
    with torch.no_grad():
        next(clip.text.parameters()).add_(0.1)
    other = encode_vocabulary(clip, ["apple", "dog"], prompts="f-vit", folder=tmp_path)
    assert not torch.allclose(other.vectors, first.vectors)  # another encoder


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "got none"),
        ("cat", "one string 'cat'"),
        (["cat", " "], "class 2 has no name"),
        ([["cat", ""]], "empty synonym"),
        ([[]], "class 1 has no name"),
        (["cat", "dog", "cat"], "'cat' is there twice"),
    ],
)
def test_wrong_names_are_refused(clip: Clip, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode_vocabulary(clip, names)


def test_wrong_prompts_and_tensors_are_refused(clip: Clip) -> None:
    with pytest.raises(ConfigError, match="did you mean fc-clip"):
        encode_vocabulary(clip, ["cat"], prompts="fcclip")
    with pytest.raises(ConfigError, match="has no {}"):
        Prompts(templates=("a photo",))
    with pytest.raises(ShapeError, match="each with at least one synonym"):
        Vocabulary(("a", "b"), ("A",), torch.ones(1, 2), torch.tensor([0]))
    with pytest.raises(ShapeError, match="one row for each"):
        Vocabulary(("a",), ("A", "B"), torch.ones(1, 2), torch.tensor([0]))


@pytest.mark.parametrize(
    ("name", "classes", "strings", "seen"),
    [
        ("coco", 133, 254, 133),
        ("mapillary", 65, 152, 26),
        ("pascal-context-59", 59, 160, 51),
        ("pascal-voc-21", 21, 151, 21),
        ("ade20k-150", 150, 402, 64),
        ("ade20k-847", 847, 1341, 101),
        ("pascal-context-459", 459, 559, 85),
    ],
)
def test_of_the_published_lists_as_many_classes_count_as_seen_as_counted_by_hand(
    name: str, classes: int, strings: int, seen: int
) -> None:
    lists = published_lists()
    training, found = lists["coco"], lists[name]
    assert len(found) == classes
    # a string twice in one class counts once, one in two classes (ADE-847's "pot") counts for each
    assert len(set(zip(found.owner.tolist(), found.synonyms, strict=True))) == strings
    assert int(found.seen(training).sum()) == seen


def test_training_on_the_published_list_asks_as_many_prompts_as_it_did() -> None:
    assert len(published_lists()["coco"].synonyms) * len(FC_CLIP_TEMPLATES) == 3556


def published_lists() -> dict[str, Vocabulary]:
    """FC-CLIP's class names by data set, without vectors."""
    lines: dict[str, list[tuple[str, ...]]] = {}
    current: list[tuple[str, ...]] = []
    for line in (Path(__file__).parent / "fc_clip_names.txt").read_text().splitlines():
        if line.startswith("["):
            current = lines.setdefault(line.strip("[]"), [])
        elif not line.startswith("#"):
            current.append(split_synonyms(line))
    return {
        name: Vocabulary(
            names=tuple(one[0] for one in classes),
            synonyms=tuple(synonym for one in classes for synonym in one),
            vectors=torch.zeros(sum(map(len, classes)), 2),
            owner=torch.tensor([place for place, one in enumerate(classes) for _ in one]),
        )
        for name, classes in lines.items()
    }
