"""The losses as their papers define them: two loops over pairs, one logit at a time, in fp64."""

import torch
import torch.nn.functional as F
from torch import Tensor


def inputs(num_rows: int, seed: int = 0, width: int = 8) -> dict[str, Tensor]:
    """Random unit rows, a scale and a bias, in fp64 but of values that fp32 can hold.

    Rows 0, 3 and 5 share a text, 1, 4 and the last a label.
    """
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(num_rows, width, generator=generator, dtype=torch.float64)
    text = torch.randn(num_rows, width, generator=generator, dtype=torch.float64) + image
    labels, texts = torch.arange(num_rows), torch.arange(num_rows) + 100
    texts[[3, 5]] = 100
    labels[[4, -1]] = 1
    return {
        "image": F.normalize(image, dim=1).float().double(),  # the same numbers in either format
        "text": F.normalize(text, dim=1).float().double(),
        "scale": torch.tensor(14.25, dtype=torch.float64),
        "bias": torch.tensor(-3.0, dtype=torch.float64),
        "labels": labels,
        "texts": texts,
    }


def slow_softmax(image: Tensor, text: Tensor, scale: Tensor, is_left_out: list[list[bool]]) -> Tensor:
    """Mean over samples of -log of the share of the own pair, half from each direction."""
    logits, total, count = _logits(image, text, scale), torch.zeros(()).double(), len(image)
    for i in range(count):
        row = [logits[i][j] for j in range(count) if j == i or not is_left_out[i][j]]
        column = [logits[j][i] for j in range(count) if j == i or not is_left_out[j][i]]
        for terms in (row, column):
            total = total - torch.log(torch.exp(logits[i][i]) / sum(torch.exp(term) for term in terms))
    return total / (2 * count)


def slow_sigmoid(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, is_left_out: list[list[bool]]) -> Tensor:
    """Mean over images of the summed binary cross-entropy with all texts."""
    logits, total, count = _logits(image, text, scale), torch.zeros(()).double(), len(image)
    for i in range(count):
        for j in range(count):
            if i == j:
                total = total + torch.log(1 + torch.exp(-(logits[i][j] + bias)))
            elif not is_left_out[i][j]:
                total = total + torch.log(1 + torch.exp(logits[i][j] + bias))
    return total / count


def left_out(labels: Tensor | None, texts: Tensor | None, count: int) -> list[list[bool]]:
    """Which pairs are no negatives, pair by pair."""
    if labels is None or texts is None:
        return [[False] * count for _ in range(count)]
    return [[bool(labels[i] == labels[j] or texts[i] == texts[j]) for j in range(count)] for i in range(count)]


def value_and_grads(loss: str, values: dict[str, Tensor], *, has_same: bool) -> list[Tensor]:
    """[value, d image, d text, d scale] of the slow loop, and d bias of the sigmoid loss; all fp64."""
    names = ["image", "text", "scale"] + (["bias"] if loss == "sigmoid" else [])
    leaves = [values[name].clone().requires_grad_() for name in names]
    codes = (values["labels"], values["texts"]) if has_same else (None, None)
    slow = slow_softmax if loss == "softmax" else slow_sigmoid
    value = slow(*leaves, left_out(*codes, len(leaves[0])))
    value.backward()
    return [value.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def relative_error(found: Tensor, exact: Tensor) -> float:
    """Norm of the difference over the norm of the exact value."""
    return float((found.double() - exact).norm() / exact.norm())


def _logits(image: Tensor, text: Tensor, scale: Tensor) -> list[list[Tensor]]:
    return [[scale * (row * column).sum() for column in text] for row in image]
