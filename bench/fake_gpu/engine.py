"""A backward pass in Python: torch's own wants a device for each of its threads, and a fake GPU has none."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node


def backward(roots: Sequence[Tensor], grads: Sequence[Tensor | None] | None = None) -> None:
    """Add the gradients of `roots` to the leaves' `.grad`, one node of the graph after the other, as autograd does.

    roots: tensors with a graph. grads: theirs; None, or none of one, stands for 1. Hooks on tensors are called, those
    on nodes are not.
    """
    given = list(grads) if grads is not None else [None] * len(roots)
    found: dict[Node, dict[int, Tensor]] = {}
    for root, grad in zip(roots, given, strict=True):
        assert root.grad_fn is not None, "backward of a tensor without a graph"
        _add(found, root.grad_fn, root.output_nr, torch.ones_like(root) if grad is None else grad)
    with torch.no_grad():
        for node in _order([root.grad_fn for root in roots if root.grad_fn is not None]):
            ours = found.pop(node, None)
            if ours is None:
                continue
            if (leaf := getattr(node, "variable", None)) is not None:
                grad = ours[0]
                for hook in (leaf._backward_hooks or {}).values():
                    grad = hook(grad) or grad
                leaf.grad = grad if leaf.grad is None else leaf.grad + grad
                continue
            run = node if callable(node) else node.apply  # of functions in Python
            result = run(*(ours.get(i) for i in range(len(node._input_metadata))))
            results = result if isinstance(result, tuple) else (result,)
            if (is_tensor := node.metadata.get(_IS_TENSOR)) is not None:  # edges lead to tensors alone
                results = [grad for grad, is_one in zip(results, is_tensor, strict=True) if is_one]
            for (later, place), grad in zip(node.next_functions, results, strict=False):
                if later is not None and grad is not None:
                    _add(found, later, place, grad)


@classmethod
def apply(cls: Any, *given: Any, **options: Any) -> Any:
    """In place of `Function.apply`: the node of a function in Python remembers which of its arguments are tensors."""
    found = _APPLY.__get__(None, cls)(*given, **options)
    for one in found if isinstance(found, tuple) else (found,):
        if isinstance(one, Tensor) and one.grad_fn is not None:
            one.grad_fn.metadata[_IS_TENSOR] = [isinstance(argument, Tensor) for argument in given]
    return found


_IS_TENSOR = "is_tensor"
_APPLY = torch.autograd.Function.__dict__["apply"]


def _add(found: dict[Node, dict[int, Tensor]], node: Node, place: int, grad: Tensor) -> None:
    wanted, own = node._input_metadata[place], found.setdefault(node, {})
    if grad.shape != wanted.shape:
        grad = grad.sum_to_size(wanted.shape)  # of what was broadcast
    grad = grad.to(wanted.dtype)
    own[place] = own[place] + grad if place in own else grad


def _order(roots: Sequence[Node]) -> list[Node]:
    """Every node before all that its gradients go to."""
    done: set[Node] = set()
    order: list[Node] = []
    pending: list[tuple[Node, bool]] = [(root, False) for root in roots]
    while pending:
        node, is_left = pending.pop()
        if is_left:
            order.append(node)
        elif node not in done:
            done.add(node)
            pending.append((node, True))
            pending += [(later, False) for later, _ in node.next_functions if later is not None]
    return order[::-1]
