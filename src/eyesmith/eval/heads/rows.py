"""What a probe found, as result lines and prediction files."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from eyesmith.eval.heads.probe import Labelled, ProbeResult, align
from eyesmith.eval.results.predictions import write_records
from eyesmith.eval.results.rows import ResultRow
from eyesmith.eval.statistics.metrics import target_ranks, top_candidates


def probe_rows(
    result: ProbeResult, train: Labelled, *, model_name: str, split: str = "test", run: Mapping[str, Any] | None = None
) -> list[ResultRow]:
    """One line a metric; task: probe_linear, probe_gaussian_4_shots and so on."""
    chance = 1 / len(train.names)
    return [
        ResultRow(
            model=model_name,
            task=probe_task(result),
            split=split,
            metric=metric,
            value=value,
            low=low,
            high=high,
            n=result.n,
            chance=chance,
            run=run,
        )
        for metric, (value, low, high) in result.metrics.items()
    ]


def probe_task(result: ProbeResult) -> str:
    """The name of a probe in result lines."""
    shots = f"_{result.shots}_shot{'s' if result.shots > 1 else ''}" if result.shots else ""
    return f"probe_{result.head}{shots}"


def write_probe_predictions(
    folder: str | os.PathLike[str], result: ProbeResult, train: Labelled, test: Labelled
) -> None:
    """The predictions of the first seed, in the format that `compare_folders` reads."""
    targets, logits = align(test, train).labels, result.fits[0].logits
    values, best = top_candidates(logits.double(), 5)
    fill = max(0, 5 - best.shape[1])
    records = {
        "keys": np.array(test.keys, dtype=np.str_),
        "targets": targets.int().numpy(),
        "ranks": target_ranks(logits, targets).int().numpy(),
        "top": torch.nn.functional.pad(best, (0, fill), value=-1).int().numpy(),
        "top_score": torch.nn.functional.pad(values, (0, fill)).float().numpy(),
        "num_classes": np.array(logits.shape[1]),
    }
    write_records(folder, probe_task(result), records, data=test.samples)
