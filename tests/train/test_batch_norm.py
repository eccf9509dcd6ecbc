"""One process's batch norms beside torch's own; tests/train/test_sharding.py has two processes share a batch."""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from eyesmith.images import PreprocessConfig
from eyesmith.losses import softmax_loss
from eyesmith.models.clip import ClipConfig
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.tasks.contrastive import Contrastive, TrainConfig
from eyesmith.train.accumulate import Features, backward
from eyesmith.train.batch_norm import batch_norms, share_statistics
from eyesmith.train.config import DataConfig, ParallelConfig
from eyesmith.train.distributed import World
from eyesmith.train.sharding import Parallel


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def _norms() -> list[nn.Module]:
    from eyesmith.models.foreign.torchvision import ensure_torchvision

    ensure_torchvision()
    from timm.layers.norm_act import BatchNormAct2d

    return [
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, affine=False, momentum=None),
        nn.BatchNorm2d(4, track_running_stats=False),
        BatchNormAct2d(4, act_layer=nn.SiLU),
    ]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("which", range(4))
def test_one_process_computes_what_torch_does(which: int) -> None:
    theirs = _norms()[which].train()
    ours = copy.deepcopy(theirs)
    share_statistics(ours)
    assert list(batch_norms(nn.Sequential(ours))) == ["0"]
    draws = torch.Generator().manual_seed(0)
    for _ in range(3):
        x = 100 + torch.randn(5, 4, 3, 3, generator=draws)  # a mean that would cancel in a sum of squares
        grad = torch.randn(5, 4, 3, 3, generator=draws)
        found: list[list[Tensor]] = []
        for norm in (ours, theirs):
            norm.zero_grad()
            own = x.clone().requires_grad_()
            y = norm(own)
            y.backward(grad)
            assert own.grad is not None
            grads = [value.grad for value in norm.parameters() if value.grad is not None]
            found.append([y.detach(), own.grad, *grads, *norm.state_dict().values()])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("num_parts", [1, 2])
def test_statistics_count_every_row_once(num_parts: int, recompute: bool) -> None:
    """In parts each row passes twice, recomputed blocks pass once more; the oracle is one pass over each part."""
    image = ViTaminConfig(
        image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 1), num_heads=2, embed_dim=16, convolution="bn_se"
    )
    model = ClipConfig(
        name="tiny",
        image=image,
        text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16, context_len=16),
        preprocess=PreprocessConfig(image_size=(32, 32)),
    )
    torch.manual_seed(0)
    clip, texts = model.build().train(), ["a red thing", "a blue one", "two of them", "none"]
    oracle = copy.deepcopy(clip)
    config = TrainConfig(model=model, data=DataConfig(path="none"))
    parallel = Parallel(Contrastive(clip, config), ParallelConfig(checkpoint_blocks=recompute), World())
    pixels = torch.randn(4, 3, 32, 32)

    def part(rows: Tensor) -> Callable[[], Features]:
        def features() -> Features:
            found = parallel(pixels[rows], clip.text.tokenize([texts[row] for row in rows]))
            return Features(*found)

        return features

    parts = torch.arange(4).tensor_split(num_parts)
    backward(
        parallel,
        [part(rows) for rows in parts],
        lambda found: softmax_loss(found.image, found.text, found.scale),
        same_kernels=True,
    )
    for rows in parts:
        oracle.image(pixels[rows])
    theirs = batch_norms(oracle)
    assert len(theirs) > 3
    for name, norm in batch_norms(clip).items():
        assert norm.momentum == 0.1
        for ours, other in zip(norm.buffers(), theirs[name].buffers(), strict=True):
            assert torch.equal(ours, other), name
