"""Multiply-adds beside the published towers' (counted with attention products), and the README's table beside both."""

from pathlib import Path

import pytest

import eyesmith.models.vitamin
from eyesmith.models.cost import model_cost
from eyesmith.models.registry import CLIP, config
from eyesmith.models.vitamin.config import ViTaminConfig

# GMACs of the image and the text tower; torch's counter on open_clip's and timm's own models
REFERENCE = {
    "ViTamin-S": (5.89, 1.69),
    "ViTamin-S-LTT": (5.89, 6.65),
    "ViTamin-B": (22.62, 2.98),
    "ViTamin-L": (74.92, 6.65),
    "ViTamin-L-256": (98.83, 6.65),
    "ViTamin-L2-336": (175.44, 23.55),
    "ViTamin-L-384": (234.08, 6.65),
    "ViTamin-XL-256": (129.94, 33.48),
    "ViTamin-XL-384": (305.96, 33.48),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_multiply_adds_are_the_references(name: str) -> None:
    cost = model_cost(config(name))
    assert cost.text is not None
    image, text = REFERENCE[name]
    assert cost.image.macs / 1e9 == pytest.approx(image, abs=0.006)
    assert cost.text.macs / 1e9 == pytest.approx(text, abs=0.006)


def test_the_readme_table_is_what_the_configs_give() -> None:
    page = Path(eyesmith.models.vitamin.__file__).with_name("README.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith(("| ViTamin-", "| ViT-"))]
    expected = []
    for name, pair in CLIP.items():
        if not isinstance(image := pair.image, ViTaminConfig):
            continue
        cost = model_cost(pair)
        assert cost.text is not None
        cells = (
            name,
            image.image_size[0],
            " / ".join(map(str, image.widths)),
            " / ".join(map(str, image.depths)),
            f"{image.num_heads} x {image.widths[2] // image.num_heads}",
            image.embed_dim,
            f"{cost.image.params:,}",
            f"{cost.text.params:,}",
            f"{cost.image.macs / 1e9:.2f}",
            f"{cost.text.macs / 1e9:.2f}",
        )
        expected.append(f"| {' | '.join(map(str, cells))} |")
    assert rows == expected
