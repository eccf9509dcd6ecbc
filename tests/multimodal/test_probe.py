"""The probe of an eye: it reads what is there, nothing else, and says of which model and scenes."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from eyesmith.cli.main import main
from eyesmith.data.make.scenes import make_scenes
from eyesmith.data.sources import open_source
from eyesmith.errors import DataError
from eyesmith.eval.results.rows import read_rows
from eyesmith.hub import save_model
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.multimodal.probe import ASKED, cell_of, probe_rows, scene_attributes, thing_box, things_of


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe") / "scenes"
    make_scenes(folder, samples=64, size_px=32)
    return folder


def test_the_first_thing_is_asked_for_and_the_number_of_all(scenes: Path) -> None:
    source = open_source(str(scenes), split="test")
    found = scene_attributes(source, 20)
    for index, said in enumerate(found):
        texts = source.texts(index)  # an independent account: "striped red circle", "three shapes, the largest is ..."
        name = f"{said['colour']} {said['shape']}"
        assert texts[1] == (name if said["pattern"] == "solid" else f"{said['pattern']} {name}")
        numbers = {"1": "only", "2": "two shapes", "3": "three shapes", "4": "four shapes"}
        assert texts[-1].startswith(numbers[said["count"]])


def test_a_middle_lies_in_its_cell(scenes: Path) -> None:
    assert [cell_of(x, y, (2, 3)) for x, y in ((0, 0), (0.34, 0.2), (1, 0.4), (0.1, 0.5), (1, 1))] == [0, 1, 2, 3, 5]
    assert [cell_of(x, y, (2, 3)) for x, y in ((-0.5, 0.6), (0.5, -0.7), (1.4, 1.4))] == [3, 1, 5]
    source = open_source(str(scenes), split="test")
    for index in range(10):
        for thing in things_of(source, index):
            x, y, width, height = thing_box(thing, source, index)
            left, top, right, bottom = (side / 32 for side in thing["box_px"])  # of the drawn mask, whole pixels
            assert (x + width / 2, y + height / 2) == pytest.approx(((left + right) / 2, (top + bottom) / 2), abs=0.12)


def test_what_is_in_the_tokens_is_read_and_what_is_not_is_chance() -> None:
    torch.manual_seed(0)
    n = 600
    shapes = torch.arange(n) % 3
    truth = [{"shape": f"s{one}", "colour": "red", "count": str(i % 2), "pattern": "p"} for i, one in enumerate(shapes)]
    tokens = torch.randn(n, 4, 8)
    tokens[:, 2, :3] += 6 * torch.nn.functional.one_hot(shapes, 3)
    rows = {row.split: row for row in probe_rows((tokens[:400], truth[:400]), (tokens[400:], truth[400:]), model="m")}
    assert tuple(rows) == ASKED
    assert {(row.task, row.metric, row.n) for row in rows.values()} == {("probe", "acc1", 200)}
    assert rows["shape"].value > 0.95
    assert rows["colour"].value == rows["colour"].chance == 1
    assert 0.35 < rows["count"].value < 0.65, "the tokens say nothing of it"
    again = probe_rows((tokens[:400], truth[:400]), (tokens[400:], truth[400:]), model="m")
    assert [row.value for row in again] == [row.value for row in rows.values()]
    truth[-1] = {**truth[-1], "shape": "s9"}
    with pytest.raises(DataError, match="s9 is in no scene of the training split"):
        probe_rows((tokens[:400], truth[:400]), (tokens[400:], truth[400:]), model="m")


def test_the_command_writes_rows_that_say_what_was_measured(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    eye = ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 3), num_heads=2, embed_dim=0)
    save_model(tmp_path / "eye", eye.build().eval())
    words = ["probe", str(tmp_path / "eye"), "--train", str(scenes), "--head", "scenes", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert "pattern" in capsys.readouterr().out
    rows = read_rows(tmp_path / "out" / "results.jsonl")
    assert [(row.task, row.split, row.n) for row in rows] == [("probe", name, 504) for name in ASKED]
    assert rows[0].run is not None
    assert {"weights", "data", "learnt_from"} <= rows[0].run.keys()
    assert main([*words, "--json"]) == 0
    assert [one["value"] for one in json.loads(capsys.readouterr().out)] == [row.value for row in rows]
    assert main([*words, "--shots", "4"]) == 2
    Image.new("RGB", (32, 32)).save(tmp_path / "1.png")
    (tmp_path / "pairs.csv").write_text("image,caption\n1.png,a circle\n")
    assert main(["probe", str(tmp_path / "eye"), "--train", str(tmp_path / "pairs.csv"), "--head", "scenes"]) == 2
