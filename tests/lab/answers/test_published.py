import pytest

from eyesmith.errors import ConfigError
from eyesmith.lab.answers.published import SAMPLES, published_model, published_models


def test_the_table_is_whole() -> None:
    models = published_models()
    assert len(models) == 16
    assert {model.family for model in models.values()} == {"ViT", "ConvNeXt", "CoAtNet", "ViTamin"}
    assert [sum(model.size == size for model in models.values()) for size in "SBL"] == [5, 5, 6]
    for model in models.values():
        assert 0.3 < model.imagenet[0] < model.imagenet[1] < model.imagenet[2] < 0.75  # more samples are better
        assert model.average[0] < model.average[1] < model.average[2]
    assert SAMPLES == (128_000_000, 512_000_000, 1_280_000_000)


def test_numbers_as_printed() -> None:
    small, large = published_model("ViTamin-S"), published_model("ViTamin-L")
    assert small.imagenet == (0.433, 0.573, 0.622)
    assert small.average == (0.408, 0.496, 0.532)
    assert (small.image_params_m, small.text_params_m, small.image_gmacs, small.text_gmacs) == (22.03, 40.44, 5.5, 1.64)
    assert (large.score(2), large.score(2, "average")) == (0.739, 0.62)
    assert published_model("ConvNeXt-XL").imagenet == (0.428, 0.63, 0.702)
    with pytest.raises(ConfigError, match="no model 'ViTamin-M'"):
        published_model("ViTamin-M")
