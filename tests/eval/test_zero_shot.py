from typing import Any

import pytest
import torch

from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.metrics import wilson_interval
from eyesmith.eval.predictions import Confusion, confusions, predictions
from eyesmith.eval.text_features import TextFeatures
from eyesmith.eval.zero_shot import ZeroShot


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
    rows = ZeroShot(colour_source, split="val").rows(clip, model_name="mine")
    ranks = slow_ranks(clip, colour_source, list(colour_source.classes), clip.prompts[0])
    assert 0 < sum(rank < 1 for rank in ranks) < 12  # the case says something
    assert [(row.metric, row.value) for row in rows] == [
        ("top1", sum(rank < 1 for rank in ranks) / 12),
        ("top5", sum(rank < 5 for rank in ranks) / 12),
    ]
    first = rows[0]
    assert (first.model, first.task, first.split, first.n, first.chance) == ("mine", "zero_shot", "val", 12, 1 / 6)
    assert (first.low, first.high) == wilson_interval(round(first.value * 12), 12)


def test_run_yields_the_same_numbers_and_keeps_frozen_text_features(make_clip: Any, colour_source: Any) -> None:
    clip, task = make_clip(), ZeroShot(colour_source, split="val")
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
    rows = ZeroShot(source, split="val", names=["blue", "red"]).rows(make_clip(), model_name="m")
    assert [(row.metric, row.value, row.chance) for row in rows] == [("top1", 1.0, 0.5)]  # two candidates have no top 5


def test_collapsed_features_score_chance_not_one(make_clip: Any, colour_source: Any) -> None:
    clip = make_clip(wrong=dict.fromkeys(colour_source.classes, "grey"))
    clip.prompts = ("{}",)
    names = ["red00", "gree0"]  # equal lengths: equal rows
    assert torch.equal(*TextFeatures(clip).class_weights(names, ["{}"]))
    clip.text_row = lambda text: torch.ones(3)
    rows = ZeroShot(colour_source, split="val").rows(clip, model_name="m")
    assert rows[0].value == pytest.approx(1 / 6)


def test_equal_class_names_tie_to_the_first(make_clip: Any, make_source: Any, make_png: Any, colours: Any) -> None:
    image = make_png(colours["red"])
    source = make_source([("a", image, (), 0), ("b", image, (), 1)], classes=["red", "red"])
    assert ZeroShot(source, split="v").rows(make_clip(), model_name="m")[0].value == 0.5
    with pytest.raises(DataError, match="'red' is listed twice"):
        ZeroShot(source, split="v", names=["red", "red", "x"])


def test_what_cannot_be_asked_is_refused(make_clip: Any, make_source: Any, colour_source: Any, make_png: Any) -> None:
    with pytest.raises(DataError, match="no labels"):
        ZeroShot(make_source([("a", make_png((1, 2, 3)), (), None)]), split="v")
    with pytest.raises(DataError, match="'violet' is no class"):
        ZeroShot(colour_source, split="v", names=["red", "violet"])
    with pytest.raises(ConfigError, match="top_k"):
        ZeroShot(colour_source, split="v", top_k=(0,))
    with pytest.raises(DataError, match=r"image green-1\.0 is of class 'green'.*split 'v'"):
        ZeroShot(colour_source, split="v", names=["red"]).rows(make_clip(), model_name="m")


def test_predictions_and_confusions(make_clip: Any, colour_source: Any) -> None:
    clip = make_clip(wrong={"blue": "pink", "pink": "blue"})
    task = ZeroShot(colour_source, split="val")
    found = predictions(clip, task, top_k=3)
    assert [one.key for one in found] == colour_source.keys
    blue = next(one for one in found if one.truth == "blue")
    assert blue.names[0] == "pink"
    assert blue.rank > 0
    assert len(blue.names) == len(blue.probabilities) == 3
    _, scores = task.scores(clip)
    expected = (scores[blue.index] * clip.logit_scale.exp()).softmax(0).sort(descending=True).values[:3]
    torch.testing.assert_close(torch.tensor(blue.probabilities), expected.detach())
    assert sum(one.rank == 0 for one in found) / 12 == task.rows(clip, model_name="m")[0].value
    worst = confusions(found)
    assert worst[:2] == [Confusion("blue", "pink", 2, 1.0), Confusion("pink", "blue", 2, 1.0)]
    assert all(one.truth != one.guess for one in worst)
