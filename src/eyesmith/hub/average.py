"""Averages of weights: between a model and its fine-tuned self, or of several fine-tuned ones.

Sources: WiSE-FT (arXiv 2109.01903), model soups (arXiv 2203.05482). Every parameter is averaged as it is, the
temperature's logarithm too. Sums are made in float64 and rounded once to the type of the first model's tensor.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from eyesmith.config import to_dict
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.hub.stored import Stored

Tensors = Mapping[str, Tensor]
_UNUSED = ("name", "prompts", "init_scale", "lock_text", "drop_path_prob", "initial", "is_packed", "resize", "source")
# what a model is called, its sentences for class names, what only training asks ("initial": how weights are drawn), how
# a matrix is laid out in files, tables at another size, and where it came from


def wise_ft(before: Stored, after: Stored, alpha: float) -> Stored:
    """(1 - alpha) * before + alpha * after: 0 is the model before fine-tuning, 1 the one after it.

    Raises ConfigError for an alpha outside of 0..1, CheckpointError for models of different shapes.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha: expected 0 (before) to 1 (after), got {alpha}")
    return weighted([before, after], [1 - alpha, alpha])


def soup(models: Sequence[Stored]) -> Stored:
    """The plain mean of several models. Raises CheckpointError for models of different shapes."""
    return weighted(models, [1 / len(models)] * len(models) if models else [])


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """A greedy soup: the average, the indices of the models that are in it, and its score."""

    model: Stored
    chosen: tuple[int, ...]
    score: float


def greedy_soup(models: Sequence[Stored], score: Callable[[Stored], float]) -> Greedy:
    """Take the best model; add each other, best first, when the mean with it scores no worse.

    score: higher is better, called once for each model alone and once for each mean that is tried. The result never
    scores below the best single model. Of equal models the earlier comes first.
    """
    if not models:
        raise ConfigError("models: expected one or more to average")
    alone = [score(model) for model in models]
    first, *others = sorted(range(len(models)), key=lambda index: -alone[index])
    found = Greedy(model=models[first], chosen=(first,), score=alone[first])
    for index in others:
        chosen = (*found.chosen, index)
        mean = soup([models[one] for one in chosen])
        if (reached := score(mean)) >= found.score:
            found = Greedy(model=mean, chosen=chosen, score=reached)
    return found


def weighted(models: Sequence[Stored], weights: Sequence[float]) -> Stored:
    """The weighted sum of models of one shape, with the first one's config.

    A tensor that is equal in all of them (a locked tower) stays as it is, bit for bit; so does one of whole numbers,
    which must be equal. Raises ConfigError without models or for weights that do not add up to 1, CheckpointError
    naming the first tensor that differs in name or shape, or the first setting by which equal shapes are another model.
    """
    if not models or len(models) != len(weights):
        raise ConfigError(f"weights: expected one for each of 1 or more models, got {len(weights)} for {len(models)}")
    if abs(sum(weights) - 1) > 1e-6:
        raise ConfigError(f"weights: expected a sum of 1, got {sum(weights):g}")
    first, *others = models
    for other in others:
        _check_alike(first, other)
    tensors = {
        name: _mean([model.tensors[name] for model in models], weights, name=name, where=first.where)
        for name in first.tensors
    }
    where = "average of " + ", ".join(model.where for model in models)
    return replace(first, tensors=tensors, where=where)


def _mean(values: Sequence[Tensor], weights: Sequence[float], *, name: str, where: str) -> Tensor:
    first, *others = values
    if all(torch.equal(first, other) for other in others):
        return first
    if not first.is_floating_point():
        raise CheckpointError(f"{where}: '{name}' holds whole numbers that differ between the models")
    total = torch.zeros(first.shape, dtype=torch.float64)
    for value, weight in zip(values, weights, strict=True):
        total.add_(value.double(), alpha=weight)
    return total.to(first.dtype)


def _check_alike(first: Stored, other: Stored) -> None:
    """Raise CheckpointError where tensors differ in name or shape, or are used in other ways."""
    odd = sorted(first.tensors.keys() ^ other.tensors.keys())
    if odd:
        raise CheckpointError(
            f"{other.where}: is another model than {first.where}: only one of them has '{odd[0]}' "
            f"(and {len(odd) - 1} more); only weights of one architecture can be averaged"
        )
    for name, value in first.tensors.items():
        if value.shape != other.tensors[name].shape:
            raise CheckpointError(
                f"{other.where}: '{name}' is {list(other.tensors[name].shape)}, in {first.where} "
                f"{list(value.shape)}; only weights of one architecture and image size can be averaged"
            )
    mine, theirs = (dict(_used(to_dict(model.config))) for model in (first, other))
    for name in mine:
        if mine[name] != theirs.get(name):
            raise CheckpointError(
                f"{other.where}: {name} is {theirs.get(name)!r}, in {first.where} {mine[name]!r}; weights that are "
                "used in other ways cannot be averaged, though their names and shapes are the same"
            )


def _used(config: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """What the weights of a model are used by, by dotted name."""
    for name, value in config.items():
        if name in _UNUSED or (name == "model_name" and "settings" in config):  # which say it, the name is for messages
            continue
        if name == "preprocess":  # how pictures are cut and resampled changes no feature of a picture that is prepared
            value = {key: value[key] for key in ("mean", "std")} if value else {}
        if isinstance(value, Mapping):
            yield from _used(value, f"{at}{name}.")
        else:
            yield f"{at}{name}", value
