"""Names and captions of strangers: shown in one line, never obeyed, wherever text leaves."""

import csv
import io
import json
from pathlib import Path

import pytest
from rich.table import Table

from eyesmith.console import PlainConsole
from eyesmith.eval.results.rows import ResultRow
from eyesmith.plain import csv_cell, plain, plain_json
from eyesmith.report.terminal import splits_table

EVIL = "a\x1b[31m\nb\r\t\x9b2J\u202ec\u2028d"
SHOWN = r"a\x1b[31m\nb\r\t\x9b2J\u202ec\u2028d"


def test_what_a_terminal_obeys_is_shown_as_python_writes_it() -> None:
    assert plain(EVIL) == SHOWN
    assert plain("\udcff") == r"\udcff"
    for text in ("Ünïcode 猫 \N{CAT FACE}\N{ZERO WIDTH JOINER}", r"back\slash", "[bold] :cat: עברית"):
        assert plain(text) == text


def test_json_on_a_terminal_is_the_same_json() -> None:
    text = json.dumps({"name": EVIL + "\udcff"}, indent=2, ensure_ascii=False)
    assert json.loads(plain_json(text)) == json.loads(text)
    assert plain_json(text).count("\n") == 2
    assert plain_json(text).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("text", "cell"),
    [("", ""), ("-0.5", "-0.5"), ("=1+1", "'=1+1"), ("@x", "'@x"), ("\n=1", r"\n=1"), ("a\x00", r"a\x00")],
)
def test_cells_for_spreadsheets(text: str, cell: str) -> None:
    assert csv_cell(text) == cell


def test_a_console_shows_text_as_it_is() -> None:
    stream = io.StringIO()
    console = PlainConsole(file=stream, width=200)
    console.print(f"[red]{EVIL} :cat:", style="yellow")
    row = ResultRow(
        model=EVIL, task="zero_shot", split=EVIL, metric="acc1", value=0.5, low=None, high=None, n=9, chance=None
    )
    console.print(splits_table([row]))
    lines = stream.getvalue().splitlines()
    assert lines[0] == f"[red]{SHOWN} :cat:"
    assert len(lines) == 3
    assert SHOWN in lines[1]
    assert all(line.replace("\N{NO-BREAK SPACE}", " ").isprintable() for line in lines)


def test_the_leaderboards_csv_has_empty_cells(tmp_path: Path) -> None:
    from eyesmith.eval.results import append_eval_result
    from eyesmith.report.leaderboard import write_leaderboard

    append_eval_result(tmp_path / "eval_results.jsonl", key="cifar10", name="CIFAR-10", metrics={"acc1": 0.5}, main=0.5)
    write_leaderboard([tmp_path], tmp_path / "page.html")
    cells = [cell for row in csv.reader((tmp_path / "page.csv").read_text("utf-8").splitlines()) for cell in row]
    assert "" in cells
    assert "'" not in cells


def test_no_line_of_a_table_in_a_file_ends_in_blanks() -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("a", "b"):
        table.add_column(name)
    table.add_row("short", "one")
    table.add_row("much longer", "")
    file = io.StringIO()
    PlainConsole(file=file, width=200).print(table)
    assert file.getvalue() == "a            b\nshort        one\nmuch longer\n"
    assert PlainConsole(file=io.StringIO(), quiet=True).print(table) is None
