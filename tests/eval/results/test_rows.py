import json
import resource
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from eyesmith.errors import DataError
from eyesmith.eval.results.rows import ResultRow, append_rows, as_line, current_name, read_rows

ROW = ResultRow(
    model="Nano",
    task="zero_shot",
    split="unseen_drawing",
    metric="acc1",
    value=0.4,
    low=0.3,
    high=0.5,
    n=262,
    chance=1 / 262,
)
ROWS = [replace(ROW, metric=f"acc{k}", value=k / 10) for k in (1, 5)]


def test_a_line_has_the_fixed_fields_in_order(tmp_path: Path) -> None:
    append_rows(tmp_path / "results.jsonl", [ROW])
    line = (tmp_path / "results.jsonl").read_text().splitlines()[0]
    assert list(json.loads(line)) == ["model", "task", "split", "metric", "value", "low", "high", "n", "chance"]


def test_rows_come_back_in_order_after_several_appends(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "results.jsonl"
    append_rows(file, ROWS[:1])
    append_rows(file, ROWS[1:])
    append_rows(file, [replace(ROW, low=None, high=None, chance=None, model="Ünicode\n")])
    assert read_rows(file) == [*ROWS, replace(ROW, low=None, high=None, chance=None, model="Ünicode\n")]


def test_a_half_last_line_is_left_out_with_a_warning_and_cut_off_by_the_next_append(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    append_rows(file, ROWS)
    file.write_bytes(file.read_bytes() + b'{"model": "Nano", "task": "zero_')
    with pytest.warns(UserWarning, match="half written"):
        assert read_rows(file) == ROWS
    append_rows(file, [ROW])
    assert read_rows(file) == [*ROWS, ROW]


def test_a_whole_last_line_without_newline_counts_and_survives_an_append(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text(json.dumps(asdict(ROW)))
    assert read_rows(file) == [ROW]
    append_rows(file, ROWS)
    assert read_rows(file) == [ROW, *ROWS]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"model": ', "line 2 is no JSON"),
        ("[1, 2]", "line 2: expected an object .* got list"),
        (json.dumps({key: value for key, value in asdict(ROW).items() if key != "chance"}), "'chance' is missing"),
        (json.dumps({**asdict(ROW), "value": None}), "line 2: .*'value' is None"),
        (json.dumps({**asdict(ROW), "value": "0.5"}), "'value' is '0.5'"),
        (json.dumps({**asdict(ROW), "n": 1.5}), "'n' must be a count"),
        (json.dumps({**asdict(ROW), "task": ""}), "'task' must be a name"),
        ("\xff\xfe", "line 2 is no JSON"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "results.jsonl"
    good = json.dumps(asdict(ROW)).encode()
    file.write_bytes(good + b"\n" + line.encode("latin-1") + b"\n" + good + b"\n")
    with pytest.raises(DataError, match=message):
        read_rows(file)


def test_missing_file_and_folder_say_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such result file"):
        read_rows(tmp_path / "results.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path)


def test_numbers_that_are_none_cannot_be_written() -> None:
    for wrong in (float("nan"), float("inf"), True):
        with pytest.raises(DataError, match="'value'"):
            replace(ROW, value=wrong)


def test_unknown_fields_of_later_versions_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text(json.dumps({**asdict(ROW), "seed": 3}) + "\n")
    assert read_rows(tmp_path / "results.jsonl") == [ROW]


def test_when_the_disk_is_full_nothing_is_added_and_nothing_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    append_rows(file, ROWS)
    before = file.read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, old[1]))  # room for a part of one line
    try:
        with pytest.raises(OSError, match="too large"):
            append_rows(file, [ROW])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert file.read_bytes() == before


def test_names_of_before_are_read_as_those_of_today(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    old = {"top1": "acc1", "top5": "acc5", "text_recall@10": "text_retrieval_recall@10", "ece": "ece"}
    file.write_text("".join(json.dumps(as_line(replace(ROW, metric=name))) + "\n" for name in old))
    assert [row.metric for row in read_rows(file)] == list(old.values())
    assert current_name("pets:val/image_recall@1") == "pets:val/image_retrieval_recall@1"
    assert current_name("image_retrieval_recall@1") == "image_retrieval_recall@1"


def test_a_line_says_what_was_measured(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    append_rows(file, [ROW, replace(ROW, run={"source": "runs/a", "weights": "12ab"})])
    first, second = read_rows(file)
    assert first.run is None
    assert second.run == {"source": "runs/a", "weights": "12ab"}


def test_processes_that_write_one_file_lose_no_line(tmp_path: Path) -> None:
    code = (
        "import sys; from dataclasses import replace; from tests.eval.results.test_rows import ROW;"
        "from eyesmith.eval.results.rows import append_rows;"
        "[append_rows(sys.argv[1], [replace(ROW, model=sys.argv[2], n=n)]) for n in range(50)]"
    )
    file = tmp_path / "results.jsonl"
    processes = [subprocess.Popen([sys.executable, "-c", code, str(file), f"writer {number}"]) for number in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    rows = read_rows(file)
    assert len(rows) == 200
    for number in range(4):
        assert [row.n for row in rows if row.model == f"writer {number}"] == list(range(50))
