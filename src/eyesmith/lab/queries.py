"""Which queries a cell answered rightly, one by one: what a comparison of two cells needs beyond their two totals."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eyesmith.eval.features.images import encode_source
from eyesmith.eval.features.texts import TextFeatures
from eyesmith.eval.sets.made import WHOLE, choose_splits, split_tasks
from eyesmith.files import write_atomic
from eyesmith.models.clip import Clip

RANKS_FILE = "ranks.json"


def write_ranks(folder: Path, clip: Clip, data: str, splits: Sequence[str] | None = None) -> None:
    """Write ranks.json: by split the rank of the right name for every image in the data's order, 0 the first guess.

    splits: of `data`, None for all but train. Splits without labels are left out.
    """
    found = {}
    for split in splits or choose_splits(data):
        task = next((one for one in split_tasks(data, split).tasks if one.key == "zero_shot"), None)
        if task is not None:
            answered = task.answered(clip, encode_source(clip, task.source), TextFeatures(clip))
            found[split or WHOLE] = answered.records["ranks"].tolist()
    write_atomic(folder / RANKS_FILE, json.dumps(found) + "\n")


def read_ranks(folder: Path, split: str) -> NDArray[np.int64] | None:
    """Ranks [N] of one split; None where the cell left none that can be read."""
    try:
        found = json.loads((folder / RANKS_FILE).read_text(encoding="utf-8"))
        return np.array(found[split], dtype=np.int64)
    except (OSError, ValueError, KeyError, TypeError):
        return None
