"""The main job, all but its report: make pairs, train, evaluate, train the baseline for as long."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console

from eyesmith.data.make.emoji import make_emoji
from eyesmith.data.make.icons import ALL_GROUPS, GROUPS
from eyesmith.data.make.scenes import make_scenes
from eyesmith.data.make.worlds import WorldName
from eyesmith.data.sources import open_source, split_names
from eyesmith.errors import CheckpointError, MissingDependencyError
from eyesmith.eval.heads.pixel_neighbour import TASK as PIXEL_TASK
from eyesmith.eval.heads.pixel_neighbour import pixel_neighbour
from eyesmith.eval.results.rows import ResultRow, append_rows, read_rows
from eyesmith.losses.config import LossConfig
from eyesmith.models.registry import config as model
from eyesmith.models.text import ClipTextConfig, HuggingFaceTextConfig
from eyesmith.models.text.hugging_face import locate
from eyesmith.recipes import quickstart as main_recipe
from eyesmith.recipes import quickstart_small, quickstart_small_vit
from eyesmith.recipes import quickstart_vit as baseline_recipe
from eyesmith.runs.equal_time import epochs_at_equal_time
from eyesmith.runs.folder import CONFIG_FILE
from eyesmith.runs.train import resume, start, start_or_resume
from eyesmith.runs.work import RESULTS_FILE, RunSummary
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.tokenizer.vocabulary import find_vocabulary

BASELINE_FOLDER = "baseline"
CHOOSE_SPLIT = "choose_drawing"


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """What the quick start makes and where."""

    folder: Path = Path("runs/quickstart")
    """The run folder; it becomes a model that `eyesmith.load` opens."""
    data: Path = Path("data")
    """Folder under which the pairs are made, as emoji, emoji-style or scenes, or were made before; those of the small
    world as emoji-small and emoji-small-style, those of all kinds as emoji-all and emoji-all-style."""
    world: WorldName = "large"
    """Drawings in ten styles, or the small world's four with the recipe of before."""
    kinds: Literal["animals-food", "all"] = "animals-food"
    """Which concepts of the large world: animals, plants, food and drink, or all 1,644, which take longer to learn."""
    seed: int = 0
    """Of the training; the splits are fixed."""
    holdout_style: bool = False
    """Leave one whole drawing style out of training (the hard split) instead of one drawing of each concept."""
    epochs: float = 0.0
    """Passes over the training drawings; 0 takes the recipe's."""
    baseline: bool = True
    """Train a plain ViT of equal parameters for the same time, to compare."""


@dataclass(frozen=True, kw_only=True)
class QuickstartSummary:
    """What came of it. data: folder of the pairs; pixels: what no encoder at all reaches; wall_s: seconds in all."""

    run: RunSummary
    baseline: RunSummary | None
    data: Path
    pixels: list[ResultRow]
    wall_s: float


def quickstart(config: QuickstartConfig, *, console: Console) -> QuickstartSummary:
    """Make the data, train and compare; called again it goes on where it stopped.

    Raises ConfigError when `folder` holds another run.
    """
    began = time.monotonic()
    data = _make_data(config, console)
    main = _adapt(_recipes(config)[0](), config, data, console)
    console.print(f"training {main.model.name} on {data}, split train, {main.epochs:g} epochs")
    run = start_or_resume(main, config.folder, console=console)
    other = _train_baseline(config, main, data, console) if config.baseline else None
    pixels = _pixel_rows(config, data, main.eval.splits[:1])
    return QuickstartSummary(run=run, baseline=other, data=data, pixels=pixels, wall_s=time.monotonic() - began)


def _recipes(config: QuickstartConfig) -> tuple[Callable[[], TrainConfig], Callable[[], TrainConfig]]:
    """Of the run and of its baseline."""
    if config.world == "small":
        return quickstart_small, quickstart_small_vit
    return main_recipe, baseline_recipe


def _make_data(config: QuickstartConfig, console: Console) -> Path:
    """The emoji drawings, or without the npm client scenes of our own; returns their folder."""
    name = "emoji-small" if config.world == "small" else "emoji-all" if config.kinds == "all" else "emoji"
    folder = config.data / (f"{name}-style" if config.holdout_style else name)
    console.print(f"data: {folder}")
    groups = GROUPS if config.world == "large" and config.kinds == "animals-food" else ALL_GROUPS
    try:
        make_emoji(folder, world=config.world, groups=groups, holdout="style" if config.holdout_style else "drawing")
    except MissingDependencyError as error:
        console.print(f"the emoji drawings cannot be had: {error}", style="yellow", markup=False)
        folder = config.data / "scenes"
        console.print(f"drawing scenes of our own instead: {folder}")
        make_scenes(folder)
    return folder


def _adapt(recipe: TrainConfig, config: QuickstartConfig, data: Path, console: Console) -> TrainConfig:
    """The recipe for this machine and data."""
    splits = tuple(split for split in split_names(data) if split != "train")
    # the curve chooses the weights in best/: by a split that nothing is reported on, where there is one
    chosen_by = CHOOSE_SPLIT if CHOOSE_SPLIT in splits else splits[0]
    adapted = replace(
        recipe,
        data=replace(recipe.data, path=str(data)),
        eval=replace(recipe.eval, splits=splits, curve_splits=(chosen_by,)),
        epochs=config.epochs or recipe.epochs,
        seed=config.seed,
    )
    return with_text_at_hand(adapted, console)


def with_text_at_hand(recipe: TrainConfig, console: Console) -> TrainConfig:
    """The recipe; where its frozen text encoder cannot be had, with a small text tower of our own that trains too."""
    text = recipe.model.text
    try:
        if isinstance(text, HuggingFaceTextConfig):
            locate(text.source)
        return recipe
    except (MissingDependencyError, CheckpointError) as error:
        console.print(f"the frozen text encoder cannot be had: {error}", style="yellow", markup=False)
    console.print("training a small text tower too")
    own = model("ViTamin-Nano")
    image, tower = replace(recipe.model.image, embed_dim=own.image.embed_dim), own.text
    assert isinstance(tower, ClipTextConfig)
    try:
        find_vocabulary()
    except MissingDependencyError as missing:
        console.print(f"its texts are read byte by byte: {missing}", style="yellow", markup=False)
        tower = tower.of_bytes()
    pair = replace(recipe.model, image=image, text=tower, lock_text=False)
    return replace(recipe, model=pair, loss=LossConfig())  # names need a locked tower


def _pixel_rows(config: QuickstartConfig, data: Path, splits: Sequence[str]) -> list[ResultRow]:
    """What no encoder at all reaches, beside the run's other results."""
    path = config.folder / RESULTS_FILE
    if known := [row for row in read_rows(path) if row.task == PIXEL_TASK]:
        return known
    train = open_source(data, split="train")
    rows = [row for split in splits for row in pixel_neighbour(train, open_source(data, split=split), split=split)]
    append_rows(path, rows)
    return rows


def _train_baseline(config: QuickstartConfig, main: TrainConfig, data: Path, console: Console) -> RunSummary:
    """The baseline, with as many epochs as take the time of the run `main` on this machine."""
    folder = config.folder / BASELINE_FOLDER
    if (folder / CONFIG_FILE).is_file():
        return resume(folder, console=console)
    recipe = _adapt(_recipes(config)[1](), config, data, Console(quiet=True))  # it was said for the run itself
    recipe = replace(recipe, epochs=epochs_at_equal_time(recipe, main))
    console.print(f"training {recipe.model.name} for the same time: {recipe.epochs:g} epochs")
    return start(recipe, folder, console=console)
