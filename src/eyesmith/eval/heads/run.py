"""Probes of one model on one pair of data sets: several numbers of shots from features encoded once."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eyesmith.config import closest
from eyesmith.errors import ConfigError
from eyesmith.eval.features.identity import WHY, decoders, facts_hash, model_facts
from eyesmith.eval.heads.data import choose_splits, feature_store, read_labelled, zero_shot_head
from eyesmith.eval.heads.probe import HeadName, Labelled, ProbeResult, align, probe, shared_samples
from eyesmith.eval.heads.rows import probe_rows, write_probe_predictions
from eyesmith.eval.results.rows import append_rows
from eyesmith.files import cache_folder
from eyesmith.models.clip import Clip
from eyesmith.models.encoder import Encoder

FEW_SHOTS = (1, 2, 4, 8, 16)
_HEADS: dict[str, HeadName] = {"linear": "linear", "few-shot": "linear", "gaussian": "gaussian"}


@dataclass(frozen=True, kw_only=True)
class ProbePlan:
    """What `eyesmith probe` is asked for; its options."""

    train: str
    """The images to train on: a folder of class folders, a made data set, tar shards."""
    test: str | None = None
    """The images to measure on; the test split of --train when absent."""
    train_split: str | None = None
    """The split to train on; train where the data have splits."""
    test_split: str | None = None
    """The split to measure on; test where the data have splits."""
    head: Literal["linear", "few-shot", "gaussian", "scenes", "segment"] = "linear"
    """Logistic regression on all images or on --shots (linear); on 1, 2, 4, 8 and 16 shots (few-shot); class means with
    one shared covariance, mixed with the zero-shot classifier (gaussian); a small network on the tokens that a language
    model would read, asked for the main thing of made scenes and how many things there are (scenes); the class of each
    pixel by a linear layer on the last map, of annotated pictures (segment)."""
    shots: tuple[int, ...] = ()
    """Training images per class; several numbers give several rows."""
    seeds: int = 3
    """Draws of the shots, averaged."""
    c: float | None = None
    """Inverse strength of L2, instead of a choice."""
    shrinkage: float | None = None
    """Of the covariance, 0 to 1, instead of a choice."""
    alpha: float | None = None
    """Weight of the Gaussian head beside zero-shot, instead of a choice."""
    side_px: int | None = None
    """Side of the square that the head segment fits pictures into; the model's own size when absent. Objects smaller
    than a cell of its map cannot be learnt: twice the side has cells of half the size."""
    zero_shot: bool = True
    """Whether the Gaussian head is mixed with zero-shot (a model with a text tower); --no-zero-shot leaves it alone."""
    batch_size: int = 64
    """Images that go through the model at once."""
    fresh: bool = False
    """Compute the features anew."""

    def __post_init__(self) -> None:
        heads = (*_HEADS, "scenes", "segment")
        if self.head not in heads:
            raise ConfigError(f"head: unknown {self.head!r}{closest(self.head, heads)}")
        if self.head == "scenes" and (self.shots or self.test is not None or self.c is not None):
            raise ConfigError("head scenes: reads the splits of --train; leave out test, shots and c")
        if self.head == "segment" and self.shots:
            raise ConfigError("head segment: learns from all pictures of --train; leave out shots")
        for name, least in (("seeds", 1), ("batch_size", 1), ("side_px", 1), ("shrinkage", 0), ("alpha", 0)):
            if (value := getattr(self, name)) is not None and not value >= least:
                raise ConfigError(f"{name}: expected at least {least}, got {value}")
        if self.head != "segment" and self.side_px is not None:
            raise ConfigError(f"side_px: has no meaning for the head {self.head!r}; leave it out")
        if self.shrinkage is not None and self.shrinkage > 1:
            raise ConfigError(f"shrinkage: expected 0 to 1, got {self.shrinkage}")
        if self.c is not None and not self.c > 0:
            raise ConfigError(f"c: expected above 0, got {self.c}")
        if any(shots < 1 for shots in self.shots) or len(set(self.shots)) != len(self.shots):
            raise ConfigError(f"shots: expected different numbers from 1 on, got {self.shots}")
        wrong = [n for n in ("shrinkage", "alpha") if getattr(self, n) is not None] if self.head != "gaussian" else []
        if self.head == "gaussian" and self.c is not None:
            wrong = ["c"]
        if wrong:
            raise ConfigError(f"{wrong[0]}: has no meaning for the head {self.head!r}; leave it out")


@dataclass(frozen=True, kw_only=True)
class ProbeLine:
    """One result, for a table or JSON."""

    result: ProbeResult
    num_classes: int

    def as_dict(self) -> dict[str, Any]:
        """Everything but the logits."""
        fits = [
            {
                "seed": fit.seed,
                "settings": {name: _finite(value) for name, value in fit.settings.items()},
                "validation": fit.validation,
            }
            for fit in self.result.fits
        ]
        spans = {
            name: dict(zip(("value", "low", "high"), span, strict=True)) for name, span in self.result.metrics.items()
        }
        facts = {"head": self.result.head, "shots": self.result.shots or None, "n": self.result.n}
        return {**facts, "chance": 1 / self.num_classes, "metrics": spans, "fits": fits}

    def cells(self) -> tuple[str, ...]:
        """head, shots, top-1, its interval, mean per-class recall, settings, validation accuracy, n, chance."""
        value, low, high = self.result.metrics["acc1"]
        first = self.result.fits[0]
        chosen = ", ".join(f"{name} {value:g}" for name, value in first.settings.items())
        more = f" (seed {first.seed} of {len(self.result.fits)})" if len(self.result.fits) > 1 else ""
        return (
            self.result.head,
            str(self.result.shots or "all"),
            f"{value:.1%}",
            f"{100 * low:.1f} to {100 * high:.1f}",
            f"{self.result.metrics['mean_per_class_recall'][0]:.1%}",
            chosen + more,
            "" if first.validation is None else f"{first.validation:.1%}",
            f"{self.result.n:,}",
            f"{1 / self.num_classes:.1%}",
        )


def run_probes(
    model: Clip | Encoder,
    plan: ProbePlan,
    *,
    model_name: str,
    cache: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    note: Callable[[str], None] = lambda message: None,
) -> list[ProbeLine]:
    """Encode both data sets (or take their features from the cache folder), then fit and measure each head.

    out: a folder that gets results.jsonl and predictions/, one file a head and number of shots. note: is told about
    left out images, pictures that are in both sets, and the like.
    """
    first, second = choose_splits(plan.train, plan.test, plan.train_split, plan.test_split)
    home = Path(cache) if cache is not None else cache_folder() / "eval"  # where `eyesmith eval` keeps them too
    store = feature_store(model, home / "images", batch_size=plan.batch_size, fresh=plan.fresh)
    train = read_labelled(store, first[0], split=first[1], note=note)
    test = read_labelled(store, second[0], split=second[1], note=note)
    align(test, train)  # refuse what cannot be measured before anything is fitted
    _warn_of_shared(train, test, note)
    if store.reused:
        note(f"image features reused because {WHY}: {', '.join(store.reused)}; --fresh computes them anew")
    classifier = None
    if plan.head == "gaussian" and plan.zero_shot:
        if isinstance(model, Clip):
            classifier = zero_shot_head(model, train, first[0])
        else:
            note("the model has no text tower: the Gaussian head is not mixed with zero-shot")
            if plan.alpha is not None:
                raise ConfigError("alpha: weighs the Gaussian head beside zero-shot, and this model has no text tower")
    found = []
    for shots in plan.shots or (FEW_SHOTS if plan.head == "few-shot" else (0,)):
        result = probe(
            train,
            test,
            head=_HEADS[plan.head],
            shots=shots,
            seeds=range(plan.seeds if shots else 1),
            zero_shot=classifier,
            c=plan.c,
            shrinkage=plan.shrinkage,
            alpha=plan.alpha,
            device=store.clip.logit_scale.device,
        )
        found.append(ProbeLine(result=result, num_classes=len(train.names)))
        if out is not None:
            write_probe_predictions(out, result, train, test)
    if out is not None:
        tower = store.clip
        run = {
            "source": model_name,
            **model_facts(tower.image, tower.preprocess),
            "decoders": decoders(),
            "data": test.samples,
            "learnt_from": {"data": train.samples, "seeds": plan.seeds},
            "given": {name: getattr(plan, name) for name in ("c", "shrinkage", "alpha", "zero_shot")},
            "samples": facts_hash([train.samples, test.samples]),  # what was learnt is another thing with other images
        }
        rows = [
            row
            for one in found
            for row in probe_rows(one.result, train, model_name=model_name, split=second[1] or "all", run=run)
        ]
        append_rows(Path(out) / "results.jsonl", rows)
    return found


def _warn_of_shared(train: Labelled, test: Labelled, note: Callable[[str], None]) -> None:
    if both := shared_samples(train, test):
        note(
            f"{len(both)} of {len(test.keys)} test images have the features of a training image (first: "
            f"{both[0][1]} and {both[0][0]}): most likely the same picture, and then the result is too good"
        )


def _finite(value: float) -> float | str:
    return "inf" if value == float("inf") else value
