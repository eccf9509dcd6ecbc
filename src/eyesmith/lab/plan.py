"""What the lab compares: groups of cells, each the product of encoders, sizes, budgets, seeds, data and recipes."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from eyesmith.errors import ConfigError

Question = Literal["grid", "data", "size", "resolution", "hybrid", "block", "ltt", "recipe", "quality"]
BudgetUnit = Literal["samples", "tflop", "seconds"]
Match = Literal["parameters", "macs"]
Keep = Literal["largest", "all", "none"]


@dataclass(frozen=True, kw_only=True)
class Group:
    """One product of choices, and the question that it answers."""

    name: str
    question: Question
    """grid: accuracy over samples and size, by family; the others vary one thing against the first that is named."""
    encoders: tuple[str, ...]
    """As lab.encoders names them: ViT/16, ConvNeXt, CoAtNet, ViTamin, ViTamin:mlp, timm:NAME, or one of a user."""
    sizes: tuple[str, ...] = ("nano",)
    budgets: tuple[float, ...]
    """Of each training, in the plan's unit."""
    seeds: tuple[int, ...] = (0, 1)
    recipes: tuple[str, ...] = ("lab-ltt",)
    """Contrastive recipes, as `eyesmith train` knows them; model, data, budget and seed are the cell's."""
    data: tuple[str, ...] = ()
    """Data sets to train on; none: the plan's."""

    def __post_init__(self) -> None:
        for name in ("encoders", "sizes", "budgets", "seeds", "recipes"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ConfigError(f"group {self.name}: {name}: expected one or more, each once, got {values}")
        if min(self.budgets) <= 0 or min(self.seeds) < 0:
            raise ConfigError(
                f"group {self.name}: expected positive budgets and seeds of 0 or more, got {self.budgets}, {self.seeds}"
            )


@dataclass(frozen=True, kw_only=True)
class LabPlan:
    """A whole comparison."""

    name: str
    """Of the folder that its answers go to."""
    title: str
    groups: tuple[Group, ...]
    data: str = "data/emoji"
    """What cells train on, unless their group says otherwise."""
    eval_data: str = ""
    """What all cells are measured on, on its splits; empty: what the plan trains on."""
    splits: tuple[str, ...] = ()
    """Of eval_data; none: all but train."""
    image_px: int = 64
    """Side of the images."""
    match: Match = "parameters"
    """What the families have in common at each size."""
    budget_unit: BudgetUnit = "samples"
    """samples: images seen; tflop: operations of all training steps, towers that are trained counted three times a
    forward pass; seconds: of training steps on this machine, by a rate measured once."""
    batch_size: int = 128
    keep: Keep = "largest"
    """Whose weights are kept after they were measured: those of cells with the largest budget, of all, or none."""

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name in ("cells", "measured"):
            raise ConfigError(f"plan: name: expected a folder's name (not cells or measured), got {self.name!r}")
        if not self.groups or len({group.name for group in self.groups}) != len(self.groups):
            raise ConfigError("plan: groups: expected one or more, with different names")
        if not self.eval_data and any(len(group.data) > 1 for group in self.groups):
            raise ConfigError("plan: eval_data: data sets are compared, so name the one that all cells are measured on")
        if self.image_px < 1 or self.batch_size < 2:
            raise ConfigError(
                "plan: expected a positive image_px and batch_size of 2 or more, "
                f"got {self.image_px} and {self.batch_size}"
            )

    @property
    def budgets(self) -> tuple[float, ...]:
        """All budgets, from the smallest."""
        return tuple(sorted({budget for group in self.groups for budget in group.budgets}))

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds, sorted."""
        return tuple(sorted({seed for group in self.groups for seed in group.seeds}))


def changed(plan: LabPlan, **changes: Any) -> LabPlan:
    """`plan` with fields replaced, its own and its groups'. None leaves a field as it is.

    A group keeps what it compares: the encoders of one that compares blocks, the recipes of one that compares those.
    New budgets and sizes are the grid's; the other groups follow it, the k-th budget for the k-th.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    own = {field.name for field in fields(LabPlan)}
    groups = plan.groups
    for name in [name for name in given if name not in own]:
        value = tuple(given[name])
        if name == "budgets":
            value = tuple(sorted(value))
            groups = tuple(_with_budgets(group, plan.budgets, value) for group in groups)
        elif name == "sizes":
            groups = tuple(_with_sizes(group, value) for group in groups)
        else:
            kept = (group.question != "grid" and name == _COMPARED.get(group.question) for group in groups)
            groups = tuple(
                group if keeps else replace(group, **{name: value}) for group, keeps in zip(groups, kept, strict=True)
            )
    return replace(plan, **{name: value for name, value in given.items() if name in own}, groups=groups)


_COMPARED = {
    "resolution": "encoders",
    "block": "encoders",
    "hybrid": "encoders",
    "ltt": "recipes",
    "recipe": "recipes",
    "quality": "data",
}


def _with_budgets(group: Group, old: Sequence[float], new: Sequence[float]) -> Group:
    if group.question in ("grid", "data"):
        return replace(group, budgets=tuple(new))
    places = sorted({min(old.index(budget), len(new) - 1) for budget in group.budgets})
    return replace(group, budgets=tuple(new[place] for place in places))


def _with_sizes(group: Group, new: Sequence[str]) -> Group:
    if group.question in ("grid", "size"):
        return replace(group, sizes=tuple(new))
    return replace(group, sizes=tuple(size for size in group.sizes if size in new) or (new[-1],))
