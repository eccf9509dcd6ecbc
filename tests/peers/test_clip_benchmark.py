"""Metrics on miniature sets against clip-benchmark's own run on the same files and weights."""

import contextlib
import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eyesmith.data.make import make_miniatures
from eyesmith.eval import evaluate_suite
from eyesmith.eval.sets import TASKS
from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.foreign.timm import TimmConfig
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.text.weights import from_open_clip

pytestmark = [
    pytest.mark.skipif(
        find_spec("clip_benchmark") is None or find_spec("open_clip") is None, reason="needs clip-benchmark"
    ),
    pytest.mark.filterwarnings("ignore"),  # of torch, about their calls
]
SETS = (
    "cifar10",
    "vtab/clevr_closest_object_distance",
    "vtab/pcam",
    "vtab/caltech101",
    "food101",
    "wilds/fmow",
    "voc2007_multilabel",
    "retrieval/flickr_1k_test_image_text_retrieval",
    "retrieval/mscoco_2014_5k_test_image_text_retrieval",
)
SIZE_PX, DIM = 64, 32


@pytest.fixture(scope="module")
def theirs() -> Any:
    ensure_torchvision()
    import open_clip

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return open_clip.CustomTextCLIP(
            embed_dim=DIM,
            vision_cfg={
                "timm_model_name": "regnetx_002",
                "timm_pool": "",
                "timm_proj": "linear",
                "image_size": SIZE_PX,
            },
            text_cfg={"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
        ).eval()


@pytest.fixture(scope="module")
def ours(theirs: Any) -> Clip:
    clip = ClipConfig(
        name="small",
        image=TimmConfig(model_name="regnetx_002", embed_dim=DIM, image_size=(SIZE_PX, SIZE_PX)),
        text=ClipTextConfig(width=64, depth=2, heads=2, embed_dim=DIM),
        preprocess=PreprocessConfig(image_size=(SIZE_PX, SIZE_PX)),
    ).build()
    state = {name: value.clone() for name, value in theirs.state_dict().items()}
    trunk = {name.removeprefix("visual.trunk."): value for name, value in state.items() if "visual.trunk." in name}
    clip.load_state_dict(
        {f"image.backbone.{name}": value for name, value in trunk.items()}
        | {"image.head.weight": state["visual.head.proj.weight"], "logit_scale": state["logit_scale"]}
        | {f"text.{name}": value for name, value in from_open_clip(state).items()}
    )
    return clip.eval()


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    make_miniatures(root, SETS)
    return root


@pytest.mark.parametrize("key", SETS)
def test_metrics_equal(key: str, ours: Clip, theirs: Any, sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip
    from clip_benchmark.datasets.builder import build_wds_dataset
    from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval

    # numpy 2.4 no longer makes a number of their array with one element
    monkeypatch.setattr(zeroshot_classification, "float", lambda value: float(np.asarray(value).item()), raising=False)
    (result,) = evaluate_suite(ours, [TASKS[key]], sets, out=None)
    transform: Any = open_clip.image_transform(SIZE_PX, is_train=False)
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    folder = sets / TASKS[key].folder
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        data: Any = build_wds_dataset(key, transform, "test", str(folder))
        loader = torch.utils.data.DataLoader(data.batched(64), batch_size=None, shuffle=False, num_workers=0)
        if key.startswith("retrieval/"):
            expected = zeroshot_retrieval.evaluate(
                theirs, loader, tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10]
            )
        else:
            expected = zeroshot_classification.evaluate(
                theirs, loader, tokenizer, data.classes, data.templates, "cpu", amp=False
            )
    assert result.is_measured, result.problem
    for name, value in expected.items():
        if value == value:  # theirs is NaN where ours is None
            assert result.metrics[name] == pytest.approx(value, abs=1e-6), name
        else:
            assert result.metrics[name] is None
