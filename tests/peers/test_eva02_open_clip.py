"""EVA-02-CLIP beside open_clip's, with the same weights."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from eyesmith.hub.convert import convert
from eyesmith.hub.load import load_clip
from eyesmith.models.eva02.weights import find_tower, pair_config, to_clip
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.registry import config

pytestmark = pytest.mark.skipif(find_spec("open_clip") is None, reason="needs open_clip")


@pytest.mark.parametrize("name", ["EVA02-B-16", "EVA02-L-14", "EVA02-L-14-336", "EVA02-E-14", "EVA01-g-14-plus"])
def test_names_and_shapes_are_open_clips(name: str) -> None:
    """Its own configs say the towers' sizes; the tensors are named from timm's and its text tower."""
    ensure_torchvision()
    import open_clip

    facts: Any = open_clip.get_model_config(name)
    ours = config(name)
    with torch.device("meta"):
        peer = open_clip.CustomTextCLIP(facts["embed_dim"], facts["vision_cfg"], facts["text_cfg"])
        state = to_clip(ours.build().state_dict(), ours)
    expected = {key: value.shape for key, value in peer.state_dict().items() if not key.endswith("attn_mask")}
    assert {key: value.shape for key, value in state.items()} == expected
    told = pair_config(find_tower(peer.state_dict()), peer.state_dict())
    assert told.name == name


@pytest.mark.slow
def test_a_folder_of_open_clips_b_16_gives_its_features_and_is_written_back(tmp_path: Path) -> None:
    ensure_torchvision()
    import open_clip

    torch.manual_seed(0)
    peer: Any = open_clip.create_model("EVA02-B-16").eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
        peer.logit_scale.fill_(3.0)
    folder = tmp_path / "theirs"
    folder.mkdir()
    facts: Any = open_clip.get_model_config("EVA02-B-16")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": facts, "preprocess_cfg": {"size": 224}}))
    save_file({key: value.contiguous() for key, value in peer.state_dict().items()}, folder / "model.safetensors")
    clip = load_clip(folder)
    assert clip.config.name == "EVA02-B-16"
    pixels, ids = torch.randn(2, 3, 224, 224), clip.text.tokenize(["a photo of a cat", "two dogs in the snow"])
    tokens = F.pad(ids, (0, 77 - ids.shape[1]))
    with torch.no_grad():
        for ours, theirs in (
            (clip.image_features(pixels), peer.encode_image(pixels, normalize=True)),
            (clip.text_features(ids), peer.encode_text(tokens, normalize=True)),
        ):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert float(clip.logit_scale.detach()) == 3.0
    done = convert(folder, tmp_path / "ours", to="hugging_face")
    assert done.ok, done.lines()
    assert {row.part for row in done.rows} == {"image", "text"}
