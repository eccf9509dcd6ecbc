"""From result files to the leaderboard's two files: the page, and a CSV beside it."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.eval.results import ModelResults, read_result_folder, read_results
from eyesmith.eval.results.datacomp import EVAL_RESULTS_FILE
from eyesmith.files import write_atomic
from eyesmith.report.leaderboard.board import Board, make_board
from eyesmith.report.leaderboard.page import render_leaderboard
from eyesmith.report.leaderboard.table_csv import render_csv
from eyesmith.report.leaderboard.worst import WorstClass, read_predictions, worst_classes
from eyesmith.report.run_log import read_log

if TYPE_CHECKING:
    from eyesmith.models.clip import ClipConfig

PAGE_FILE = "leaderboard.html"
TASKS_SHOWN = 12  # tasks of a model whose worst classes are shown: those with the lowest recall


def write_leaderboard(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] = PAGE_FILE,
    *,
    data: str | os.PathLike[str] | None = None,
    compare: Sequence[str] = (),
    with_published: bool = True,
) -> Board:
    """Read result files and folders, write the page to `out` and a CSV of the same name, and return what they show.

    data: the root of the evaluation sets, for names and pictures of the worst classes. compare: two models' names, for
    the task-by-task chart. Raises DataError for a path without results, ConfigError for a model that is not there.
    """
    target = Path(out)
    if target.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{target}: the page is HTML; give a name that ends in .html")
    if len(compare) not in (0, 2):
        raise ConfigError(f"compare: expected two models, got {len(compare)}")
    models = [_with_costs(model) for model in read_results(paths)]
    board = make_board(models, with_published=with_published)
    known = [entry.label for one in board.suites for entry in one.entries if entry.tasks]
    for name in compare:
        if name not in known:
            raise ConfigError(f"compare: no model {name!r} with tasks; there are: {', '.join(dict.fromkeys(known))}")
    worst = {model.line: _worst(model, data) for model in models if _has_predictions(model, models)}
    write_atomic(target, render_leaderboard(board, compare=compare, worst=worst))
    write_atomic(target.with_suffix(".csv"), render_csv(board))
    return board


def _with_costs(model: ModelResults) -> ModelResults:
    """Sizes, multiply-adds (by the ViTamin paper's count, as its table) and samples seen, where they are at hand.

    Of a run folder from its config and log, of another model from its name, if that is one of ours. Facts of the
    result files themselves stand before them.
    """
    folder = _run_of(model)
    config = None if {"gmacs", "image_gmacs"} & set(model.facts) else _config(folder, model.model)
    facts: dict[str, float | str] = {}
    seen = None if folder is None else read_log(folder).samples
    if seen:
        facts["samples_b"] = seen / 1e9
    if config is not None:
        from eyesmith.models.cost import model_cost

        cost = model_cost(config)
        facts["image_px"] = float(cost.image_size[0])
        for tower, found in (("image", cost.image and cost.image.tower), ("text", cost.text)):
            if found is not None:
                facts |= {f"{tower}_params_m": found.params / 1e6, f"{tower}_gmacs": found.macs_paper / 1e9}
    return replace(model, facts=facts | dict(model.facts)) if facts else model


def _run_of(model: ModelResults) -> Path | None:
    """The run folder that holds a model's results and is its own: in it lie those of others too, measured into it."""
    from eyesmith.hub.run_folder import CONFIG_FILE

    beside = Path(model.source).parent
    folder = next((place for place in (beside, beside.parent) if (place / CONFIG_FILE).is_file()), None)  # or RUN/eval
    # by its name alone, as a run may have been moved since
    is_own = folder is not None and folder.resolve().name in Path(model.home).parts[-2:]
    return folder if is_own else None


def _config(folder: Path | None, name: str) -> "ClipConfig | None":
    """The model's config: of its run folder, else by its name; None where there is neither."""
    from eyesmith.config import from_dict
    from eyesmith.hub.run_folder import read_config
    from eyesmith.models.clip import ClipConfig
    from eyesmith.models.registry import config, list_models

    if folder is not None:
        try:
            return from_dict(ClipConfig, read_config(folder)["model"])
        except (ConfigError, CheckpointError, KeyError, TypeError):  # another program's file of that name
            return None
    return config(name) if name in list_models() else None


def _has_predictions(model: ModelResults, models: Sequence[ModelResults]) -> bool:
    """Whether the prediction files beside a model's results are its own: of several models in one folder they are of
    that of eval_results.jsonl, which holds one alone."""
    folder = Path(model.source).parent
    is_shared = sum(Path(one.source).parent == folder for one in models) > 1
    return not is_shared or ((folder / EVAL_RESULTS_FILE).is_file() and read_result_folder(folder).is_same(model))


def _worst(model: ModelResults, data: str | os.PathLike[str] | None) -> list[WorstClass]:
    """The worst classes of the tasks with the lowest accuracy among those with prediction files."""
    files = read_predictions(Path(model.source).parent)
    files.sort(key=lambda one: float((one.ranks == 0).mean()) if len(one.ranks) else 1.0)
    return [found for one in files[:TASKS_SHOWN] for found in worst_classes(one, data=data)]
