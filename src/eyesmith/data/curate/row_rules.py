"""The rules that look at one sample at a time: each says which rows of a batch it keeps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eyesmith.data.curate.clusters import nearest_centroids, read_rows
from eyesmith.data.curate.languages import detector
from eyesmith.data.curate.near_images import NearFinder
from eyesmith.data.curate.plan import ClipRule, CurationPlan
from eyesmith.data.curate.pool import polars_module
from eyesmith.data.curate.uids import parse_uids
from eyesmith.data.curate.wordnet import WordNet, read_synset_ids
from eyesmith.errors import DataError

if TYPE_CHECKING:
    import polars

# Python's str.split() also splits at the four information separators, which are no white space to Unicode
_WORD = r"[^\s\x1c-\x1f]+"
_FASTTEXT_TOKEN = r"[^ \t\r\n\x0b\x0c\x00]+|\n"


@dataclass(frozen=True, slots=True)
class RowRule:
    """One rule, ready to run. columns, features: what it reads.

    keep: from a frame and its features (rows alike) to bool [rows]; adds: columns of scores it leaves in the record.
    """

    name: str
    columns: tuple[str, ...]
    features: tuple[str, ...]
    keep: Callable[["polars.DataFrame", dict[str, NDArray[np.floating]]], NDArray[np.bool_]]


def row_rules(plan: CurationPlan, columns: Sequence[str], clip_threshold: float) -> list[RowRule]:
    """The plan's rules over single samples, in order. columns: those of the pool. Files of the rules are read here."""
    makers = {
        "language": lambda: _language(plan, columns),
        "words": lambda: RowRule("words", (plan.text,), (), lambda frame, _: _counted(
            frame[plan.text], _WORD, plan.words.min_words, plan.words.min_chars)),
        "tokens": lambda: RowRule("tokens", (plan.text,), (), lambda frame, _: _counted(
            frame[plan.text], _FASTTEXT_TOKEN, plan.tokens.min_tokens, plan.tokens.min_chars)),
        "size": lambda: _size(plan),
        "clip": lambda: _clip(plan.clip, clip_threshold),
        "entities": lambda: _entities(plan),
        "clusters": lambda: _clusters(plan),
        "decontaminate": lambda: _decontaminate(plan),
    }  # fmt: skip
    return [makers[rule]() for rule in plan.rules if rule in makers]


def first_text(column: "polars.Series") -> "polars.Series":
    """A caption a row: of a list of captions the first; null is an empty one."""
    polars = polars_module()
    if isinstance(column.dtype, polars.List):
        column = column.list.first()
    return column.cast(polars.String).fill_null("")


def scores_of(frame: "polars.DataFrame", column: str) -> NDArray[np.floating]:
    """A column of scores in its own precision; null is NaN."""
    series = frame[column]
    if not series.dtype.is_float():
        series = series.cast(polars_module().Float64)
    return series.fill_null(float("nan")).to_numpy()


def _language(plan: CurationPlan, columns: Sequence[str]) -> RowRule:
    rule = plan.language
    if rule.column in columns:
        return RowRule(
            "language",
            (rule.column,),
            (),
            lambda frame, _: (frame[rule.column] == rule.keep).fill_null(False).to_numpy(),
        )
    detect = detector(rule.detector, rule.model)

    def keep(frame: "polars.DataFrame", _: Any) -> NDArray[np.bool_]:
        return np.array([one == rule.keep for one in detect(first_text(frame[plan.text]).to_list())], dtype=bool)

    return RowRule("language", (plan.text,), (), keep)


def _counted(column: "polars.Series", pattern: str, least: int, min_chars: int) -> NDArray[np.bool_]:
    text = first_text(column)
    return ((text.str.count_matches(pattern) >= least) & (text.str.len_chars() >= min_chars)).to_numpy()


def _size(plan: CurationPlan) -> RowRule:
    def keep(frame: "polars.DataFrame", _: Any) -> NDArray[np.bool_]:
        width, height = (
            frame[side].cast(polars_module().Float64).fill_null(0).to_numpy()
            for side in ("original_width", "original_height")
        )
        short, long = np.minimum(width, height), np.maximum(width, height)
        # a quotient, not a product: that is what the limit is compared with
        aspect = np.divide(long, short, out=np.full(len(long), np.inf), where=short > 0)
        return (short >= plan.size.min_px) & (aspect <= plan.size.max_aspect)

    return RowRule("size", ("original_width", "original_height"), (), keep)


def _clip(rule: ClipRule, threshold: float) -> RowRule:
    def keep(frame: "polars.DataFrame", _: Any) -> NDArray[np.bool_]:
        scores = scores_of(frame, rule.column)
        return scores >= scores.dtype.type(threshold)  # NaN is not

    return RowRule("clip", (rule.column,), (), keep)


def _entities(plan: CurationPlan) -> RowRule:
    words, ids = WordNet(plan.entities.wordnet), read_synset_ids(plan.entities.synsets)

    def keep(frame: "polars.DataFrame", _: Any) -> NDArray[np.bool_]:
        texts = first_text(frame[plan.text]).to_list()
        return np.array([any(words.first_offset(word) in ids for word in text.split()) for text in texts], dtype=bool)

    return RowRule("entities", (plan.text,), (), keep)


def _clusters(plan: CurationPlan) -> RowRule:
    rule = plan.clusters
    centroids, targets = read_rows(rule.centroids), read_rows(rule.targets)
    if centroids.shape[1] != targets.shape[1]:
        raise DataError(f"{rule.targets}: features of {targets.shape[1]} numbers, centroids have {centroids.shape[1]}")
    is_wanted = np.zeros(len(centroids), dtype=bool)
    is_wanted[nearest_centroids(targets, centroids, device=rule.device)] = True

    def keep(_: Any, features: dict[str, NDArray[np.floating]]) -> NDArray[np.bool_]:
        return is_wanted[nearest_centroids(features[rule.features], centroids, device=rule.device)]

    return RowRule("clusters", (), (rule.features,), keep)


def _decontaminate(plan: CurationPlan) -> RowRule:
    rule = plan.decontaminate
    finder = NearFinder(rule, rule.against)

    def keep(frame: "polars.DataFrame", features: dict[str, NDArray[np.floating]]) -> NDArray[np.bool_]:
        uids = parse_uids(frame[plan.uid].to_list())
        return ~finder.is_near(uids, features.get(rule.features))

    return RowRule("decontaminate", (plan.uid,), finder.features, keep)
