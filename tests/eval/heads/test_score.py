import math

import pytest
import torch

from eyesmith import create
from eyesmith.errors import ConfigError
from eyesmith.eval.heads import Link, link_of, score

COSINES = torch.tensor([[0.3, 0.1, -0.2]])


def test_a_softmax_is_shared_between_texts_and_a_sigmoid_is_not():
    soft, sigmoid = Link(scale=10.0), Link(kind="sigmoid", scale=10.0, bias=-2.0)
    weights = [math.exp(10 * value) for value in (0.3, 0.1, -0.2)]
    torch.testing.assert_close(soft.probabilities(COSINES)[0], torch.tensor([w / sum(weights) for w in weights]))
    expected = [1 / (1 + math.exp(-(10 * value - 2))) for value in (0.3, 0.1, -0.2)]
    torch.testing.assert_close(sigmoid.probabilities(COSINES)[0], torch.tensor(expected))
    torch.testing.assert_close(sigmoid.probabilities(COSINES[:, :1])[0, 0].item(), expected[0])


def test_the_link_of_a_model_is_what_it_learned():
    clip = create("ViTamin-Nano").eval()
    link = link_of(clip)
    assert (link.kind, link.bias) == ("softmax", 0)
    assert link.scale == pytest.approx(float(clip.logit_scale.detach().exp()))
    assert link_of(clip, bias=-10.0).kind == "sigmoid"
    with pytest.raises(ConfigError, match="needs the bias"):
        link_of(clip, kind="sigmoid")
    clip.logit_bias = torch.nn.Parameter(torch.tensor(-7.0))
    assert link_of(clip) == Link(kind="sigmoid", scale=link.scale, bias=-7.0)
    images = torch.zeros(2, 3, *clip.image.image_size, dtype=torch.uint8)
    found = score(clip, images, ["a cat", "a dog"], link=link)
    torch.testing.assert_close(found.sum(1), torch.ones(2))
    assert bool((score(clip, images, ["a cat"]) < 1).all())  # by its own link: one text alone is no certainty


def test_wrong_links_are_named():
    with pytest.raises(ConfigError, match="softmax or sigmoid"):
        Link(kind="tanh", scale=1.0)
    with pytest.raises(ConfigError, match="positive scale"):
        Link(scale=0.0)
    with pytest.raises(ConfigError, match="list of one or more"):
        score(create("ViTamin-Nano"), torch.zeros(1, 3, 1, 1), "a cat")
