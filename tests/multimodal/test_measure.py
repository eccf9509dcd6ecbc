"""The control of a chat model: questions about other pictures."""

import pytest
import torch

from eyesmith.errors import DataError
from eyesmith.multimodal.measure import other_pictures


def test_no_question_about_another_picture_is_about_its_own() -> None:
    alone = torch.tensor([4, 2, 7])
    assert torch.equal(other_pictures(alone), alone.roll(1))
    several = torch.tensor([0, 0, 0, 1, 1, 5, 0])
    assert (other_pictures(several) != several).all()
    with pytest.raises(DataError, match="all questions are about one picture"):
        other_pictures(torch.tensor([3, 3]))
