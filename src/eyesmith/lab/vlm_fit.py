"""How well an eye fits a language model, without training one: scores, and how they rank.

`probe`: what a small network reads out of the tokens (shape, colour, count, pattern). `correspondence`: how often the
token at a thing has its nearest token, in another scene with the same thing, on that thing. `alignment`: how near each
token comes to its nearest one in a reference eye, as a CLIP. These two are C and A of the law of vision representation
(arXiv 2408.16357), with made scenes for its keypoints (SPair-71k), and a linear map, fitted by least squares, for the
projectors by which it brings both eyes to one width; A itself follows the authors' published script. `distance`:
Gromov-Wasserstein between the geometry of pictures in the eye and of their captions in the language model (arXiv
2605.01325), lower is nearer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.data.sample import Source
from eyesmith.data.sources import open_source
from eyesmith.errors import ConfigError, DataError, MissingDependencyError
from eyesmith.lab.answers.ranks import spearman_two_sided
from eyesmith.lab.vlm import Answers, check_eye
from eyesmith.multimodal.eye import EyeConfig, open_eye
from eyesmith.multimodal.language import SMOLLM2, TinyConfig, build_language, words_of
from eyesmith.multimodal.probe import (
    SCENES,
    cell_of,
    eye_tokens,
    probe_rows,
    scene_attributes,
    thing_box,
    things_of,
)

WORDS = "words"
_COMPARED = 256


@dataclass(frozen=True, kw_only=True)
class EyeFit:
    """The scores of one eye; see the module. alignment: None without a reference."""

    name: str
    probe: float
    correspondence: float
    distance: float
    alignment: float | None = None


def fit_eyes(
    eyes: Mapping[str, str],
    data: str,
    *,
    lm: str = WORDS,
    grid: tuple[int, int] = (0, 0),
    reference: str | None = None,
) -> list[EyeFit]:
    """Scores on the splits train and test of made scenes, in the order given. lm: `words`, `smollm2` or a folder.

    reference: the eye that alignment is with. Raises DataError where the data do not say what is in their pictures,
    MissingDependencyError without POT, ConfigError for a reference with another number of tokens.
    """
    train, test = (open_source(data, split=split) for split in ("train", "test"))
    counts = [min(len(source), SCENES) for source in (train, test)]
    said = [scene_attributes(source, count) for source, count in zip((train, test), counts, strict=True)]
    compared = min(_COMPARED, counts[1])
    captions = [test.texts(index)[0] for index in range(compared)]
    of_words = caption_distances(captions, lm)

    def tokens_of(source: str) -> tuple[list[Tensor], tuple[int, int]]:
        eye, preprocess = open_eye(source, EyeConfig(grid=grid))
        pairs = zip((train, test), counts, strict=True)
        return [eye_tokens(eye, preprocess, some, count) for some, count in pairs], eye.grid

    beside = tokens_of(reference)[0] if reference is not None else None
    found = []
    for name, source in eyes.items():
        tokens, own_grid = tokens_of(source)
        rows = probe_rows((tokens[0], said[0]), (tokens[1], said[1]), model=name)
        found.append(
            EyeFit(
                name=name,
                probe=sum(row.value for row in rows) / len(rows),
                correspondence=correspondence(tokens[1], own_grid, test, counts[1]),
                distance=gromov_wasserstein(_cosine_distances(tokens[1][:compared].float().mean(1)), of_words),
                alignment=None if beside is None else _aligned(name, tokens, beside),
            )
        )
    return found


def _aligned(name: str, tokens: Sequence[Tensor], beside: Sequence[Tensor]) -> float:
    if tokens[0].shape[1] != beside[0].shape[1]:
        raise ConfigError(
            f"{name}: has {tokens[0].shape[1]} tokens, the reference {beside[0].shape[1]}; give both one --grid"
        )
    mapped = least_squares(tokens[0], beside[0], tokens[1][:_COMPARED])
    return alignment(mapped, beside[1][:_COMPARED])


def alignment(tokens: Tensor, reference: Tensor) -> float:
    """The mean over pictures and their tokens of the largest cosine with any token of the same picture in `reference`.

    tokens: [n, N, C]; reference: [n, M, C]. Source: A of arXiv 2408.16357.
    """
    one, other = (F.normalize(some.float(), dim=-1) for some in (tokens, reference))
    return float((one @ other.mT).amax(-1).mean())


def least_squares(tokens: Tensor, wanted: Tensor, asked: Tensor) -> Tensor:
    """`asked` by the linear map, with bias, that takes tokens [n, N, C] nearest to wanted [n, N, D]; [m, N, D].

    A little ridge, 1e-4 of the mean variance, keeps it defined.
    """
    one, other = (some.double().flatten(0, 1) for some in (tokens, wanted))
    means = one.mean(0), other.mean(0)
    centred = one - means[0]
    gram = centred.T @ centred
    gram += torch.eye(len(gram), dtype=gram.dtype) * (1e-4 * gram.diagonal().mean())
    weight = torch.linalg.solve(gram, centred.T @ (other - means[1]))
    return ((asked.double() - means[0]) @ weight + means[1]).float()


def correspondence(tokens: Tensor, grid: tuple[int, int], source: Source, count: int) -> float:
    """The share of things whose token finds, in the next scene with the same thing, a cell within its box.

    tokens: [n, N, C] of the first n = count scenes of made data, whose objects say name and box_px.
    """
    by_name: dict[str, list[tuple[int, list[float]]]] = {}
    for index in range(count):
        for thing in things_of(source, index):
            x, y, width, height = thing_box(thing, source, index)
            by_name.setdefault(thing["name"], []).append((index, [x, y, x + width, y + height]))
    hits = asked = 0
    unit = F.normalize(tokens.float(), dim=-1)
    for places in by_name.values():
        for (one, box), (other, wanted) in pairwise(places):
            if one == other:
                continue
            at = cell_of((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, grid)
            nearest = int((unit[other] @ unit[one, at]).argmax())
            row, column = divmod(nearest, grid[1])
            x, y = (column + 0.5) / grid[1], (row + 0.5) / grid[0]
            slack_x, slack_y = 0.5 / grid[1], 0.5 / grid[0]  # a small thing may hold no cell's centre
            hits += wanted[0] - slack_x <= x <= wanted[2] + slack_x and wanted[1] - slack_y <= y <= wanted[3] + slack_y
            asked += 1
    if not asked:
        raise DataError("correspondence: no thing is in two scenes")
    return hits / asked


def caption_distances(captions: Sequence[str], lm: str) -> np.ndarray:
    """Cosine distances between captions, fp64 [n, n]: of counted words, or of a language model's mean hidden state."""
    if lm == WORDS:
        table = {word: place for place, word in enumerate(words_of(captions))}
        counts = torch.zeros(len(captions), len(table))
        for row, caption in enumerate(captions):
            for word in words_of([caption]):
                counts[row, table[word]] += 1
        return _cosine_distances(counts)
    if lm != SMOLLM2 and not Path(lm).is_dir():
        raise ConfigError(f"lm: expected {WORDS}, {SMOLLM2} or a folder with a language model, got {lm!r}")
    language = build_language(lm, tiny=TinyConfig(), texts=())
    means = []
    with torch.inference_mode():
        for caption in captions:
            given = language.tokenizer(caption, return_tensors="pt")
            means.append(language.model.get_decoder()(input_ids=given["input_ids"]).last_hidden_state[0].mean(0))
    return _cosine_distances(torch.stack(means))


