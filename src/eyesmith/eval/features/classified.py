"""A classifier on labelled images: logits of a source, and top-1 and top-5 with their intervals."""

import os
from collections.abc import Callable, Sequence

import torch

from eyesmith.data.labelled import known_part
from eyesmith.data.sample import Source
from eyesmith.data.sources import open_source, split_names
from eyesmith.errors import DataError
from eyesmith.eval.features.batches import pixel_batches
from eyesmith.eval.features.identity import content_hash, decoders, model_facts
from eyesmith.eval.features.images import Answers, answers, own_rows
from eyesmith.eval.results.rows import ResultRow
from eyesmith.eval.statistics.metrics import target_ranks, wilson_interval
from eyesmith.models.classifier import Classifier
from eyesmith.train.distributed import World

TASK = "classification"


def class_logits(
    classifier: Classifier,
    source: Source,
    *,
    batch_size: int = 64,
    num_workers: int = 4,
    max_broken_frac: float = 0.01,
    advance: Callable[[int], None] | None = None,
    world: World | None = None,
) -> Answers:
    """The logits [N, K] fp32 of every readable image of `source`; parameters and errors as of `answers`."""
    rows = own_rows(len(source), batch_size, world or World())
    batches = pixel_batches(source, classifier.preprocess, rows, batch_size=batch_size, num_workers=num_workers)
    return answers(
        source,
        batches,
        lambda pixels: classifier.logits(pixels, batch_size=batch_size),
        world=world,
        max_broken_frac=max_broken_frac,
        advance=advance,
    )


def accuracy_rows(
    classifier: Classifier,
    source: Source,
    split: str,
    *,
    model_name: str,
    batch_size: int = 64,
    num_workers: int = 4,
    model_source: str | None = None,
    world: World | None = None,
) -> list[ResultRow]:
    """Top-1 and, with more than five classes, top-5 on a labelled source, with Wilson's 95 % intervals.

    source: its labels are the classifier's. model_source: where the model comes from, for the lines, which all say what
    was measured. world: processes that share the images. Equal logits: the lowest class wins.
    """
    found = class_logits(classifier, source, batch_size=batch_size, num_workers=num_workers, world=world)
    assert source.labels is not None
    labels = source.labels
    ranks = target_ranks(found.rows, torch.tensor([labels[index] for index in found.indices]))
    run = {"source": model_source, **model_facts(classifier, classifier.preprocess), "decoders": decoders()}
    run |= {"precision": "fp32", "wording": None, "limit": None, "data": content_hash(source)}
    run["samples"] = source.fingerprint()
    rows = []
    for name, k in (("acc1", 1), ("acc5", 5)):
        if k >= classifier.embed_dim:
            continue
        hits = int((ranks < k).sum())
        low, high = wilson_interval(hits, len(ranks))
        rows.append(
            ResultRow(
                model=model_name,
                task=TASK,
                split=split,
                metric=name,
                value=hits / len(ranks),
                low=low,
                high=high,
                n=len(ranks),
                chance=k / classifier.embed_dim,
                run=run,
            )
        )
    return rows


def split_rows(
    classifier: Classifier,
    path: str | os.PathLike[str],
    splits: Sequence[str],
    *,
    batch_size: int = 64,
    model_source: str | None = None,
    note: Callable[[str], None] = lambda message: None,
) -> list[ResultRow]:
    """`accuracy_rows` of splits of a data set, all but train where none is named. Classes are known by name.

    note: told which images are left out because the classifier does not know their class. Raises DataError for a split
    that is not there, or when there is nothing to measure.
    """
    rows: list[ResultRow] = []
    known = split_names(path)
    for split in splits or [name for name in known if name != "train"]:
        source = open_source(path, split=split, require_text=False)
        notes: list[str] = []
        part = known_part(source, classifier.classes, notes)
        for line in notes:
            note(line)
        if part is not None:
            name = classifier.config.name
            rows += accuracy_rows(
                classifier, part, split, model_name=name, batch_size=batch_size, model_source=model_source
            )
    if not rows:
        raise DataError(f"{path}: has no images of the classifier's {len(classifier.classes)} classes to measure on")
    return rows
