import dataclasses
from typing import Any

import pytest
import torch

from eyesmith.errors import DataError
from eyesmith.eval.features.images import encode_source
from eyesmith.eval.features.texts import TextFeatures
from eyesmith.eval.kinds import kind_of
from eyesmith.eval.sets.made import zero_shot
from eyesmith.eval.statistics.metrics import wilson_interval


def slow_ranks(clip: Any, source: Any, names: list[str], prompt: str) -> list[int]:
    ranks = []
    for index in range(len(source)):
        name = source.classes[source.labels[index]]
        image = clip.encode_image(torch.tensor(_pixels(source, index))[None])[0]
        scores = [float(image @ clip.text_row(prompt.format(other))) for other in names]
        order = sorted(range(len(names)), key=lambda k: (-scores[k], k))
        ranks.append(order.index(names.index(name)))
    return ranks


def _pixels(source: Any, index: int) -> Any:
    import io

    import numpy as np
    from PIL import Image

    return np.array(Image.open(io.BytesIO(source.image_bytes(index))).resize((4, 4))).transpose(2, 0, 1)


def test_rows_equal_a_slow_loop(make_clip: Any, colour_source: Any) -> None:
    clip = make_clip(wrong={"pink": "red", "blue": "cyan"})
    rows = zero_shot(colour_source, split="val").rows(clip, model_name="mine")
    ranks = slow_ranks(clip, colour_source, list(colour_source.classes), clip.prompts[0])
    assert 0 < sum(rank < 1 for rank in ranks) < 12  # the case says something
    assert [(row.metric, row.value) for row in rows] == [
        ("acc1", sum(rank < 1 for rank in ranks) / 12),
        ("acc5", sum(rank < 5 for rank in ranks) / 12),
    ]
    first = rows[0]
    assert (first.model, first.task, first.split, first.n, first.chance) == ("mine", "zero_shot", "val", 12, 1 / 6)
    assert (first.low, first.high) == wilson_interval(round(first.value * 12), 12)


def test_run_yields_the_same_numbers_and_keeps_frozen_text_features(make_clip: Any, colour_source: Any) -> None:
    clip, task = make_clip(), zero_shot(colour_source, split="val")
    first = list(task.run(clip))
    encoded = len(clip.encoded_texts)
    assert first == [
        (f"val/{row.metric}", row.value) for row in task.rows(clip, model_name="x", texts=TextFeatures(clip))
    ]
    clip.encoded_texts.clear()
    assert list(task.run(clip)) == first
    assert (encoded, clip.encoded_texts) == (6, [])
    clip.text.requires_grad_(True)
    list(task.run(clip))
    assert len(clip.encoded_texts) == 6


def test_fewer_candidates_are_an_easier_task_with_another_chance(
    make_clip: Any, make_source: Any, make_png: Any, colours: Any
) -> None:
    samples = [(name, make_png(colours[name]), (), list(colours).index(name)) for name in ("red", "blue")]
    source = make_source(samples, classes=list(colours))
    rows = zero_shot(source, split="val", names=["blue", "red"]).rows(make_clip(), model_name="m")
    assert [(row.metric, row.value, row.chance) for row in rows] == [("acc1", 1.0, 0.5)]  # two candidates have no top 5


def test_collapsed_features_score_chance_not_one(make_clip: Any, colour_source: Any) -> None:
    clip = make_clip(wrong=dict.fromkeys(colour_source.classes, "grey"))
    clip.prompts = ("{}",)
    names = ["red00", "gree0"]  # equal lengths: equal rows
    assert torch.equal(*TextFeatures(clip).class_weights(names, ["{}"]))
    clip.text_row = lambda text: torch.ones(3)
    rows = zero_shot(colour_source, split="val").rows(clip, model_name="m")
    assert rows[0].value == pytest.approx(1 / 6)


def test_equal_class_names_tie_to_the_first(make_clip: Any, make_source: Any, make_png: Any, colours: Any) -> None:
    image = make_png(colours["red"])
    source = make_source([("a", image, (), 0), ("b", image, (), 1)], classes=["red", "red"])
    assert zero_shot(source, split="v").rows(make_clip(), model_name="m")[0].value == 0.5
    with pytest.raises(DataError, match="'red' is listed twice"):
        zero_shot(source, split="v", names=["red", "red", "x"])


def test_what_cannot_be_asked_is_refused(make_clip: Any, make_source: Any, colour_source: Any, make_png: Any) -> None:
    with pytest.raises(DataError, match="no labels"):
        zero_shot(make_source([("a", make_png((1, 2, 3)), (), None)]), split="v")
    with pytest.raises(DataError, match="'violet' is no class"):
        zero_shot(colour_source, split="v", names=["red", "violet"])
    with pytest.raises(DataError, match=r"image green-1\.0 is of class 'green'.*split 'v'"):
        zero_shot(colour_source, split="v", names=["red"])


def test_records_hold_all_that_the_metrics_are_made_of(make_clip: Any, colour_source: Any) -> None:
    clip = make_clip(wrong={"blue": "pink", "pink": "blue"})
    task = zero_shot(colour_source, split="val")
    records = task.answered(clip, encode_source(clip, colour_source), TextFeatures(clip)).records
    assert records["keys"].tolist() == colour_source.keys
    assert records["targets"].tolist() == colour_source.labels
    assert records["ranks"].tolist() == slow_ranks(clip, colour_source, list(colour_source.classes), clip.prompts[0])
    assert int(records["num_classes"]) == 6
    blue = colour_source.keys.index("blue-1.0")
    assert colour_source.classes[records["top"][blue, 0]] == "pink"
    assert ((records["top"][:, 0] == records["targets"]) == (records["ranks"] == 0)).all()
    stored = kind_of(task.task).metrics(task.task, records)
    assert stored["acc1"] == task.rows(clip)[0].value


def test_all_right_is_no_certainty_in_any_metric(make_clip: Any, colour_source: Any) -> None:
    task = zero_shot(colour_source, split="val")
    clip = make_clip()
    records = task.answered(clip, encode_source(clip, colour_source), TextFeatures(clip)).records
    spans = kind_of(task.task).spans(dataclasses.replace(task.task, lines=()), records)
    number = len(records["keys"])
    assert kind_of(task.task).metrics(task.task, records)["mean_per_class_recall"] == 1
    # classes of equal size: as many answers as images
    assert spans["mean_per_class_recall"][:2] == pytest.approx(wilson_interval(number, number))
