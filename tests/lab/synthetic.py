"""Results of a plan that was never run, whose law is known."""

import math
import random
from itertools import product
from pathlib import Path

from eyesmith.eval.results.rows import ResultRow
from eyesmith.lab.plan import Group, LabPlan
from eyesmith.lab.result import CellResult, Failure, LabResults, Measured

# error = scale * samples ** -exponent at the small size; the large one has SIZE_FACTOR times that
LAWS = {"ViT/16": (1.95, 0.08), "ConvNeXt": (2.2, 0.10), "CoAtNet": (2.6, 0.125), "ViTamin": (2.7, 0.13)}
PAPER = {
    ("ViT/16", "pico"): "ViT-S/16",
    ("ConvNeXt", "pico"): "ConvNeXt-T",
    ("CoAtNet", "pico"): "CoAtNet-0",
    ("ViTamin", "pico"): "ViTamin-S",
    ("ViT/16", "nano"): "ViT-B/16",
    ("ConvNeXt", "nano"): "ConvNeXt-B",
    ("CoAtNet", "nano"): "CoAtNet-2",
    ("ViTamin", "nano"): "ViTamin-B",
}
BUDGETS = (20_000.0, 80_000.0, 200_000.0)
EFFECTS = {"ViTamin:bn-se": -0.05, "ViTamin:mlp": 0.0, "ViT/8": 0.06, "ViT/32": -0.08}  # added to the base's accuracy
SIZE_FACTOR, JOINT, CLEAN, NUM_QUERIES = 0.9, -0.07, 0.04, 800


def accuracy(encoder: str, size: str, samples: float) -> float:
    """The truth behind a cell, a fraction."""
    family = "ViTamin" if encoder.startswith("ViTamin") else "ViT/16" if encoder.startswith("ViT/") else encoder
    scale, exponent = LAWS[family]
    error = scale * samples**-exponent * (SIZE_FACTOR if size == "nano" else 1.0)
    return 1 - error + EFFECTS.get(encoder, 0.0)


def cell(group, encoder, size, level, seed, recipe, data, noise, budgets) -> CellResult:
    """One cell: the truth, moved by its seed (normal, `noise`) and by the queries that were asked."""
    name = f"{encoder}-{size}-{level}-{recipe}-{Path(data).name}-s{seed}".lower().replace("/", "_").replace(":", "_")
    drawn = random.Random(name)
    shift = (JOINT if recipe == "lab-joint" else 0.0) + (CLEAN if data.endswith("clean") else 0.0)
    rows = []
    for split, hardness in (("unseen_drawing", 1.0), ("unseen_concept", 0.6)):
        share = hardness * (accuracy(encoder, size, budgets[level]) + shift + drawn.gauss(0, noise))
        share = min(max(share, 0.0), 1.0)
        value = sum(drawn.random() < share for _ in range(NUM_QUERIES)) / NUM_QUERIES if noise else share
        facts = {"low": None, "high": None, "n": NUM_QUERIES, "chance": 1 / 262}
        rows.append(ResultRow(model=name, task="zero_shot", split=split, metric="acc1", value=value, **facts))
    large = 4 if size == "nano" else 1
    return CellResult(
        id=name,
        groups=(group,),
        encoder=encoder,
        family=encoder.partition("/")[0].partition(":")[0],
        size=size,
        paper=PAPER.get((encoder, size), ""),
        recipe=recipe,
        data=data,
        seed=seed,
        budget=budgets[level],
        level=level,
        samples=int(budgets[level]),
        parameters=700_000 * large,
        gmacs=0.05 * large * (1 + len(encoder) / 10),
        train_s=300.0,
        cpu_s=320.0,
        loss=math.exp(-level),
        rows=tuple(rows),
        folder=Path("cells") / name,
    )


def plan(budgets=BUDGETS) -> LabPlan:
    """The grid of four families, two sizes and the given budgets, and every other question at the largest budget."""
    top = (budgets[-1],)
    blocks = ("ViTamin", "ViTamin:bn-se", "ViTamin:mlp")
    sizes = ("pico", "nano")
    return LabPlan(
        name="synthetic",
        title="A grid with a known law",
        eval_data="data/emoji",
        groups=(
            Group(name="grid", question="grid", encoders=tuple(LAWS), sizes=sizes, budgets=budgets),
            Group(name="patches", question="resolution", encoders=("ViT/8", "ViT/16", "ViT/32"), budgets=top),
            Group(name="block", question="block", encoders=blocks, budgets=top, sizes=sizes, seeds=(0, 1, 2)),
            Group(
                name="ltt",
                question="ltt",
                encoders=("ViTamin", "ViT/16"),
                recipes=("lab-ltt", "lab-joint"),
                budgets=top,
            ),
            Group(
                name="quality",
                question="quality",
                encoders=("ViTamin",),
                sizes=sizes,
                budgets=top,
                data=("data/raw", "data/clean"),
            ),
        ),
    )


def lab_results(folder: Path, *, noise: float = 0.01, budgets=BUDGETS) -> LabResults:
    """Every cell of `plan`, with costs and one failed and one missing cell."""
    made = plan(budgets)
    cells: dict[str, CellResult] = {}
    for group in made.groups:
        data = group.data or (made.data,)
        choices = product(group.encoders, group.sizes, group.budgets, group.seeds, group.recipes, data)
        for encoder, size, budget, seed, recipe, path in choices:
            level = made.budgets.index(budget)
            one = cell(group.name, encoder, size, level, seed, recipe, path, noise, budgets)
            if one.id in cells:
                groups = (*cells[one.id].groups, group.name)
                one = CellResult(**{**vars(one), "groups": groups})
            cells[one.id] = one
    measured = tuple(
        Measured(
            encoder=encoder,
            size=size,
            parameters=700_000 * factor,
            gmacs=0.05 * factor,
            latency_ms={1: 3.0 * factor + place, 32: 60.0 * factor + 9 * place},
            latency_low={1: 2.8 * factor + place, 32: 58.0 * factor + 9 * place},
            latency_high={1: 3.3 * factor + place, 32: 66.0 * factor + 9 * place},
            peak_mib=20.0 * factor + 7 * place,
        )
        for place, encoder in enumerate(LAWS)
        for size, factor in (("pico", 1), ("nano", 4))
    )
    return LabResults(
        plan=made,
        cells=tuple(cells.values()),
        missing=("convnext-nano-200k-lab_ltt-s1",),
        failed=(Failure(id="vitamin-nano-lab_ltt-s9", message="the loss is not finite at step 12 <nan>"),),
        measured=measured,
        machine={"processor": "A processor", "cores": 2, "threads": 1, "accelerator": None, "python": "3.11"},
        versions={"eyesmith": "0.1", "torch": "2.13"},
        folder=folder / made.name,
    )
