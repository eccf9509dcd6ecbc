from pathlib import Path

import pytest
from PIL import Image

from eyesmith.data import open_source
from eyesmith.errors import DataError
from eyesmith.eval.heads.pixel_neighbour import pixel_neighbour


def _save(folder: Path, name: str, greys: list[int]) -> None:
    (folder / name).mkdir(parents=True)
    for grey in greys:
        Image.new("RGB", (20, 20), (grey, grey, grey)).save(folder / name / f"{grey}.png")


def test_the_class_of_the_nearest_image_comes_first(tmp_path: Path) -> None:
    """Greys: dark is 0 and 200, middle 100, light 250; asked for 190 (dark), 110 (middle) and 160 (light)."""
    for name, train, test in (("dark", [0, 200], [190]), ("light", [250], [160]), ("middle", [100], [110])):
        _save(tmp_path / "train", name, train)
        _save(tmp_path / "test", name, test)
    rows = pixel_neighbour(open_source(tmp_path / "train"), open_source(tmp_path / "test"), split="test")
    # 160 is nearest to 200 (dark), then 100 (middle), then 250 (light): a miss
    assert [(row.metric, row.value, row.n) for row in rows] == [("acc1", 2 / 3, 3), ("acc5", 1.0, 3)]
    assert rows[0].chance == pytest.approx(1 / 3)
    run = rows[0].run
    assert run == rows[1].run
    assert run is not None
    assert (run["side_px"], "weights" in run) == (16, False)
    (tmp_path / "train" / "dark" / "0.png").unlink()  # other pictures to compare with are another baseline
    again = pixel_neighbour(open_source(tmp_path / "train"), open_source(tmp_path / "test"), split="test")
    assert again[0].run is not None
    assert (again[0].run["train"] != run["train"], again[0].run["data"]) == (True, run["data"])


def test_other_classes_are_refused(tmp_path: Path) -> None:
    for side, names in (("train", ("a", "b")), ("test", ("a", "c"))):
        for name in names:
            _save(tmp_path / side, name, [1])
    with pytest.raises(DataError, match="same classes"):
        pixel_neighbour(open_source(tmp_path / "train"), open_source(tmp_path / "test"), split="test")
