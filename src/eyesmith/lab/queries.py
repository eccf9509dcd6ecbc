"""Which queries a cell answered rightly, one by one: what a comparison of two cells needs beyond their two totals."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eyesmith.eval.metrics import target_ranks
from eyesmith.eval.suite import WHOLE, choose_splits, split_tasks
from eyesmith.eval.zero_shot import ZeroShot
from eyesmith.files import write_atomic
from eyesmith.models.clip import Clip

RANKS_FILE = "ranks.json"


def write_ranks(folder: Path, clip: Clip, data: str, splits: Sequence[str] | None = None) -> None:
    """Write ranks.json: by split the rank of the right name for every image in the data's order, 0 the first guess.

    splits: of `data`, None for all but train. Splits without labels are left out.
    """
    found = {}
    for split in splits or choose_splits(data):
        tasks = split_tasks(data, split)
        task = next((one for one in tasks.tasks if isinstance(one, ZeroShot) and one.task == "zero_shot"), None)
        if task is not None:
            images, scores = task.scores(clip)
            found[split or WHOLE] = target_ranks(scores, task.targets(images)).tolist()
    write_atomic(folder / RANKS_FILE, json.dumps(found) + "\n")


def read_ranks(folder: Path, split: str) -> NDArray[np.int64] | None:
    """Ranks [N] of one split; None where the cell left none that can be read."""
    try:
        found = json.loads((folder / RANKS_FILE).read_text(encoding="utf-8"))
        return np.array(found[split], dtype=np.int64)
    except (OSError, ValueError, KeyError, TypeError):
        return None
