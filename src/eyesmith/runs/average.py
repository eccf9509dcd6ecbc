"""Averages of trained models, chosen by what they reach on data, as a folder that `eyesmith.load` opens."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.eval import evaluate
from eyesmith.hub import save_model
from eyesmith.hub.average import greedy_soup, soup, wise_ft
from eyesmith.hub.load import build_stored
from eyesmith.hub.stored import Stored, read_stored
from eyesmith.models.clip import Clip, ClipConfig

Method = Literal["uniform", "greedy", "wise_ft"]
_SCORED = (("zero_shot", "acc1"), ("retrieval", "image_retrieval_recall@1"))  # the first that a data set can carry


@dataclass(frozen=True, kw_only=True)
class Tried:
    """An average that was measured: what is in it, in words, and its score, a fraction."""

    average: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Averaged:
    """What was written to `folder`: in words, its score where data were given, and all that was tried."""

    folder: Path
    average: str
    score: float | None
    tried: tuple[Tried, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "folder": str(self.folder)}


def average(
    sources: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    method: Method = "uniform",
    alphas: Sequence[float] = (0.5,),
    data: Sequence[str | os.PathLike[str]] = (),
    splits: Sequence[str] = (),
    note: Callable[[str], None] | None = None,
) -> Averaged:
    """Average models into `folder`.

    sources: run folders, weight files or hub ids of one architecture. method: uniform, the mean of all; greedy, the
    mean of those that help on `data`, best first; wise_ft, of two (before, after fine-tuning) the point between them
    at the alpha, of several alphas the best on `data`. data: labelled or captioned sets; the score is the mean of
    their zero-shot top-1 (retrieval R@1 without labels) over their splits (`splits`; all but train).
    Raises ConfigError for settings that do not fit together or a folder that is not empty, and as `eyesmith.load` does.
    """
    root = Path(folder)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ConfigError(f"{root}: is not empty; choose another folder")
    _check(sources, method, alphas, data)
    models = [_read(source) for source in sources]
    names = [os.fspath(source) for source in sources]
    tried: list[Tried] = []

    def score(model: Stored, words: str) -> float:
        value = _score(model, data, splits, note)
        tried.append(Tried(average=words, score=value))
        return value

    if method == "uniform":
        made, words = soup(models), "mean of " + ", ".join(names)
        value = score(made, words) if data else None
    elif method == "greedy":
        found = greedy_soup(models, lambda model: score(model, model.where))
        made, value = found.model, found.score
        words = "mean of " + ", ".join(names[index] for index in found.chosen)
    else:
        points = [(wise_ft(models[0], models[1], alpha), f"{names[0]} to {names[1]} at {alpha:g}") for alpha in alphas]
        scores = [score(model, words) for model, words in points] if data else [0.0]
        best = scores.index(max(scores))
        (made, words), value = points[best], scores[best] if data else None
    clip = cast(Clip, build_stored(made))
    save_model(root, clip, config={"averaged": {"method": method, "average": words, "score": value}})
    return Averaged(folder=root, average=words, score=value, tried=tuple(tried))


def _check(sources: Sequence[Any], method: Method, alphas: Sequence[float], data: Sequence[Any]) -> None:
    if len(sources) < 2:
        raise ConfigError(f"sources: expected 2 or more models to average, got {len(sources)}")
    if method == "wise_ft" and len(sources) != 2:
        raise ConfigError(f"wise_ft: expected 2 models, before and after fine-tuning, got {len(sources)}")
    if method == "greedy" and not data:
        raise ConfigError("greedy: needs data to choose by; give it a set that is not the test set")
    if method == "wise_ft" and (not alphas or (len(alphas) > 1 and not data)):
        raise ConfigError("alpha: expected one, or several and data to choose by")


def _read(source: str | os.PathLike[str]) -> Stored:
    stored = read_stored(source)
    if not isinstance(stored.config, ClipConfig):
        raise CheckpointError(f"{os.fspath(source)}: holds an image encoder without a text tower; both are needed")
    return stored


def _score(
    model: Stored,
    data: Sequence[str | os.PathLike[str]],
    splits: Sequence[str],
    note: Callable[[str], None] | None,
) -> float:
    clip = cast(Clip, build_stored(model))
    scores = []
    for path in data:
        rows = evaluate(clip, path, splits or None, note=note)
        for task, metric in _SCORED:
            values = [row.value for row in rows if (row.task, row.metric) == (task, metric)]
            if values:
                scores.append(sum(values) / len(values))
                break
        else:
            raise ConfigError(f"{os.fspath(path)}: gives neither zero-shot top-1 nor retrieval R@1 to choose by")
    return sum(scores) / len(scores)
