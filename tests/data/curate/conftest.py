import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eyesmith.data.curate import make_pool

ENTRIES = ["dog", "cat", "a", "red car", "photo", "the", "of the", "house", "in the", "nothing like it"]


@dataclass(frozen=True)
class Pool:
    folder: Path
    metadata: Path
    shards: Path
    rows: list[dict[str, Any]]  # of all files, with `features` of the .npz
    entries: Path


def read_pool(metadata: Path) -> list[dict[str, Any]]:
    rows = []
    for file in sorted(metadata.glob("*.parquet")):
        table = pd.read_parquet(file).to_dict("records")
        stored = np.load(file.with_suffix(".npz"))
        features = {name: stored[name] for name in stored.files}
        for number, row in enumerate(table):
            rows.append({**row, "features": {name: values[number] for name, values in features.items()}})
    return rows


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    folder = tmp_path_factory.mktemp("pool")
    made = make_pool(folder, samples=600, files=3, seed=3, shard_samples=150, size_px=32)
    assert made.shards is not None
    entries = folder / "entries.json"
    entries.write_text(json.dumps(ENTRIES))
    return Pool(folder, made.metadata, made.shards, read_pool(made.metadata), entries)
