import pytest
import torch

from eyesmith.models.cost import encoder_cost
from eyesmith.models.foreign.timm import TimmConfig
from eyesmith.recipes import BASELINES, LENGTHS, baseline_model, recipe

# figure 2: image parameters in M (rounded there, of one patch size for all), image and text GMACs
FIGURE = {
    "ViT-S-32": (21.81, 1.12, 384),
    "ViT-S-16": (21.81, 4.25, 384),
    "ConvNeXt-T": (28.61, 4.47, 384),
    "CoAtNet-0": (24.56, 4.43, 384),
    "ViT-B-32": (86.19, 4.37, 512),
    "ViT-B-16": (86.19, 16.87, 512),
    "ConvNeXt-B": (88.09, 15.38, 512),
    "CoAtNet-2": (74.18, 15.94, 512),
    "ViT-L-32": (303.97, 15.27, 768),
    "ViT-L-16": (303.97, 59.70, 768),
    "ViT-L-14": (303.97, 77.83, 768),
    "ConvNeXt-XL": (350.25, 79.65, 768),
    "CoAtNet-4": (275.07, 60.81, 768),
}


@pytest.mark.parametrize("name", [name for name in FIGURE if "-L" not in name and "XL" not in name and "4" not in name])
def test_a_baseline_costs_what_the_figure_says(name: str) -> None:
    check_cost(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FIGURE if "-L" in name or "XL" in name or "4" in name])
def test_a_large_baseline_costs_what_the_figure_says(name: str) -> None:
    check_cost(name)


def check_cost(name: str) -> None:
    params, gmacs, width = FIGURE[name]
    clip = baseline_model(name)
    cost = encoder_cost(clip.image).tower
    assert cost.params / 1e6 == pytest.approx(params, rel=0.04)
    assert cost.macs_paper / 1e9 == pytest.approx(gmacs, rel=0.01)
    assert clip.text == recipe({384: "vitamin-s-128m", 512: "vitamin-b-128m", 768: "vitamin-l-128m"}[width]).model.text


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_runs_by_vitamins_short_settings(name: str) -> None:
    for length, samples in LENGTHS.items():
        run = recipe(f"{name.lower()}-{length}")
        ours = recipe(f"vitamin-s-{length}")
        assert (run.optim, run.data, run.loss, run.epochs) == (ours.optim, ours.data, ours.loss, 1)
        assert run.data.epoch_samples == samples
        is_large = name in ("ViT-L-16", "ViT-L-14", "ConvNeXt-XL") or (name == "ViT-L-32" and length == "1280m")
        assert run.batch_size == (16384 if is_large else 8192)


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_what_its_released_model_file_names(name: str) -> None:
    """timm's ConvNeXt and CoAtNet with drop-path 0.1; open_clip's own ViT, which knows no stochastic depth."""
    image = baseline_model(name).image
    assert isinstance(image, TimmConfig)
    if not name.startswith("ViT"):
        assert (image.drop_path_prob, image.initial) == (0.1, "timm")
        return
    assert (image.drop_path_prob, image.initial, image.patch_px) == (0.0, "open_clip", int(name.rpartition("-")[2]))
    width, depth = {"S": (384, 12), "B": (768, 12), "L": (1024, 24)}[name[4]]
    cells, embed_dim = (224 // image.patch_px) ** 2, FIGURE[name][2]
    block = 12 * width**2 + 13 * width
    tables = (cells + 2) * width + 3 * image.patch_px**2 * width  # class token, positions, patches without bias
    with torch.device("meta"):
        params = sum(parameter.numel() for parameter in image.build().parameters())
    assert params == depth * block + tables + 4 * width + width * embed_dim  # norms before and after
