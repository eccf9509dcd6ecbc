import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.eval.results.rows import ResultRow
from eyesmith.lab.cells import Cell, cells_of, data_facts, data_of, samples_as_stated
from eyesmith.lab.folder import (
    cell_folder,
    check_data,
    held,
    is_done,
    read_failure,
    read_request,
    read_result,
    write_failure,
    write_request,
    write_result,
)
from eyesmith.lab.plan import LabPlan, changed

FACTS = {"parameters": 10, "gmacs": 0.5, "train_s": 1.5, "cpu_s": 2.5, "loss": 0.25}
ROW = ResultRow(model="m", task="zero_shot", split="all", metric="acc1", value=0.5, low=0.2, high=0.8, n=8, chance=0.25)


def test_a_result_comes_back_as_part_of_the_plan(tmp_path: Path, cells: list[Cell]) -> None:
    cell = cells[3]
    folder = cell_folder(tmp_path, cell.id)
    write_failure(folder, "earlier")
    assert not is_done(folder)
    write_result(folder, FACTS, [ROW])
    found = read_result(folder, cell)
    assert is_done(folder)
    assert read_failure(folder) is None
    assert (found.encoder, found.level, found.budget, found.samples, found.groups) == ("TrV", 1, 16.0, 16, ("grid",))
    assert found.value("all") == 0.5
    with pytest.raises(Exception, match="has no zero_shot/other/acc1; it has zero_shot/all/acc1"):
        found.value("other")


@pytest.mark.parametrize("content", ["{", "{}", json.dumps({**FACTS, "rows": [{"model": "m"}]})])
def test_a_broken_result_says_what_to_do(tmp_path: Path, cells: list[Cell], content: str) -> None:
    folder = cell_folder(tmp_path, cells[0].id)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"result\.json: .* to run it again"):
        read_result(folder, cells[0])


def test_requests_say_whose_weights_are_kept(tmp_path: Path, plan: LabPlan, cells: list[Cell]) -> None:
    keeps = {}
    for keep in ("largest", "all", "none"):
        for cell in (cells[0], cells[2]):
            folder = tmp_path / keep / cell.id
            folder.mkdir(parents=True)
            write_request(folder, cell, changed(plan, keep=keep), [])
            keeps[keep, cell.level] = read_request(folder)["keeps_weights"]
    assert keeps == {
        ("largest", 0): False,
        ("largest", 1): True,
        ("all", 0): True,
        ("all", 1): True,
        ("none", 0): False,
        ("none", 1): False,
    }


def test_one_process_alone_holds_a_cell(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom eyesmith.lab.folder import held\n"
        "with held(pathlib.Path(sys.argv[1])) as ours: print(ours)"
    )
    look = [sys.executable, "-c", code, str(tmp_path)]
    with held(tmp_path) as ours:
        assert ours
        assert subprocess.run(look, capture_output=True, text=True, check=True).stdout.strip() == "False"
    with held(tmp_path) as ours:
        assert ours


def test_what_a_cell_of_somebody_elses_asks_for_is_written_anew(
    tmp_path: Path, plan: LabPlan, cells: list[Cell]
) -> None:
    # else a folder that was copied would say which Python files its cells run
    folder = cell_folder(tmp_path, cells[0].id)
    folder.mkdir(parents=True)
    write_request(folder, cells[0], plan, [str(tmp_path / "evil.py")])
    assert read_request(folder)["encoder_files"] == [str(tmp_path / "evil.py")]
    write_request(folder, cells[0], plan, [])
    assert read_request(folder)["encoder_files"] == []


def test_a_cell_of_other_data_is_no_part_of_the_comparison(tmp_path: Path, pairs: Path, plan: LabPlan) -> None:
    place = tmp_path / "discs"
    shutil.copytree(pairs, place)
    plan = changed(plan, data=str(place))

    def cell() -> Cell:
        return cells_of(plan, data_facts(data_of(plan)), samples_as_stated)[0]

    before = cell()
    folder = cell_folder(tmp_path / "out", before.id)
    folder.mkdir(parents=True)
    write_request(folder, before, plan, [])
    check_data(folder, before)
    (place / "red" / "3.png").unlink()
    shutil.copy(place / "blue" / "3.png", place / "red" / "4.png")  # as many as before
    after = cell()
    assert after.id == before.id
    with pytest.raises(ConfigError, match="was trained and measured on other samples"):
        check_data(folder, after)
    request = json.loads((folder / "cell.json").read_text())
    del request["pictures"]  # of a version before
    (folder / "cell.json").write_text(json.dumps(request))
    check_data(folder, after)
