"""ViTamin-S against numbers computed once with open_clip and timm in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.models import Clip, create
from eyesmith.models import config as model_config
from eyesmith.models.position import resize_position_table
from eyesmith.models.vitamin.weights import from_open_clip, to_open_clip

TEXTS = ["a photo of a cat", "A diagram."]


@pytest.fixture(scope="module")
def clip(recipe_weights: Callable[..., dict[str, Tensor]]) -> Clip:
    config = model_config("ViTamin-S")
    with torch.device("meta"):
        clip = config.build()
    weights = recipe_weights(to_open_clip(clip.state_dict(), config))
    assert len(weights) == 438
    clip.load_state_dict(from_open_clip(weights, config), assign=True)
    return clip.eval()


@pytest.fixture(scope="module")
def outputs(clip: Clip, recipe_values: Callable[..., Tensor]) -> dict[str, Tensor]:
    """What each named module gives, in the reference's names and layout, and the features of both towers."""
    image: Any = clip.image
    text: Any = clip.text
    modules: dict[str, nn.Module] = {
        "stem.conv1": image.stem.conv1,
        "stem.norm1": image.stem.norm,
        "stem": image.stem,
        "stages.0.0": image.stage1[0],
        "stages.0": image.stage1,
        "stages.1.0.shortcut": image.stage2[0].shortcut,
        "stages.1": image.stage2,
        "pool": image.transition,
        "blocks.0.attn": image.stage3[0].attention,
        "blocks.0.mlp": image.stage3[0].mlp,
        "blocks.0": image.stage3[0],
        "blocks.13": image.stage3[13],
        "fc_norm": image.norm,
        "visual": image,
        "text.transformer.resblocks.0": text.transformer.resblocks[0],
        "text": text,
    }
    found: dict[str, Tensor] = {}
    handles = []
    for name, module in modules.items():
        handles.append(module.register_forward_hook(lambda _m, _a, out, name=name: found.__setitem__(name, out)))
    pixels = recipe_values(777, (2, 3, 224, 224)) * 1.5
    with torch.no_grad():
        found["image_features_norm"], found["text_features_norm"], found["scale"] = clip(
            pixels, clip.text.tokenize(TEXTS)
        )
    for handle in handles:
        handle.remove()
    found["patch_embed"] = found["pool"].flatten(1, 2)
    found["pos_drop(after +pos)"] = found["patch_embed"] + image.position
    found["stem.norm1(incl GELU)"] = F.gelu(found.pop("stem.norm1"))
    return found


@pytest.mark.parametrize(
    "name",
    [
        "stem.conv1", "stem.norm1(incl GELU)", "stem", "stages.0.0", "stages.0", "stages.1.0.shortcut", "stages.1",
        "pool", "patch_embed", "pos_drop(after +pos)", "blocks.0.attn", "blocks.0.mlp", "blocks.0", "blocks.13",
        "fc_norm", "visual", "text",
    ],
)  # fmt: skip
def test_intermediates_equal_the_references(name: str, outputs: dict[str, Tensor], golden: dict[str, Any]) -> None:
    ours, theirs = outputs[name].detach(), golden["intermediates_float64"][name]
    if ours.ndim == 4:  # convolution stages run with channels last
        ours = ours.permute(0, 3, 1, 2)
    assert list(ours.shape) == theirs["shape"]
    flat = ours.flatten()
    torch.testing.assert_close(flat[:4].tolist(), theirs["first"], rtol=0, atol=1e-12)
    torch.testing.assert_close(flat[-2:].tolist(), theirs["last"], rtol=0, atol=1e-12)
    assert float(ours.mean()) == pytest.approx(theirs["mean"], abs=1e-12)
    assert float(ours.std(correction=0)) == pytest.approx(theirs["std"], abs=1e-12)


def test_text_block_equals_the_references_up_to_the_end_of_the_longest_text(
    outputs: dict[str, Tensor], golden: dict[str, Any]
) -> None:
    # our tower computes 7 positions of the 77, so only the first values can be compared
    theirs = golden["intermediates_float64"]["text.transformer.resblocks.0"]
    flat = outputs["text.transformer.resblocks.0"].flatten()
    torch.testing.assert_close(flat[:4].tolist(), theirs["first"], rtol=0, atol=1e-12)


def test_features_logits_and_loss_equal_the_references(outputs: dict[str, Tensor], golden: dict[str, Any]) -> None:
    image, text, scale = (outputs[name] for name in ("image_features_norm", "text_features_norm", "scale"))
    for ours, name in ((image, "image_features_norm"), (text, "text_features_norm")):
        torch.testing.assert_close(ours[:, :6].tolist(), golden[name], rtol=0, atol=1e-14)
    assert float(scale) == pytest.approx(golden["logit_scale_exp"], rel=1e-14)
    logits = scale * image @ text.mT
    torch.testing.assert_close(logits.tolist(), golden["logits"], rtol=0, atol=1e-12)
    labels = torch.arange(2)
    loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.mT, labels)) / 2
    assert float(loss) == pytest.approx(golden["clip_loss"], abs=1e-13)


def test_position_table_resize_equals_timms(golden: dict[str, Any], recipe_values: Callable[..., Tensor]) -> None:
    table = recipe_values(5, (1, 196, 8)).float()
    resized = resize_position_table(table, (14, 14), (24, 24))
    theirs = golden["position_14_to_24"]
    assert resized.shape == (1, 576, 8)
    torch.testing.assert_close(resized[0, 0, :4].tolist(), theirs["first"], rtol=0, atol=1e-7)
    torch.testing.assert_close(resized[0, 300, :4].tolist(), theirs["mid"], rtol=0, atol=1e-7)
    assert float(resized.mean()) == pytest.approx(theirs["mean"], abs=1e-7)
    assert float(resized.std(correction=0)) == pytest.approx(theirs["std"], abs=1e-5)


def test_single_precision_is_as_close_as_the_references_own(
    clip: Clip, outputs: dict[str, Tensor], recipe_values: Any
) -> None:
    single = create("ViTamin-S").eval()
    single.load_state_dict(clip.state_dict())
    with torch.no_grad():
        features = single.image_features((recipe_values(777, (2, 3, 224, 224)) * 1.5).float())
    difference = float((features - outputs["image_features_norm"]).abs().max())
    assert difference < 3e-7  # open_clip's own is 6.4e-8
