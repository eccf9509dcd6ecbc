import pytest
import torch

from eyesmith.errors import ConfigError, ShapeError
from eyesmith.losses import Same, same_from


def test_rows_agree_by_text_or_label() -> None:
    same = same_from(["a cat", "a dog", "a cat", "a fox"], torch.tensor([0, 1, 2, 1]))
    assert same.matrix().tolist() == [
        [True, False, True, False],
        [False, True, False, True],
        [True, False, True, False],
        [False, True, False, True],
    ]
    assert len(same) == 4


def test_rows_without_a_label_agree_by_text() -> None:
    texts, labels = ["a cat", "a dog", "a dog", "a fox"], torch.tensor([0, -1, -1, 0])
    same = same_from(texts, labels)
    assert same.matrix().tolist() == [
        [True, False, False, True],
        [False, True, True, False],
        [False, True, True, False],
        [True, False, False, True],
    ]
    # of two processes the second has no label at all
    halves = [same_from(["a", "b"], torch.tensor([3, -1])), same_from(["c", "a"])]
    whole = same_from(["a", "b", "c", "a"], torch.tensor([3, -1, -1, -1]))
    assert torch.equal(torch.cat([half.image_codes for half in halves]), whole.image_codes)


def test_without_labels_only_texts_count() -> None:
    same = same_from(["x", "y", "x"])
    assert same.matrix().tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    assert len(same.distinct()) == 1
    assert len(same.to("cpu").distinct()) == 1


def test_rows_of_one_image_agree() -> None:
    same = same_from(["x", "y", "z"], images=["1.jpg", "2.jpg", "1.jpg"])
    assert same.matrix().tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    moved = same.to("cpu")
    assert torch.equal(moved.image_codes, same.image_codes)
    assert len(moved.distinct()) == 2


def test_codes_are_equal_in_every_process() -> None:
    codes = same_from(["a photo of a cat", "caf\u00e9 \U0001f600"]).text_codes
    assert codes.tolist() == [2875975664571500342, 3086022889631384982]  # BLAKE2b of the UTF-8, 8 bytes, halved


def test_a_lone_surrogate_in_a_caption_is_hashed() -> None:
    assert len(same_from(["\ud800", "a"])) == 2


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match="labels or images"):
        same_from(["a"], torch.tensor([1]), ["1.jpg"])
    with pytest.raises(ShapeError, match="image_codes: expected int64"):
        Same(torch.zeros(3), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ShapeError, match="image_codes"):
        same_from(["a", "b"], torch.tensor([1]))
    with pytest.raises(ShapeError, match="text_codes"):
        Same(torch.zeros(3, dtype=torch.int64), torch.zeros(3, 1, dtype=torch.int64))
