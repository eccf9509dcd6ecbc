"""What a small network can read out of an eye's tokens about a scene: what the eye sees before any words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.config import to_dict
from eyesmith.data.sample import Source
from eyesmith.errors import DataError
from eyesmith.eval.features.identity import decoders, facts_hash
from eyesmith.eval.results.rows import ResultRow
from eyesmith.eval.statistics.metrics import wilson_interval
from eyesmith.images.transforms import PreprocessConfig
from eyesmith.models.identity import weights_hash
from eyesmith.multimodal.eye import Eye, picture_pixels

TASK, METRIC = "probe", "acc1"
ASKED = ("shape", "colour", "count", "pattern")
SCENES = 4000  # that the network learns from
_PICTURES = 64  # that the eye sees at a time
_EPOCHS, _BATCH, _HIDDEN, _RATE, _DECAY = 20, 128, 384, 1e-3, 0.02


def things_of(source: Source, index: int) -> list[dict[str, Any]]:
    """What a made scene says of the things in it, the main one first. Raises DataError where it does not."""
    things = source[index].meta.get("objects")
    if not isinstance(things, list) or not things or not all(isinstance(thing, dict) for thing in things):
        raise DataError(
            f"{source.where(index)}: does not say what is in its picture (`objects`); `eyesmith data make scenes` does"
        )
    return things


def thing_box(thing: Mapping[str, Any], source: Source, index: int) -> tuple[float, float, float, float]:
    """x, y, width, height as shares of the picture. Raises DataError where they are not known."""
    if "x" in thing and "y" in thing and "radius" in thing:
        radius = thing["radius"]
        return thing["x"] - radius, thing["y"] - radius, 2 * radius, 2 * radius
    raise DataError(f"{source.where(index)}: its things do not say where they are (x, y, radius)")


def cell_of(x: float, y: float, grid: tuple[int, int]) -> int:
    """The place, row by row, of the cell of a grid of (rows, columns) that is nearest to a point given as shares."""
    row, column = (min(max(int(value * size), 0), size - 1) for value, size in zip((y, x), grid, strict=True))
    return row * grid[1] + column


def scene_attributes(source: Source, count: int) -> list[dict[str, str]]:
    """Of each of the first scenes, by `ASKED`: shape, colour and pattern of its main thing, how many things there are.

    Raises DataError where the samples do not say it.
    """
    found = []
    for index in range(count):
        things = things_of(source, index)
        main = things[0]
        if not {"shape", "color", "pattern"} <= main.keys():
            raise DataError(f"{source.where(index)}: does not say shape, color and pattern of its first thing")
        of_main = {"shape": main["shape"], "colour": main["color"], "pattern": main["pattern"]}
        found.append({name: str(value) for name, value in (of_main | {"count": len(things)}).items()})
    return found


def eye_tokens(eye: Eye, preprocess: PreprocessConfig, source: Source, count: int) -> Tensor:
    """fp16 [count, N, C] of the first pictures, padded to squares."""
    device = next(eye.parameters()).device
    parts = []
    for start in range(0, count, _PICTURES):
        places = range(start, min(start + _PICTURES, count))
        pixels = torch.stack([picture_pixels(source.image_bytes(index), preprocess, pad=True) for index in places])
        parts.append(eye(pixels.to(device)).half().cpu())
    return torch.cat(parts)


def probe_scenes(
    eye: Eye, preprocess: PreprocessConfig, train: Source, test: Source, *, model: str, prefix: str = ""
) -> list[ResultRow]:
    """`probe_rows` of an eye, trained on the first scenes of `train` and measured on all of `test`. prefix: of splits.

    Raises DataError where the scenes do not say what is in them.
    """
    counts = min(len(train), SCENES), len(test)
    said = [scene_attributes(source, count) for source, count in zip((train, test), counts, strict=True)]
    seen = [eye_tokens(eye, preprocess, source, count) for source, count in zip((train, test), counts, strict=True)]
    run = {
        "weights": weights_hash(eye.encoder),
        "preprocess": {**to_dict(preprocess), **to_dict(eye.config), "pad": True},
        "data": test.fingerprint(),
        "samples": facts_hash([train.fingerprint(), test.fingerprint()]),
        "learnt_from": {"data": train.fingerprint(), "scenes": counts[0]},
        "precision": "fp16 tokens",
        "decoders": decoders(),
    }
    return probe_rows((seen[0], said[0]), (seen[1], said[1]), model=model, prefix=prefix, run=run)


def probe_rows(
    train: tuple[Tensor, Sequence[Mapping[str, str]]],
    test: tuple[Tensor, Sequence[Mapping[str, str]]],
    *,
    model: str,
    prefix: str = "",
    run: dict[str, Any] | None = None,
    seed: int = 0,
) -> list[ResultRow]:
    """A row for each of `ASKED`: accuracy on `test` of one network with a hidden layer, trained on `train`.

    Each is tokens [n, N, C] and what is asked of n scenes. Raises DataError where test has an answer that train lacks.
    """
    answers = {name: sorted({one[name] for one in train[1]}) for name in ASKED}
    for name in ASKED:
        if unknown := {one[name] for one in test[1]} - set(answers[name]):
            raise DataError(f"probe: {name}: {min(unknown)} is in no scene of the training split")
    wanted = {
        name: (
            torch.tensor([answers[name].index(one[name]) for one in train[1]]),
            torch.tensor([answers[name].index(one[name]) for one in test[1]]),
        )
        for name in ASKED
    }
    logits = _trained(train[0], {name: pair[0] for name, pair in wanted.items()}, answers, test[0], seed)
    rows = []
    for name in ASKED:
        truth = wanted[name][1]
        hits, n = int((logits[name].argmax(1) == truth).sum()), len(truth)
        low, high = wilson_interval(hits, n)
        commonest = Counter(truth.tolist()).most_common(1)[0][1]
        rows.append(
            ResultRow(
                model=model,
                task=TASK,
                split=prefix + name,
                metric=METRIC,
                value=hits / n,
                low=low,
                high=high,
                n=n,
                chance=commonest / n,
                run=run,
            )
        )
    return rows


def _trained(
    tokens: Tensor, wanted: Mapping[str, Tensor], answers: Mapping[str, Sequence[str]], asked: Tensor, seed: int
) -> dict[str, Tensor]:
    """Logits [n, answers] of each question for the tokens `asked`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flat = tokens.float().flatten(1)
        std, mean = torch.std_mean(flat, dim=0)
        scale = lambda some: (some.float().flatten(1) - mean) / std.clamp(min=1e-6)  # noqa: E731
        trunk = nn.Sequential(nn.Linear(flat.shape[1], _HIDDEN), nn.GELU(), nn.Dropout(0.2))
        heads = nn.ModuleDict({name: nn.Linear(_HIDDEN, len(answers[name])) for name in ASKED})
        parameters = [*trunk.parameters(), *heads.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=_DECAY)
        seen = scale(tokens)
        steps = max(1, len(seen) // _BATCH) * _EPOCHS
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        epochs = (torch.randperm(len(seen)) for _ in range(_EPOCHS))
        for some in (part for order in epochs for part in order.split(_BATCH)[: steps // _EPOCHS]):
            hidden = trunk(seen[some])
            loss = torch.stack([F.cross_entropy(heads[name](hidden), wanted[name][some]) for name in ASKED]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        trunk.eval()
        with torch.no_grad():
            hidden = trunk(scale(asked))
            return {name: heads[name](hidden) for name in ASKED}
