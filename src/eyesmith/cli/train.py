"""`eyesmith train`: a recipe with some fields changed, into a run folder that is a model."""

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from eyesmith.cli.dispatch import suggestion
from eyesmith.cli.failures import on_interrupt
from eyesmith.cli.numbers import check_place
from eyesmith.cli.overrides import parse_config
from eyesmith.cli.tasks import take_tasks
from eyesmith.errors import ConfigError


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments: the recipe's name or --task, --out, --from, --plan, fields of its config."""
    from eyesmith.recipes import FAMILIES, RECIPES
    from eyesmith.tasks.registry import default_config, task_name

    argv, tasks = take_tasks(argv)
    if tasks:  # a file of the user's own stands for the recipe
        name, words = task_name(tasks[-1]), argv
        base = default_config(tasks[-1])
    else:
        if not argv or argv[0] in ("-h", "--help"):
            print(_overview(FAMILIES, prog))
            return 0 if argv else 2
        name, *words = argv
        if name not in RECIPES:
            raise ConfigError(f"unknown recipe {name!r}{suggestion(name, RECIPES)}; `{prog} --help` shows them all")
        base = RECIPES[name]()
    given, words = _take_own(words)
    if "from" in given and "encoder" in given:
        raise ConfigError("--encoder: --from brings its own encoder; leave one of them out")
    if "from" in given:
        from eyesmith.tasks import task_of

        base = task_of(base).from_weights(base, given["from"])
    if "encoder" in given:
        base = _with_encoder(base, given["encoder"])
    own = ("out", "from", "encoder", "plan", "json")
    plan_words = [f"{field}={value}" for field, value in given.items() if field not in own]
    config = parse_config(base, words, prog=f"{prog} {name}")
    if "plan" in given:
        from eyesmith.cli.plan import show_plan
        from eyesmith.runs.plan import Cluster

        cluster = parse_config(Cluster(), plan_words, prog=f"{prog} {name} --plan")
        return show_plan(config, cluster, as_json="json" in given)
    if "json" in given or plan_words:
        raise ConfigError(f"--json and --plan.FIELD go with --plan: `{prog} {name} --plan ...`")
    out = Path(given.get("out", f"runs/{name}"))
    check_place("out", out, "folder")
    if name == "debug" and config.data == base.data and not Path(base.data.path).exists():
        _draw_scenes(Path(base.data.path))
    return train(config, out)


def train(config: Any, out: Path) -> int:
    """Train `config` into the run folder `out`, or go on with it there, and show what it reached."""
    from eyesmith.cli.output import show_run
    from eyesmith.runs.folder import CONFIG_FILE
    from eyesmith.runs.train import start_or_resume

    with on_interrupt(f"go on with `eyesmith resume {out}`", begun=out / CONFIG_FILE):
        show_run(lambda console: start_or_resume(config, out, console=console))
    return 0


def _with_encoder(config: Any, given: str) -> Any:
    """The run with another image encoder from random weights: a model's, or one of the lab's; NAME or NAME@PIXELS.

    Raises ConfigError for an unknown name and for a size that the encoder cannot have.
    """
    from eyesmith.lab.encoders import ENCODER_NAMES, contender
    from eyesmith.models.clip import ClipConfig
    from eyesmith.models.registry import config as model_config
    from eyesmith.models.registry import list_models

    name, at, pixels = given.partition("@")
    is_pair = isinstance(config.model, ClipConfig)
    old = config.model.image if is_pair else config.model
    height, width = old.image_size
    known = (*ENCODER_NAMES, *list_models())
    if name not in known and not name.startswith(("timm:", "open_clip:")):
        raise ConfigError(
            f"--encoder: there is no {name!r}{suggestion(name, known)}; there are {', '.join(ENCODER_NAMES[:5])} ..., "
            "timm:NAME, open_clip:NAME, and what `eyesmith models` lists"
        )
    if at:
        if not pixels.isdecimal() or not is_pair:
            raise ConfigError(
                f"--encoder {given}: after @ stands the side of its pictures in pixels, in a run of an image-text model"
            )
        height = width = int(pixels)
    if name in list_models():
        image = replace(model_config(name).image, image_size=(height, width))
    elif height == width:
        image = contender(name, "nano", image_px=height).image
    else:
        raise ConfigError(f"--encoder {name}: takes square pictures, and this recipe has {height} x {width}")
    image = replace(image, embed_dim=old.embed_dim)
    if hasattr(image, "drop_path_prob") and hasattr(old, "drop_path_prob"):  # how it is trained is the recipe's
        image = replace(image, drop_path_prob=old.drop_path_prob)
    if not is_pair:
        return replace(config, model=image)
    preprocess = replace(config.model.preprocess, image_size=(height, width))
    transform = config.transform and replace(config.transform, image_size=(height, width))
    pair = replace(config.model, name=name, image=image, preprocess=preprocess)
    return replace(config, model=pair, transform=transform)


def _draw_scenes(folder: Path) -> None:
    """What the debug recipe trains on, where it is not there yet."""
    from eyesmith.cli.output import say
    from eyesmith.data.make.scenes import make_scenes

    say(f"{folder}: drawn first, as `eyesmith data make scenes {folder}` does")
    make_scenes(folder)


def _take_own(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """What belongs to the command and not to the recipe, by name, and the other words.

    --out FOLDER, --from WEIGHTS, --encoder NAME, --plan, --json, and --plan.FIELD VALUE by FIELD; each with = too,
    out and plan.FIELD also without dashes.
    """
    given: dict[str, str] = {}
    rest: list[str] = []
    pending = iter(words)
    for word in pending:
        found = re.fullmatch(
            r"(?:--(out|from|encoder|plan|json|plan\.\w+)|(out|plan\.\w+)(?==))(?:=(.*))?", word, re.DOTALL
        )
        if found is None:
            rest.append(word)
            continue
        name, value = found[1] or found[2], found[3]
        if name in ("plan", "json"):
            given[name] = ""
            continue
        value = next(pending, "") if value is None else value
        if not value:
            raise ConfigError(f"--{name}: expected a value")
        given[name.removeprefix("plan.")] = value
    return given, rest


def _overview(families: Mapping[str, Mapping[str, Callable[[], Any]]], prog: str) -> str:
    lines = [f"usage: {prog} RECIPE [--out RUN] [--from WEIGHTS] [field=value ...]", f"       {prog} RECIPE --plan"]
    for title, recipes in families.items():
        lines += ["", f"{title}:"]
        if any(isinstance(make, partial) for make in recipes.values()):
            lines += textwrap.wrap(
                "  ".join(recipes), 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
            )
            continue
        width = max(map(len, recipes))
        lines += [
            f"  {name:{width}}  {(inspect.getdoc(make) or '').partition(chr(10))[0]}" for name, make in recipes.items()
        ]
    lines += [
        "",
        "--task FILE      in place of a recipe: a task of your own, with its defaults (docs/own-training-task.md)",
        "--out RUN        the folder to write, runs/RECIPE where not given; the same run, unfinished there, goes on",
        "--from WEIGHTS   start from a run folder, a weight file or hf:owner/name, with the model they are of",
        "--encoder NAME   another image encoder from random weights: a model's name, or ViT/16, ConvNeXt, timm:NAME;",
        "                 NAME@64 for pictures of 64 pixels",
        "--plan           print what the run would be, and cost, without running: parameters, steps, rates, memory,",
        "                 GPU-hours; --plan.gpus, --plan.mfu, --plan.peak_tflops, --plan.gpu_memory_gib; --json",
        "",
        f"`{prog} RECIPE --help` shows every field with its default.",
    ]
    return "\n".join(lines)
