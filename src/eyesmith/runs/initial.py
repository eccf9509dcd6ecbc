"""Starting from the weights of another model, and what they reach before the first step."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from eyesmith.errors import CheckpointError
from eyesmith.eval import ResultRow, evaluate
from eyesmith.hub.stored import read_stored
from eyesmith.hub.weights import load_tensors
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.train.config import TrainConfig
from eyesmith.train.initial import InitialConfig

BEFORE = " before"  # after the model's name in result rows: what the initial weights reach


def from_weights(config: TrainConfig, source: str | os.PathLike[str]) -> TrainConfig:
    """`config` with the model that `source` holds, started from its weights. Raises as `eyesmith.load` does.

    A model trained against a locked text tower keeps it locked.
    """
    stored = read_stored(source)
    if not isinstance(stored.config, ClipConfig):
        raise CheckpointError(
            f"{os.fspath(source)}: holds an image encoder without a text tower; contrastive training needs both"
        )
    transform = config.transform and replace(config.transform, image_size=stored.config.image.image_size)
    initial = InitialConfig(weights=os.fspath(source))
    return replace(config, model=stored.config, transform=transform, initial=initial)


def load_initial(clip: Clip, config: InitialConfig) -> None:
    """Give `clip`, on the CPU, the weights that `config` names; nothing where it names none.

    A position table of another size is resampled. Raises CheckpointError where the weights are not those of the model
    (or, for part="text", not those of its text tower), or as `eyesmith.load` does.
    """
    if not config.weights:
        return
    if config.part == "text":
        stored = read_stored(config.weights)
        tensors = stored.tensors
        texts = {name.removeprefix("text."): value for name, value in tensors.items() if name.startswith("text.")}
        if not texts or "logit_scale" not in tensors:
            raise CheckpointError(f"initial.weights: {stored.where} has no text tower and temperature to start from")
        load_tensors(clip.text, texts, where=f"text tower of {stored.where}")
        with torch.no_grad():
            clip.logit_scale.copy_(tensors["logit_scale"].reshape(()))
        return
    stored = read_stored(config.weights, image_size=clip.image.image_size)
    load_tensors(clip, stored.tensors, where=stored.where)


def measured(
    clip: Clip, config: TrainConfig, *, before: bool = False, note: Callable[[str], None] | None = None
) -> list[ResultRow]:
    """Result rows on the config's eval.splits and, for a run from trained weights, on every set of eval.curve_data.

    The latter's splits are named SET:SPLIT. before: rows are marked as those of the initial weights.
    """
    name = clip.config.name + (BEFORE if before else "")
    rows: list[ResultRow] = []
    if config.eval.splits:
        rows += evaluate(clip, config.data.path, config.eval.splits, model_name=name, note=note)
    if config.initial.weights and config.initial.part == "all":
        for path in config.eval.curve_data:
            found = evaluate(clip, path, model_name=name, note=note)
            rows += [replace(row, split=f"{Path(path).name}:{row.split}") for row in found]
    return rows


def measures_before(config: TrainConfig) -> bool:
    """Whether a run measures its initial weights: all of them are trained ones, and there is what to measure on."""
    has_sets = bool(config.eval.splits or config.eval.curve_data)
    return bool(config.initial.weights) and config.initial.part == "all" and has_sets
