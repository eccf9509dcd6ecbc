"""The alternation of EVA-02's figure 3: CLIP, masked images with that CLIP as the teacher, CLIP from what came out.

Each stage is a run folder like any other below one folder; the same command goes on where it was stopped.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from eyesmith.config import check_least, to_dict
from eyesmith.data.sources import split_names
from eyesmith.errors import ConfigError
from eyesmith.eval.results.rows import ResultRow, append_rows
from eyesmith.files import load_json, write_json
from eyesmith.hub import load_encoder
from eyesmith.hub.initial import InitialConfig
from eyesmith.models.identity import tensors_hash
from eyesmith.recipes.eva02 import mim_nano, quickstart_trv
from eyesmith.runs.folder import plain
from eyesmith.runs.origin import Origin
from eyesmith.runs.quickstart import with_text_at_hand
from eyesmith.runs.train import start_or_resume
from eyesmith.runs.work import RESULTS_FILE, RunSummary
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.tasks.masked import MaskedConfig
from eyesmith.tasks.task import BEFORE
from eyesmith.train.config import RunConfig
from eyesmith.train.teacher import TeacherTargets

CONFIG_FILE = "alternate.json"


@dataclass(frozen=True, kw_only=True)
class AlternateConfig:
    """What is alternated, and for how long."""

    data: Path
    """Pairs: a made data set, shards, a table or a folder; see docs/data.md."""
    out: Path = Path("runs/alternate")
    """Folder of the stages: teacher/, masked/, clip/, and scratch/ where it is asked for."""
    teacher: str = ""
    """A trained CLIP to begin with, as eyesmith.load takes it; empty: train one first, TrV-Nano from random weights."""
    split: str = ""
    """The split to train on; empty: `train` where there is one."""
    rounds: int = 1
    """Times that masked images and CLIP follow each other; the CLIP of one round is the teacher of the next."""
    seed: int = 0
    """Of all stages."""
    clip_epochs: float = 0.0
    """Passes over the pairs of each CLIP; 0 takes the recipe's."""
    masked_epochs: float = 0.0
    """Passes over the images of each masked-image run; 0 takes the recipe's."""
    batch_size: int = 0
    """Of all stages; 0 takes the recipes'."""
    scratch: bool = True
    """Also train the last CLIP from random weights, to see what the masked images gave."""
    masked: MaskedConfig = field(default_factory=mim_nano)
    """The masked-image stage; its data, teacher, seed and epochs come from the fields above."""
    clip: TrainConfig = field(default_factory=quickstart_trv)
    """The CLIP stages; their data, first weights, seed and epochs come from the fields above."""

    def __post_init__(self) -> None:
        check_least(self, rounds=1, clip_epochs=0, masked_epochs=0, batch_size=0)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One finished stage. source: what its image tower started from, in words."""

    name: str
    source: str
    run: RunSummary

    def rows(self) -> list[ResultRow]:
        """Its results at the end."""
        return [row for row in self.run.rows if not row.model.endswith(BEFORE)]


def alternate(config: AlternateConfig, *, console: Console) -> list[Stage]:
    """Run all stages, or those that are not finished yet; returns them in order.

    Raises ConfigError when `out` holds an alternation with other settings, or a teacher is not the one that a finished
    stage learned from; Interrupted on Ctrl-C.
    """
    _claim(config)
    began = time.monotonic()
    stages: list[Stage] = []
    teacher = config.teacher
    if not teacher:
        stages.append(_clip(config, "teacher", "random weights", console))
        teacher = str(stages[-1].run.folder)
    for number in range(1, config.rounds + 1):
        ending = f"-{number}" if config.rounds > 1 else ""
        stages.append(_masked(config, f"masked{ending}", teacher, console))
        source = str(stages[-1].run.folder)
        stages.append(_clip(config, f"clip{ending}", source, console, start=source))
        teacher = str(stages[-1].run.folder)
    if config.scratch:
        stages.append(_scratch(config, stages, console))
    results = config.out / RESULTS_FILE
    results.unlink(missing_ok=True)
    append_rows(results, [replace(row, model=f"{row.model} {one.name}") for one in stages for row in one.rows()])
    console.print(f"{len(stages)} stages, {time.monotonic() - began:.0f} s in all", markup=False)
    return stages


def _claim(config: AlternateConfig) -> None:
    """Note what this folder is for. Raises ConfigError where it is for something else.

    A note without any stage beside it is of a command that failed at once, and is for nothing.
    """
    path = config.out / CONFIG_FILE
    wanted = plain(to_dict(replace(config, out=Path("."))))
    is_begun = config.out.exists() and any(one.name != CONFIG_FILE for one in config.out.iterdir())
    if path.is_file() and is_begun:
        if load_json(path.read_text(encoding="utf-8")) != wanted:
            raise ConfigError(
                f"{config.out}: holds an alternation with other settings; choose another folder, or delete this one"
            )
        return
    if is_begun:
        raise ConfigError(f"{config.out}: is not empty; choose another folder")
    write_json(path, wanted)


def _clip(config: AlternateConfig, name: str, source: str, console: Console, *, start: str = "") -> Stage:
    run = clip_config(config, start=start, note=console)
    console.print(f"{name}: {run.model.name} from {source}, {run.epochs:g} epochs", markup=False)
    return Stage(name=name, source=source, run=start_or_resume(run, config.out / name, console=console))


def _scratch(config: AlternateConfig, stages: Sequence[Stage], console: Console) -> Stage:
    """The same CLIP from random weights: the teacher itself where it was trained here, for it is the same run."""
    if stages[0].name == "teacher":
        return replace(stages[0], name="scratch")
    return _clip(config, "scratch", "random weights", console)


def _masked(config: AlternateConfig, name: str, teacher: str, console: Console) -> Stage:
    run = config.masked
    run = replace(run, target=replace(run.target, teacher=teacher), **_shared(config, run, config.masked_epochs))
    console.print(f"{name}: {run.name} from random weights, teacher {teacher}, {run.epochs:g} epochs", markup=False)
    summary = start_or_resume(run, config.out / name, console=console)
    if summary.was_finished:  # one that goes on compares by itself
        _check_teacher(run, config.out / name)
    return Stage(name=name, source=f"random weights, teacher {teacher}", run=summary)


def _check_teacher(run: MaskedConfig, folder: Path) -> None:
    """Raise ConfigError where a finished stage learned from another teacher than lies at its place now."""
    origin, source = Origin.read(folder), run.target.teacher
    if origin is None or not Path(source).exists():
        return
    teacher = TeacherTargets(load_encoder(source), run.target, grid=run.model.grid).teacher
    if origin.teachers.get("target.teacher") != tensors_hash(teacher.state_dict()):
        raise ConfigError(
            f"{folder}: learned from another teacher than {source} holds now; choose another folder for this "
            "alternation, or delete this stage and those behind it"
        )


def clip_config(config: AlternateConfig, *, start: str, note: Console) -> TrainConfig:
    """A CLIP stage, its image tower from the run `start` if one is named."""
    run = with_text_at_hand(config.clip, note)
    initial = InitialConfig(weights=start, part="image") if start else InitialConfig()
    return replace(run, initial=initial, **_shared(config, run, config.clip_epochs))


def _shared(config: AlternateConfig, run: RunConfig, epochs: float) -> dict[str, Any]:
    """What all stages have alike: the data, every split that is not trained on to measure, and the lengths."""
    names = split_names(config.data)
    own = config.split or ("train" if "train" in names else None)
    splits = tuple(name for name in names if own is not None and name != own)
    return {
        "data": replace(run.data, path=str(config.data), split=own),
        "eval": replace(run.eval, splits=splits, curve_splits=splits[:1]),
        "epochs": epochs or run.epochs,
        "batch_size": config.batch_size or run.batch_size,
        "seed": config.seed,
    }
