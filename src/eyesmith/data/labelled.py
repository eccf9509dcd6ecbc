"""Labelled images to train a classifier on, and others to measure it on, out of one path."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eyesmith.data.class_folders import SPLIT_FOLDERS
from eyesmith.data.evaluation.imagenet import is_wordnet_id, wordnet_ids
from eyesmith.data.evaluation.own import open_own_table
from eyesmith.data.part import PartOf
from eyesmith.data.sample import Source
from eyesmith.data.sources import open_source, split_names
from eyesmith.data.table_rows import TABLE_EXTENSIONS
from eyesmith.errors import ConfigError, DataError

TRAIN, HELD_OUT = "train", "val"
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class LabelledSets:
    """train: what is trained on; tests: what is measured, by split; classes: names by label, the same in all of them.

    notes: what was left out, in words.
    """

    train: Source
    tests: dict[str, Source]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def open_labelled(path: str | os.PathLike[str], *, split: str | None = None, val_frac: float = 0.1) -> LabelledSets:
    """Class folders, folders of them called train, val and test, a made data set, tar shards or a table with labels.

    Where there are splits, `split` is trained on ("train" where None) and the others are measured: their classes are
    known by name, and images of classes that training has not are left out. Without splits a part of each class is
    held out by a fixed rule: of its n images the round(val_frac * n) (at least one, where n is 2 or more) whose keys
    have the lowest SHA-256, so that it depends on the names alone. The split is then called val.
    Raises DataError for data without labels or with fewer than two classes, ConfigError for another val_frac than 0..1.
    """
    if not 0 <= val_frac < 1:
        raise ConfigError(f"val_frac: expected 0 <= share < 1, got {val_frac}")
    place = Path(path)
    names = _splits(place)
    if not names:
        if split is not None:
            raise DataError(f"{place}: has no splits, but the split {split!r} was asked for; leave it out")
        return _cut(_whole(place), val_frac)
    chosen = split or TRAIN
    if chosen not in names:
        raise DataError(
            f"{place}: no split {chosen!r} to train on; it has: {', '.join(names)}; set data.split to one of them"
        )
    train = open_source(place, split=chosen, require_text=False)
    labels, all_names = _labels(train)
    classes, new = _present(labels, all_names, train.name)
    notes: list[str] = []
    tests: dict[str, Source] = {}
    for name in names:
        if name != chosen:
            found = known_part(open_source(place, split=name, require_text=False), classes, notes)
            if found is not None:
                tests[name] = found
    kept = PartOf(train, range(len(train)), labelled=([new[label] for label in labels], classes))
    return LabelledSets(train=kept, tests=tests, classes=classes, notes=tuple(notes))


def held_out(keys: Sequence[str], labels: Sequence[int], val_frac: float) -> set[int]:
    """The places that `open_labelled` holds out, by its fixed rule."""
    members: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        members.setdefault(label, []).append(place)
    chosen: set[int] = set()
    for places in members.values():
        count = max(1, round(val_frac * len(places))) if val_frac and len(places) > 1 else 0
        ordered = sorted(
            places, key=lambda place: (hashlib.sha256(keys[place].encode(errors="surrogatepass")).digest(), place)
        )
        chosen.update(ordered[: min(count, len(places) - 1)])
    return chosen


def _splits(place: Path) -> list[str]:
    """Splits of a made data set or of shards, or class folders one level down; [] where there are none."""
    if not place.is_dir():
        return []
    if known := split_names(place):
        return known
    folders = [entry.name for entry in sorted(place.iterdir()) if entry.is_dir() and entry.name[0] != "."]
    if TRAIN not in folders or set(folders) - set(SPLIT_FOLDERS):
        return []
    has_classes = any(entry.is_dir() and entry.name[0] != "." for entry in (place / TRAIN).iterdir())
    return folders if has_classes else []


def _whole(place: Path) -> Source:
    if place.is_file() and place.suffix.lower() in TABLE_EXTENSIONS:
        return open_own_table(place, is_strict=False).source
    return open_source(place, require_text=False)


def _cut(source: Source, val_frac: float) -> LabelledSets:
    labels, all_names = _labels(source)
    classes, new = _present(labels, all_names, source.name)
    own = [new[label] for label in labels]
    out = held_out(source.keys, own, val_frac)
    parts: dict[str, Source] = {}
    for name, is_out in ((TRAIN, False), (HELD_OUT, True)):
        indices = [place for place in range(len(source)) if (place in out) == is_out]
        if indices:
            labelled = [own[i] for i in indices], classes
            parts[name] = PartOf(source, indices, labelled=labelled, name=f"{source.name}/{name}")
    alone = [classes[label] for label, count in Counter(own).items() if count == 1]
    notes = []
    if val_frac and alone:
        notes.append(
            f"{source.name}: {len(alone)} classes have one image only, which is trained on: {', '.join(alone[:_SHOWN])}"
        )
    train = parts.pop(TRAIN)
    return LabelledSets(train=train, tests=parts, classes=classes, notes=tuple(notes))


def _labels(source: Source) -> tuple[list[int], tuple[str, ...]]:
    if source.labels is None or source.classes is None:
        raise DataError(
            f"{source.name}: has no labels to train on; expected one folder for each class, a table with a column "
            "`label`, or a data set with labels"
        )
    return source.labels, tuple(source.classes)


def _present(labels: Sequence[int], names: tuple[str, ...], where: str) -> tuple[tuple[str, ...], dict[int, int]]:
    """Names of the classes that have images, and the new label of each old one."""
    old = sorted(set(labels))
    if len(old) < 2:
        raise DataError(f"{where}: only one class has images; a classifier needs two or more")
    classes = tuple(names[label] for label in old)
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise DataError(f"{where}: two classes are called {twice[0]!r}; give them different names")
    return classes, {label: place for place, label in enumerate(old)}


def known_part(source: Source, classes: Sequence[str], notes: list[str]) -> Source | None:
    """The images of `source` whose class is one of `classes`, labelled by them; None where there is none.

    Where `source` calls its classes by WordNet ids, and `classes` are a published classifier's, they are known by
    those. notes: gets a line about those that are left out.
    """
    labels, names = _labels(source)
    known = classes
    if all(map(is_wordnet_id, names)):
        known = wordnet_ids(classes) or classes
    place_of = {name: place for place, name in enumerate(known)}
    kept = [index for index, label in enumerate(labels) if names[label] in place_of]
    unknown = [names[label] for label in sorted(set(labels)) if names[label] not in place_of]
    if unknown:
        notes.append(
            f"{source.name}: {len(labels) - len(kept):,} images of {len(unknown)} classes that are not trained are "
            f"left out ({', '.join(unknown[:_SHOWN])}{' ...' if len(unknown) > _SHOWN else ''})"
        )
    if not kept:
        notes.append(f"{source.name}: has none of the trained classes, it is not measured")
        return None
    own = [place_of[names[labels[i]]] for i in kept]
    return PartOf(source, kept, labelled=(own, tuple(classes)))
