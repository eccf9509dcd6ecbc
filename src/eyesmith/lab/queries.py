"""Which queries a cell answered rightly, one by one: what a comparison of two cells needs beyond their two totals."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eyesmith.errors import DataError
from eyesmith.eval.features.images import encode_source
from eyesmith.eval.features.texts import TextFeatures
from eyesmith.eval.results.predictions import FOLDER, file_name, read_predictions, write_records
from eyesmith.eval.sets.made import WHOLE, choose_splits, split_tasks
from eyesmith.files import load_json
from eyesmith.models.clip import Clip

_OLD_FILE = "ranks.json"  # of cells that a version before measured: ranks by split


def write_ranks(folder: Path, clip: Clip, data: str, splits: Sequence[str] | None = None) -> None:
    """Write the prediction files of zero-shot classification on each split, as `eyesmith eval` does.

    splits: of `data`, None for all but train. Splits without labels are left out.
    """
    for split in splits or choose_splits(data):
        task = next((one for one in split_tasks(data, split).tasks if one.key == "zero_shot"), None)
        if task is not None:
            answered = task.answered(clip, encode_source(clip, task.source), TextFeatures(clip))
            write_records(folder, _name(split or WHOLE), answered.records)


def read_ranks(folder: Path, split: str) -> NDArray[np.int64] | None:
    """Ranks [N] of one split, 0 the first guess; None where the cell left none that can be read."""
    try:
        return read_predictions(folder / FOLDER / f"{file_name(_name(split))}.npz").records["ranks"].astype(np.int64)
    except (DataError, KeyError):
        pass
    try:
        found = load_json((folder / _OLD_FILE).read_text(encoding="utf-8"))
        return np.array(found[split], dtype=np.int64)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _name(split: str) -> str:
    return f"zero_shot-{split}"
