"""One process of several: `loss_process.py RANK WORLD_SIZE FOLDER` takes the losses of its rows and writes them there.

A group of all, with uneven rows, and groups of two side by side, with even ones, meet in one set of processes, because
starting one takes seconds.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from slow_loss import inputs
from torch import nn

from eyesmith.losses import Same, sigmoid_loss, softmax_loss
from eyesmith.losses.distill import affinity_distillation, feature_distillation, logit_distillation

SIZES = {2: (9, 9), 4: (4, 2, 3, 2)}
MAX_ROWS = 5  # no rank has as many


def cases() -> list[tuple[str, int | None, bool, torch.dtype]]:
    """(loss, tile_rows, has_same, dtype) of every comparison."""
    return [
        (loss, tile_rows, has_same, dtype)
        for loss in ("softmax", "sigmoid")
        for tile_rows in (2, None)
        for has_same in (False, True)
        for dtype in (torch.float32, torch.float64)
    ]


def rows_of(rank: int, sizes: tuple[int, ...]) -> slice:
    """Where a rank's rows are in the batch."""
    return slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))


def most_rows(world_size: int) -> int | None:
    """What a loss must be told of the ranks' rows: nothing where they are even."""
    return MAX_ROWS if len(set(SIZES[world_size])) > 1 else None


def measure(group: dist.ProcessGroup | None, rank: int, world_size: int) -> dict[str, list[torch.Tensor]]:
    """[value, own gradients ...] of every case, of the rows that this rank has."""
    rows = rows_of(rank, SIZES[world_size])
    where: dict[str, Any] = {"group": group, "max_rows": most_rows(world_size)}
    found = {}
    for loss, tile_rows, has_same, dtype in cases():
        values = inputs(sum(SIZES[world_size]))
        leaves = [values["image"][rows], values["text"][rows], values["scale"], values["bias"]]
        leaves = [leaf.to(dtype, copy=True).requires_grad_() for leaf in leaves]
        same = Same(values["labels"][rows], values["texts"][rows]) if has_same else None
        if loss == "softmax":
            value = softmax_loss(*leaves[:3], same, tile_rows=tile_rows, **where)
        else:
            value = sigmoid_loss(*leaves, same, tile_rows=tile_rows, **where)
        value.backward()
        grads = [leaf.grad for leaf in leaves if leaf.grad is not None]
        found[str((loss, tile_rows, has_same, dtype))] = [value.detach(), *grads]
    count = sum(SIZES[world_size])
    return found | _distilled(rows, count, where) | _frozen_text(rows, count, where)


def _distilled(rows: slice, count: int, where: dict[str, Any]) -> dict[str, list[torch.Tensor]]:
    student, teacher = inputs(count), inputs(count, seed=1, width=5)
    found = {}
    for name in ("feature", "logit", "affinity"):
        if name == "feature":
            teacher = inputs(count, seed=1)
        image, text, scale = (student[key].clone().requires_grad_() for key in ("image", "text", "scale"))
        pairs = (image[rows], text[rows]), (teacher["image"][rows], teacher["text"][rows])
        if name == "feature":
            value = feature_distillation(*pairs[0], *pairs[1], **where)
        elif name == "logit":
            value = logit_distillation(
                *pairs[0], scale, *pairs[1], torch.tensor(9.0), temperature=1.5, tile_rows=2, **where
            )
        else:
            value = affinity_distillation(*pairs[0], *pairs[1], **where)
        value.backward()
        grads = [image.grad[rows], text.grad[rows]] + ([scale.grad] if name == "logit" else [])
        found[name] = [value.detach(), *grads]
        teacher = inputs(count, seed=1, width=5)
    return found


def _frozen_text(rows: slice, count: int, where: dict[str, Any]) -> dict[str, list[torch.Tensor]]:
    values = inputs(count)
    image, scale = (values[name].clone().requires_grad_() for name in ("image", "scale"))
    value = softmax_loss(image[rows], values["text"][rows], scale, tile_rows=2, **where)
    value.backward()
    return {"frozen text": [value.detach(), image.grad[rows], scale.grad]}


def trained_weights(rank: int, world_size: int) -> list[torch.Tensor]:
    """Weights of two towers after three steps on a rank's rows; gradients are averaged over ranks as DDP does.

    DDP itself is not used: it imports the compiler, seconds a process.
    """
    towers = Towers()
    for step in range(3):
        values = inputs(sum(SIZES[world_size]), seed=step)
        rows = rows_of(rank, SIZES[world_size])
        pair = values["image"][rows], values["text"][rows]
        softmax_loss(*towers(*pair), tile_rows=2, max_rows=most_rows(world_size)).backward()
        for parameter in towers.parameters():
            assert parameter.grad is not None
            dist.all_reduce(parameter.grad)
            parameter.grad /= world_size
        towers.descend()
    return [parameter.detach() for parameter in towers.parameters()]


class Towers(nn.Module):
    """The smallest model of two towers and a scale."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.image, self.text = (
            nn.Parameter(torch.randn(6, 8, generator=generator, dtype=torch.float64)) for _ in range(2)
        )
        self.log_scale = nn.Parameter(torch.tensor(2.0).double())

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, ...]:
        unit = nn.functional.normalize
        return unit(image @ self.image.mT, dim=1), unit(text @ self.text.mT, dim=1), self.log_scale.exp()

    @torch.no_grad()
    def descend(self) -> None:
        """One step down the gradients, which are used up."""
        for parameter in self.parameters():
            assert parameter.grad is not None
            parameter -= 0.1 * parameter.grad
            parameter.grad = None


def main() -> None:
    rank, world_size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=world_size)
    pairs = [dist.new_group([start, start + 1]) for start in range(0, world_size, 2)]
    found = {
        "all": measure(None, rank, world_size),
        "pair": measure(pairs[rank // 2], rank % 2, 2),
        "trained": trained_weights(rank, world_size),
    }
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
