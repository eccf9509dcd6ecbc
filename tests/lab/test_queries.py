from pathlib import Path

import torch
from PIL import Image

from eyesmith.eval import evaluate
from eyesmith.lab.queries import read_ranks, write_ranks
from eyesmith.models import create


def test_ranks_are_kept_as_predictions_and_those_of_before_are_read(tmp_path: Path) -> None:
    for number, colour in enumerate(("red", "blue", "green", "grey")):
        file = tmp_path / "photos" / ("cat" if number % 2 else "dog") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), colour).save(file)
    torch.manual_seed(0)
    clip = create("ViTamin-Nano").eval()
    write_ranks(tmp_path / "cell", clip, str(tmp_path / "photos"))
    ranks = read_ranks(tmp_path / "cell", "all")
    assert ranks is not None
    assert float((ranks == 0).mean()) == evaluate(clip, tmp_path / "photos")[0].value
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "ranks.json").write_text('{"all": [0, 2, 1]}')
    old = read_ranks(tmp_path / "old", "all")
    assert old is not None
    assert old.tolist() == [0, 2, 1]
    assert read_ranks(tmp_path / "old", "other") is None
