from pathlib import Path

import pytest

from eyesmith.lab.budget import train_flops
from eyesmith.lab.cells import Cell
from eyesmith.lab.cost import NOMINAL_FLOPS, costs
from eyesmith.lab.folder import cell_folder, write_result

FACTS = {"parameters": 10, "gmacs": 0.5, "cpu_s": 2.5, "loss": 0.25}


def test_without_a_cell_the_rate_is_nominal(cells: list[Cell], tmp_path: Path) -> None:
    found = costs(cells, tmp_path)
    flops = train_flops(cells[0].config) * 8
    assert found[0].tflop == pytest.approx(flops / 1e12)
    assert found[0].seconds == pytest.approx(flops / NOMINAL_FLOPS)
    assert not any(cost.is_measured or cost.is_done for cost in found)


def test_finished_cells_tell_what_the_others_take(cells: list[Cell], tmp_path: Path) -> None:
    folder = cell_folder(tmp_path, cells[0].id)
    folder.mkdir(parents=True)
    write_result(folder, {**FACTS, "train_s": 3.0}, [])
    small, other, large, large_other = costs(cells, tmp_path)
    assert (small.seconds, small.is_done) == (3.0, True)
    assert large.seconds == pytest.approx(6.0)  # the same encoder, twice the images
    ratio = train_flops(cells[1].config) / train_flops(cells[0].config)
    assert other.seconds == pytest.approx(3.0 * ratio)
    assert large_other.seconds == pytest.approx(6.0 * ratio)
