"""The cells of a plan: each a training run with a name of its own."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from eyesmith.data.sources import open_source, split_names
from eyesmith.errors import ConfigError
from eyesmith.eval.features.identity import facts_hash
from eyesmith.lab.encoders import Contender, contender
from eyesmith.lab.plan import Group, LabPlan
from eyesmith.recipes import recipe as recipe_config
from eyesmith.tasks import run_to_dict
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train.config import EvalConfig, RunConfig

SamplesOf = Callable[[TrainConfig, float], int]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination of a plan's choices, with the run that it is. steps: of that run."""

    groups: tuple[str, ...]
    contender: Contender
    recipe: str
    data: str
    seed: int
    budget: float
    level: int
    steps: int
    config: TrainConfig
    id: str
    pictures: str = ""
    """A digest of the samples that it is trained and measured on, "" where nobody says: data can be made anew at one
    place. No part of the id, which stays that of the place."""

    @property
    def samples(self) -> int:
        """Images seen in training."""
        return self.steps * self.config.batch_size

    def labels(self) -> dict[str, Any]:
        """What the cell is, JSON-able, beside its config."""
        return {
            "id": self.id,
            "encoder": self.contender.encoder,
            "family": self.contender.family,
            "size": self.contender.size,
            "paper": self.contender.paper,
            "recipe": self.recipe,
            "data": self.data,
            "seed": self.seed,
            "samples": self.samples,
        }


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Of one data set: its split to train on, how many samples that holds, and a digest of those of all splits."""

    split: str | None
    samples: int
    pictures: str = ""


def cells_of(plan: LabPlan, facts: Mapping[str, DataFacts], samples_of: SamplesOf) -> list[Cell]:
    """All cells of `plan`, each once, in the order they are run: by seed, then budget.

    facts: of every data set that is trained on, and of eval_data where its samples shall count. samples_of: images that
    a budget buys.
    Raises ConfigError for an unknown encoder, size or recipe, and for a recipe that does not train with text.
    """
    found: dict[str, Cell] = {}
    for group in plan.groups:
        choices = product(group.encoders, group.sizes, group.budgets, group.seeds, group.recipes, _data(group, plan))
        for encoder, size, budget, seed, recipe, data in choices:
            one = contender(encoder, size, image_px=plan.image_px, match=plan.match)
            base = cell_config(plan, one, recipe, data, facts[data], seed)
            steps = max(round(samples_of(base, budget) / plan.batch_size), 1)
            config = replace(base, epochs=steps / (facts[data].samples // plan.batch_size))
            cell = Cell(
                groups=(group.name,),
                contender=one,
                recipe=recipe,
                data=data,
                seed=seed,
                budget=budget,
                level=plan.budgets.index(budget),
                steps=steps,
                config=config,
                id="",
            )
            eval_facts = facts.get(plan.eval_data or data)
            seen = [facts[data].pictures, eval_facts.pictures if eval_facts else ""]
            cell = replace(cell, id=_id(cell, plan), pictures=facts_hash(seen) if any(seen) else "")
            known = found.get(cell.id)
            groups = cell.groups if known is None else tuple(dict.fromkeys((*known.groups, *cell.groups)))
            found[cell.id] = replace(cell, groups=groups)
    return sorted(found.values(), key=lambda cell: (cell.seed, cell.budget))


def samples_as_stated(config: TrainConfig, budget: float) -> int:
    """The number of images that a budget in samples is."""
    del config
    return max(round(budget), 1)


def cell_config(plan: LabPlan, one: Contender, recipe: str, data: str, facts: DataFacts, seed: int) -> TrainConfig:
    """The run of a cell, all but its length: the recipe with this encoder, data and seed."""
    run: RunConfig = recipe_config(recipe)
    if not isinstance(run, TrainConfig):
        raise ConfigError(f"recipe {recipe}: the lab takes runs that train with text, such as lab-ltt and lab-joint")
    if facts.samples < plan.batch_size:
        raise ConfigError(f"batch_size: {data} has {facts.samples} samples to train on, fewer than {plan.batch_size}")
    side = (plan.image_px, plan.image_px)
    # only other people's encoders say what pixels they expect
    colours = {key: getattr(one.image, key) for key in ("mean", "std") if hasattr(one.image, key)}
    model = replace(
        run.model,
        name=f"{one.encoder}-{one.size}" if one.size else one.encoder,
        image=replace(one.image, image_size=side, embed_dim=run.model.image.embed_dim),
        preprocess=replace(run.model.preprocess, image_size=side, **colours),
    )
    return replace(
        run,
        model=model,
        data=replace(run.data, path=data, split=facts.split),
        eval=EvalConfig(),
        batch_size=plan.batch_size,
        seed=seed,
        save_every_steps=max(run.save_every_steps, 50),
    )


def data_facts(paths: Sequence[str]) -> dict[str, DataFacts]:
    """What is at `paths`. Raises DataError where a data set cannot be opened."""
    found = {}
    for path in paths:
        names = split_names(path)
        split = "train" if "train" in names else None
        opened = {name: open_source(path, split=name, require_text=name == split) for name in names or (None,)}
        source = opened[split] if split in opened else open_source(path, split=split)
        pictures = facts_hash([[name, one.fingerprint()] for name, one in opened.items()])
        found[path] = DataFacts(split=split, samples=len(source), pictures=pictures)
    return found


def data_of(plan: LabPlan) -> list[str]:
    """All data sets that the plan trains on, each once."""
    return list(dict.fromkeys(path for group in plan.groups for path in _data(group, plan)))


def _data(group: Group, plan: LabPlan) -> tuple[str, ...]:
    return group.data or (plan.data,)


def _id(cell: Cell, plan: LabPlan) -> str:
    """A readable name that differs wherever the run, or what it is measured on, differs."""
    settings = json.dumps([run_to_dict(cell.config), plan.eval_data, plan.splits], sort_keys=True)
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    words = [cell.contender.encoder, cell.contender.size, _short(cell.samples), cell.recipe, Path(cell.data).name]
    name = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", word) for word in words if word)
    return f"{name}-s{cell.seed}-{digest}".lower()


def _short(samples: int) -> str:
    return f"{samples / 1e6:.3g}m" if samples >= 1e6 else f"{samples / 1e3:.3g}k"
