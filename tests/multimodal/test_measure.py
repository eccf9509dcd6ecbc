"""The control of a chat model: questions about other pictures."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from eyesmith.errors import DataError
from eyesmith.eval.statistics.metrics import wilson_interval
from eyesmith.images import PreprocessConfig
from eyesmith.multimodal.eye import EyeConfig
from eyesmith.multimodal.measure import ChatMeasure, other_pictures
from eyesmith.multimodal.scoring import Scored, rows_of
from eyesmith.train.precision import choose_precision


def test_no_question_about_another_picture_is_about_its_own() -> None:
    alone = torch.tensor([4, 2, 7])
    assert torch.equal(other_pictures(alone), alone.roll(1))
    several = torch.tensor([0, 0, 0, 1, 1, 5, 0])
    assert (other_pictures(several) != several).all()
    with pytest.raises(DataError, match="all questions are about one picture"):
        other_pictures(torch.tensor([3, 3]))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
def test_lines_say_what_the_eye_computed_in(precision: Any) -> None:
    model = nn.Module()
    model.image, model.projector = nn.Linear(1, 1), nn.Linear(1, 1)
    model.eye = cast(Any, SimpleNamespace(config=EyeConfig()))
    measure = ChatMeasure(
        name="m",
        language="tiny",
        encoder=cast(Any, SimpleNamespace(template=SimpleNamespace(name="plain"))),
        preprocess=PreprocessConfig(image_size=(32, 32)),
        precision=precision,
        num_workers=0,
        max_skipped_frac=0.0,
    )
    said = measure._facts(cast(Any, model))["precision"]
    assert said == choose_precision(precision, torch.device("cpu"))
    assert said in ("fp32", "bf16")


def test_all_right_is_bounded_by_the_number_of_pictures() -> None:
    scored = [
        Scored(picture=place // 2, kind="ab"[place % 2], question="?", answer="yes", said="yes", is_right=True)
        for place in range(40)
    ]
    rows = rows_of(scored, model="m")
    assert [row.value for row in rows] == [1, 1, 1]
    for row in rows:  # twenty pictures, however many questions there are about each
        assert (row.low, row.high) == pytest.approx(wilson_interval(20, 20))
