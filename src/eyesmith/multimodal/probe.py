"""What a small network can read out of an eye's tokens about a scene: what the eye sees before any words."""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.data.sample import Source
from eyesmith.errors import DataError
from eyesmith.eval.results.rows import ResultRow
from eyesmith.eval.statistics.metrics import wilson_interval

TASK, METRIC = "probe", "acc1"
ASKED = ("shape", "colour", "count", "pattern")
_EPOCHS, _BATCH, _HIDDEN, _RATE, _DECAY = 20, 128, 384, 1e-3, 0.02


def scene_attributes(source: Source) -> list[dict[str, str]] | None:
    """Of each scene: shape, colour and pattern of its main thing, and how many things there are, by `ASKED`.

    None where the samples do not say what is in them.
    """
    found = []
    for index in range(len(source)):
        things = source[index].meta.get("objects")
        if not isinstance(things, list) or not things or not isinstance(things[0], dict) or "shape" not in things[0]:
            return None
        main = things[0]
        of_main = {"shape": main["shape"], "colour": main.get("color"), "pattern": main.get("pattern")}
        found.append({name: str(value) for name, value in (of_main | {"count": len(things)}).items()})
    return found


def probe_rows(
    train: tuple[Tensor, Sequence[Mapping[str, str]]],
    test: tuple[Tensor, Sequence[Mapping[str, str]]],
    *,
    model: str,
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
                split=name,
                metric=METRIC,
                value=hits / n,
                low=low,
                high=high,
                n=n,
                chance=commonest / n,
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