def _cosine_distances(rows: Tensor) -> np.ndarray:
    unit = F.normalize(rows.double() - rows.double().mean(0), dim=-1)
    return (1 - unit @ unit.T).clamp(min=0).numpy()


def gromov_wasserstein(one: np.ndarray, other: np.ndarray) -> float:
    """Between two matrices of distances [n, n], each scaled to a mean of 1, with equal weights; by POT."""
    try:
        import ot
    except ImportError:
        raise MissingDependencyError("lab vlm-fit needs POT: pip install 'eyesmith[chat]'") from None
    weights = np.full(len(one), 1 / len(one))
    found: Any = ot.gromov.gromov_wasserstein2(
        one / one.mean(), other / other.mean(), weights, weights, "square_loss", G0=np.diag(weights)
    )
    return float(found)


def correlations(
    found: Sequence[EyeFit], results: Path, *, eyes: Mapping[str, str] | None = None
) -> dict[str, tuple[float, float] | None]:
    """Spearman's rank correlation of each score with `lab vlm`'s macro means, and its p; a smaller distance is better.

    p: two-sided, the share of re-orderings of the eyes that are at least as far from 0: all of them, or 10,000 random
    ones of more than seven eyes. (scipy's own p is of a t distribution: 0 for three eyes in one order, where one
    ordering in three agrees or disagrees as well.)
    None where it is not defined: all eyes have one score, or one macro mean. Raises DataError where a run of an eye is
    missing, or had another than lies where `eyes` say.
    """
    macros = []
    for one in found:
        runs = sorted((results / one.name).glob("seed-*"))
        if not runs:
            raise DataError(f"{results}: holds no run of the eye {one.name}; `eyesmith lab vlm` makes them")
        if eyes is not None:
            for run in runs:
                check_eye(run, eyes[one.name])
        macros.append(float(np.mean([Answers(run).by_kind.mean() for run in runs])))
    related: dict[str, tuple[float, float] | None] = {}
    signs = {"probe": 1, "correspondence": 1, "distance": -1}
    if all(one.alignment is not None for one in found):
        signs["alignment"] = 1
    for name, sign in signs.items():
        scores = [sign * getattr(one, name) for one in found]
        if len({*scores}) < 2 or len({*macros}) < 2:
            related[name] = None
            continue
        related[name] = spearman_two_sided(np.array(scores), np.array(macros))
    return related
