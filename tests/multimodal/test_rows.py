"""What an eye says is kept by the pictures' own bytes."""

from pathlib import Path

import torch
from PIL import Image

from eyesmith.data.conversations import open_conversations
from eyesmith.images.transforms import PreprocessConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.multimodal.eye import Eye, EyeConfig
from eyesmith.multimodal.rows import ConversationRows

ENCODER = ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 3), num_heads=2, embed_dim=0)


def test_pictures_of_equal_names_and_sizes_are_not_taken_for_each_other(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    eye = Eye(ENCODER.build(), EyeConfig())
    found = []
    for place, colour in enumerate(("red", "blue")):
        folder = tmp_path / str(place)
        folder.mkdir()
        Image.new("RGB", (32, 32), colour).save(folder / "a.bmp")
        (folder / "pairs.csv").write_text("image,caption\na.bmp,a thing\n")
        data = open_conversations(str(folder / "pairs.csv"))
        rows = ConversationRows(
            data,
            data.items,
            1,
            own=slice(0, 1),
            seed=0,
            preprocess=PreprocessConfig(image_size=(32, 32)),
            pad=True,
            is_seen=True,
            num_workers=1,
            max_skipped_frac=0.0,
        )
        kept = rows.seen_by(eye, precision="fp32", device=torch.device("cpu")).read(torch.tensor([0]))
        rows.close()
        found.append(kept)
    assert not torch.equal(*found)
