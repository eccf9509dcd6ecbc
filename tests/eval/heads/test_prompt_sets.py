import pytest
import torch

from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.features.images import ImageFeatures
from eyesmith.eval.heads import compare_prompt_sets
from eyesmith.eval.statistics import mcnemar_exact


class Texts:
    """Class weights for each prompt: "good {}" knows the classes, "bad {}" takes each for the next."""

    def class_weights(self, names, prompts):
        weights = torch.eye(3)
        return weights if prompts == ["good {}"] else weights.roll(1, 0)


def images(labels):
    generator = torch.Generator().manual_seed(0)
    rows = torch.eye(3)[torch.arange(200) % 3] + 0.4 * torch.randn(200, 3, generator=generator)
    return ImageFeatures(features=rows, indices=tuple(range(200)), keys=("k",) * 200, labels=labels, broken=())


def test_each_set_is_compared_with_the_first_on_the_same_images():
    found = compare_prompt_sets(
        images(torch.arange(200) % 3), Texts(), "abc", {"plain": ["bad {}"], "more": ["good {}"], "same": ["bad {}"]}
    )
    assert [one.name for one in found] == ["plain", "more", "same"]
    assert found[0].against_first is None
    assert found[1].accuracy.value > 0.8 > found[0].accuracy.value
    paired = found[1].against_first
    assert paired.difference.value == pytest.approx(found[1].accuracy.value - found[0].accuracy.value)
    assert paired.test == "mcnemar"
    assert found[1].p_holm == pytest.approx(2 * paired.p)
    assert found[2].p_holm == 1
    assert mcnemar_exact([0.0], [0.0]).p == 1


def test_what_cannot_be_compared_is_said():
    with pytest.raises(ConfigError, match="at least two"):
        compare_prompt_sets(images(torch.arange(200) % 3), Texts(), "abc", {"plain": ["bad {}"]})
    with pytest.raises(DataError, match="labelled"):
        compare_prompt_sets(images(None), Texts(), "abc", {"a": ["bad {}"], "b": ["good {}"]})
