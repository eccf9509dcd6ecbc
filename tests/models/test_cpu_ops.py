import pytest
import torch
import torch.nn.functional as F

from eyesmith.models.cpu_ops import SHORT_SEQUENCE_LEN, _StridedDepthwise, attend, depthwise


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (6, 9), (1, 1)])
def test_strided_depthwise_has_the_gradients_of_a_convolution(size: tuple[int, int]) -> None:
    x = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    ours, theirs = _StridedDepthwise.apply(x, weight), F.conv2d(x, weight, stride=2, padding=1, groups=4)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    grad = torch.randn_like(theirs)
    for a, b in zip(
        torch.autograd.grad(ours, (x, weight), grad), torch.autograd.grad(theirs, (x, weight), grad), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_depthwise_in_bfloat16_equals_a_convolution_within_rounding() -> None:
    x = torch.randn(2, 16, 8, 8).bfloat16().requires_grad_()
    weight, bias = torch.randn(16, 1, 3, 3), torch.randn(16)
    ours = depthwise(x, weight, bias, 2)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), stride=2, padding=1, groups=16)
    torch.testing.assert_close(ours.double(), exact, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("tokens", [9, SHORT_SEQUENCE_LEN + 1])
def test_attention_equals_torchs_own(tokens: int) -> None:
    q, k, v = (torch.randn(2, 3, tokens, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    ours, theirs = attend(q, k, v), F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)  # the softmax of short sequences is in fp32
    grad = torch.randn_like(theirs)
    for a, b in zip(
        torch.autograd.grad(ours, (q, k, v), grad), torch.autograd.grad(theirs, (q, k, v), grad), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
