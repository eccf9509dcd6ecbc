"""Which eye a language model sees best with: one language model, several eyes, the same data in the same order.

For each seed there is a run with each eye, and one that is shown nothing at equal cost. Their questions are the same,
so differences are paired: by question within a seed, pictures drawn anew.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from eyesmith.errors import ConfigError, DataError
from eyesmith.hub.initial import load_image
from eyesmith.hub.run_folder import read_config
from eyesmith.models.identity import weights_hash
from eyesmith.multimodal.measure import ANSWERS_FILE
from eyesmith.runs.origin import Origin
from eyesmith.runs.train import start_or_resume
from eyesmith.tasks.chat import ChatConfig
from eyesmith.train.config import DataConfig

BLIND = "blind"
_REPLICATES = 2000
_ASKED = ("picture", "kind", "question", "answer")


@dataclass(frozen=True, kw_only=True)
class EyeScore:
    """One eye, all seeds. macro: the mean over kinds of questions, of seeds; each: by seed; kinds: by kind.

    gain: over the blind run of the same seed, with a 95 % interval; wrong: macro where each question is asked about
    another picture; tokens: that a picture becomes; behind: the best eye's macro minus this one's, with its interval.
    """

    name: str
    macro: float
    each: tuple[float, ...]
    kinds: Mapping[str, float]
    gain: tuple[float, float, float]
    wrong: float
    behind: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class VlmResult:
    """eyes: best first. blind: macro of the runs that saw nothing, by seed; questions: of a run."""

    eyes: tuple[EyeScore, ...]
    blind: tuple[float, ...]
    kinds: tuple[str, ...]
    questions: int
    folder: Path


class Answers:
    """Right or wrong of every question of a run, by kind and picture: hits and asked, [K, P] each.

    questions: what was asked and what is right, sorted; equal where two runs can be paired.
    """

    def __init__(self, folder: Path, *, is_wrong: bool = False) -> None:
        lines = (folder / ANSWERS_FILE).read_text("utf-8").split("\n")
        records = [one for line in lines if line and (one := json.loads(line))["wrong_image"] == is_wrong]
        self.questions = sorted(str([one.get(name) for name in _ASKED]) for one in records)
        self.kinds = tuple(sorted({one["kind"] or "all" for one in records}))
        pictures = {picture: place for place, picture in enumerate(sorted({one["picture"] for one in records}))}
        self.hits, self.asked = (np.zeros((len(self.kinds), len(pictures))) for _ in range(2))
        for one in records:
            place = self.kinds.index(one["kind"] or "all"), pictures[one["picture"]]
            self.hits[place] += one["is_right"]
            self.asked[place] += 1

    @property
    def by_kind(self) -> np.ndarray:
        """[K] shares of right answers."""
        return self.hits.sum(1) / self.asked.sum(1)

    def drawn(self) -> np.ndarray:
        """[R] macro means with pictures drawn anew; the same draws for every run on the same pictures."""
        count = self.hits.shape[1]
        draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), _REPLICATES)
        with np.errstate(invalid="ignore"):
            return np.nanmean((draws @ self.hits.T) / (draws @ self.asked.T), axis=1)


def run_vlm(
    eyes: Mapping[str, str], base: ChatConfig, out: Path, seeds: Sequence[int], *, console: Console | None = None
) -> VlmResult:
    """Train what is not there yet, in out/NAME/seed-N, and compare. eyes: names and what `eyesmith.load` takes.

    base: everything but the eye and the seed; pictures become base.eye.grid tokens with every eye, or with (0, 0) as
    many as each eye has. Raises ConfigError for fewer than two eyes, or where nothing is measured; DataError where a
    run that is there had another eye, or other data.
    """
    if len(eyes) < 2 or not seeds:
        raise ConfigError(f"lab vlm: expected at least two eyes and one seed, got {len(eyes)} and {len(seeds)}")
    if len(set(seeds)) != len(seeds):
        raise ConfigError(f"lab vlm: seeds: expected each once, got {', '.join(map(str, seeds))}")
    if BLIND in eyes or not base.eval.splits:
        raise ConfigError(f"lab vlm: no eye can be called {BLIND}, and eval.splits must name what is measured")
    first = next(iter(eyes.values()))
    learnt: dict[Path, object] = {}
    for seed in seeds:
        for name, source in (*eyes.items(), (BLIND, first)):
            found = ChatConfig.from_eye(source, name=name, data=base.data)
            config = replace(
                base,
                name=name,
                model=found.model,
                preprocess=found.preprocess,
                initial=found.initial,
                seed=seed,
                blind=name == BLIND,
            )
            cell = _cell(out, name, seed)
            if start_or_resume(config, cell, console=console).was_finished:
                check_eye(cell, source)
            if (origin := Origin.read(cell)) is not None:
                learnt[cell] = origin.data
    _check_data(learnt)
    return compare(tuple(eyes), out, seeds)


def compare(names: Sequence[str], out: Path, seeds: Sequence[int]) -> VlmResult:
    """The result of runs that are done. Raises DataError where not all of them were asked the same questions."""
    runs = {name: [Answers(_cell(out, name, seed)) for seed in seeds] for name in (*names, BLIND)}
    first = runs[names[0]][0].questions
    for name, some in runs.items():
        for seed, run in zip(seeds, some, strict=True):
            if run.questions != first:
                raise DataError(
                    f"{_cell(out, name, seed)}: was asked other questions than {_cell(out, names[0], seeds[0])}, so "
                    "they cannot be compared; were the data made anew in between? Delete the older runs, or take "
                    "another --out"
                )
    drawn = {name: np.mean([run.drawn() for run in some], axis=0) for name, some in runs.items()}
    macros = {name: [float(run.by_kind.mean()) for run in some] for name, some in runs.items()}
    order = sorted(names, key=lambda name: -float(np.mean(macros[name])))
    best = order[0]

    def over(name: str, other: str) -> tuple[float, float, float]:
        low, high = np.percentile(drawn[name] - drawn[other], [2.5, 97.5])
        return float(np.mean(macros[name]) - np.mean(macros[other])), float(low), float(high)

    scores = []
    for name in order:
        wrong = [float(Answers(_cell(out, name, seed), is_wrong=True).by_kind.mean()) for seed in seeds]
        by_kind = np.mean([run.by_kind for run in runs[name]], axis=0)
        scores.append(
            EyeScore(
                name=name,
                macro=float(np.mean(macros[name])),
                each=tuple(macros[name]),
                kinds=dict(zip(runs[name][0].kinds, by_kind.tolist(), strict=True)),
                gain=over(name, BLIND),
                wrong=float(np.mean(wrong)),
                behind=over(best, name),
            )
        )
    one = runs[best][0]
    return VlmResult(
        eyes=tuple(scores), blind=tuple(macros[BLIND]), kinds=one.kinds, questions=int(one.asked.sum()), folder=out
    )


def _check_data(learnt: Mapping[Path, object]) -> None:
    """Raise DataError where runs that are to be compared learned from other data."""
    for cell, data in learnt.items():
        if data != (other := next(iter(learnt.items())))[1]:
            raise DataError(
                f"{cell}: learned from other data than {other[0]}, so they cannot be compared; were they made anew in "
                "between? Delete the older runs, or take another --out"
            )


def check_eye(run: Path, source: str) -> None:
    """Raise DataError where a finished run saw with another eye than lies at `source` now; one that is gone is none."""
    known = read_config(run)["model"].get("eye_hash")
    if known is None or not Path(source).exists():
        return
    eye = ChatConfig.from_eye(source, name="eye", data=DataConfig(path="")).model.build()
    load_image(eye, source)
    if weights_hash(eye) != known:
        raise DataError(
            f"{run}: was trained with another eye than {source} holds now, so its answers are not this one's; delete "
            "the folder to run it again, or take another --out"
        )


def _cell(out: Path, name: str, seed: int) -> Path:
    return out / name / f"seed-{seed}"
