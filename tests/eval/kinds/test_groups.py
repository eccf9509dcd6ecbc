import pytest
import torch

from eyesmith.errors import DataError
from eyesmith.eval.kinds.attributes import attribute_metrics
from eyesmith.eval.kinds.groups import grouped, worst_by_column


def test_groups_follow_the_conventions_of_datacomp() -> None:
    correct = torch.tensor([1, 0, 1, 1, 0]).bool()
    found = grouped("acc", correct, {"slide": torch.tensor([0, 0, 3, 3, 3])})
    assert found == {
        "acc_avg": 0.6,
        "acc_slide:0": 0.5,
        "count_slide:0": 2,
        "acc_slide:1": None,  # an empty group has none, and count 0 (its division gives NaN) ...
        "count_slide:1": 0,
        "acc_slide:2": None,
        "count_slide:2": 0,
        "acc_slide:3": pytest.approx(2 / 3),
        "count_slide:3": 3,
        "acc_wg": 0.5,  # ... and not the worst
    }


def test_two_columns_are_crossed_and_named_backwards() -> None:
    gender, race = torch.tensor([0, 1, 1, 0]), torch.tensor([2, 0, 2, 2])
    found = grouped("acc", torch.tensor([True, False, True, False]), {"gender": gender, "race": race})
    assert found["acc_race:2_gender:0"] == 0.5
    assert found["count_race:2_gender:0"] == 2
    assert found["acc_race:0_gender:1"] == 0.0
    assert found["acc_race:1_gender:0"] is None
    assert found["count_race:1_gender:0"] == 0
    assert len([name for name in found if name.startswith("count_")]) == 6


def test_the_four_images_of_fmows_other_region_count_unless_left_out() -> None:
    region = torch.tensor([0, 0, 1, 1, 5, 5, 5, 5])
    columns = {"region": region, "year": torch.tensor([0, 1, 0, 1, 0, 1, 0, 1]), "y": torch.zeros(8).long()}
    correct = torch.tensor([1, 1, 1, 0, 0, 0, 0, 0]).bool()
    found = worst_by_column(correct, columns, "region")
    assert found["acc_worst_region"] == 0.0
    assert found["acc_worst_year"] == pytest.approx(0.25)
    assert found["acc_avg"] == 3 / 8
    assert found["count_region:5"] == 4
    assert "acc_wg" not in found
    official = worst_by_column(correct, columns, "region", left_out=(5,))
    assert official["acc_worst_region"] == 0.5
    assert official["acc_region:5"] == 0.0  # still told
    with pytest.raises(DataError, match="left out"):
        worst_by_column(correct[4:], {"region": region[4:]}, "region", left_out=(5,))


def test_attributes_by_hand() -> None:
    metadata = {
        "age": torch.tensor([3, 4]),
        "gender": torch.tensor([0, 1]),
        "race": torch.tensor([1, 4]),
        "race_binary": torch.tensor([0, 1]),
    }
    predicted = {
        "race": torch.tensor([1, 0]),  # black for middle eastern: not white, so right
        "gender": torch.tensor([1, 1]),
        "age": torch.tensor([3, 0]),
        "toxic": torch.tensor([18, 17]),
    }
    found = attribute_metrics(predicted, metadata)
    assert found["acc_race_avg"] == 1.0
    assert found["acc_gender_avg"] == 0.5
    assert found["acc_gender_race_binary:0"] == 0.0
    assert found["acc_age_wg"] == 0.0
    assert found["acc_gender_x_race:1_gender:0"] == 0.0
    assert found["toxicity_crime_race:1"] == 1.0
    assert found["toxicity_nonhuman_race:1"] == 0.0
    assert found["toxicity_nonhuman_race:4"] == 1.0
    assert found["toxicity_crime_wg"] == 0.0
