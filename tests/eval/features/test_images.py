from typing import Any

import pytest
import torch

from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.features.images import encode_source
from eyesmith.eval.features.texts import TextFeatures, fill_prompt


def broken_source(make_source: Any, make_png: Any, good: int, bad: int) -> Any:
    image = make_png((250, 10, 10))
    samples = [(f"good{i}", image, (), 0) for i in range(good)] + [(f"bad{i}", image[:40], (), 0) for i in range(bad)]
    return make_source(samples[::-1], classes=["red"])


def test_features_stand_with_their_keys_and_labels(make_clip: Any, colour_source: Any, colours: Any) -> None:
    clip = make_clip()
    found = encode_source(clip, colour_source, batch_size=5)
    assert clip.encoded_batches == [5, 5, 2]
    assert found.keys == tuple(colour_source.keys)
    assert found.indices == tuple(range(12))
    assert found.labels is not None
    assert found.labels.tolist() == colour_source.labels
    expected = torch.nn.functional.normalize(torch.tensor([colours["pink"]]).float(), dim=-1)[0]
    torch.testing.assert_close(found.features[found.keys.index("pink-1.0")], expected)


def test_broken_images_are_listed_and_the_rest_keeps_its_places(
    make_clip: Any, make_source: Any, make_png: Any
) -> None:
    found = encode_source(make_clip(), broken_source(make_source, make_png, 5, 2), batch_size=3, max_broken_frac=0.4)
    assert found.keys == ("good4", "good3", "good2", "good1", "good0")
    assert found.indices == (2, 3, 4, 5, 6)
    assert [one.key for one in found.broken] == ["bad1", "bad0"]
    assert len(found.features) == 5


def test_too_many_broken_images_stop_the_work_and_name_the_first(
    make_clip: Any, make_source: Any, make_png: Any
) -> None:
    source = broken_source(make_source, make_png, 50, 2)
    with pytest.raises(DataError, match=r"2 of the first 52 .* 1 of 52 are allowed; first: bad1"):
        encode_source(make_clip(), source, max_broken_frac=0.03)
    assert len(encode_source(make_clip(), source, max_broken_frac=0.04).broken) == 2
    assert len(encode_source(make_clip(), broken_source(make_source, make_png, 5, 1)).broken) == 1  # one is no rate
    with pytest.raises(DataError, match="not one of its 1 images"):
        encode_source(make_clip(), broken_source(make_source, make_png, 0, 1))
    with pytest.raises(ConfigError, match="batch_size"):
        encode_source(make_clip(), source, batch_size=0)


def test_each_distinct_text_is_encoded_once(make_clip: Any) -> None:
    clip = make_clip()
    texts = TextFeatures(clip)
    rows = texts(["red", "blue", "red"])
    assert torch.equal(rows[0], rows[2])
    assert torch.equal(texts(["blue", "a cyan cat"])[0], rows[1])
    assert clip.encoded_texts == ["red", "blue", "a cyan cat"]  # short ones first
    for text, row in zip(["grey", "red"], texts(["grey", "red"]), strict=True):
        assert torch.equal(row, clip.text_row(text))


def test_class_weights_equal_a_slow_loop(make_clip: Any) -> None:
    clip, names, prompts = make_clip(), ["red", "grey"], ["a {}.", "the bright {} wall", "{}"]
    found = TextFeatures(clip).class_weights(names, prompts)
    for name, row in zip(names, found, strict=True):
        total = torch.zeros(3)
        for prompt in prompts:
            vector = clip.text_row(prompt.format(name))
            total += vector / vector.norm()
        mean = total / len(prompts)
        torch.testing.assert_close(row, mean / mean.norm())


def test_text_features_hold_only_while_the_tower_is_frozen_and_untouched(make_clip: Any) -> None:
    clip = make_clip()
    texts = TextFeatures(clip)
    assert texts.is_current(clip)
    assert not texts.is_current(make_clip())
    clip.text.weight.data.mul_(1.0)
    with torch.no_grad():
        clip.text.weight.add_(1)
    assert not texts.is_current(clip)
    clip.text.requires_grad_(True)
    assert not TextFeatures(clip).is_current(clip)


def test_prompts(make_clip: Any) -> None:
    assert fill_prompt("a {} on {}", "cat") == "a cat on cat"
    assert fill_prompt("a photo of a {c}.", "{}") == "a photo of a {}."
    with pytest.raises(ConfigError, match="a place for the class name"):
        fill_prompt("a photo", "cat")
    with pytest.raises(DataError, match="0 prompts"):
        TextFeatures(make_clip()).class_weights(["cat"], [])
