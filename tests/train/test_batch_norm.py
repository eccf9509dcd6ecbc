"""One process's batch norms beside torch's own; tests/train/test_sharding.py has two processes share a batch."""

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from eyesmith.train.batch_norm import batch_norms, share_statistics


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
