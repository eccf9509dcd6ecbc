import io
import re

from rich.console import Console

from eyesmith.eval.results.rows import ResultRow
from eyesmith.report.terminal import splits_table


def row(split: str, metric: str, value: float, *, model: str = "ours", task: str = "zero_shot") -> ResultRow:
    return ResultRow(
        model=model,
        task=task,
        split=split,
        metric=metric,
        value=value,
        low=value - 0.01,
        high=value + 0.01,
        n=262,
        chance=0.0038,
    )


def shown(rows: list[ResultRow], baseline: list[ResultRow] | None = None) -> list[str]:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(splits_table(rows, baseline or []))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().replace("\N{NO-BREAK SPACE}", " ").splitlines()


def test_both_models_chance_and_interval_in_one_line() -> None:
    lines = shown([row("unseen_drawing", "acc1", 0.3817)], [row("unseen_drawing", "acc1", 0.065, model="ViT [plain]")])
    line = next(line for line in lines if "Unseen drawings" in line)
    cells = re.split(r"  +", line.strip())
    assert cells == ["Unseen drawings", "top-1", "38.2 %", "37.2 – 39.2", "6.5 %", "0.4 %", "262"]
    assert any("ViT [plain]" in line for line in lines)


def test_known_splits_first_and_the_last_row_of_a_metric_holds() -> None:
    rows = [row("unseen_concept", "acc1", 0.1), row("unseen_drawing", "acc1", 0.2), row("unseen_drawing", "acc1", 0.3)]
    lines = [line for line in shown(rows) if "top-1" in line]
    assert len(lines) == 2
    assert "Unseen drawings" in lines[0]
    assert "30.0 %" in lines[0]
    assert "Unseen concepts" in lines[1]


def test_several_tasks_are_told_apart() -> None:
    lines = shown([row("all", "acc1", 0.3), row("all", "image_retrieval_recall@5", 0.4, task="retrieval")])
    assert any("naming" in line for line in lines)
    assert any("search, own" in line for line in lines)


def test_headings_are_the_keys_of_result_lines() -> None:
    made = shown([row("all", "acc1", 0.3), row("all", "acc1", 0.4, task="zero_shot_all")])
    assert [line.split()[0] for line in made if "naming" in line] == ["zero_shot", "zero_shot_all"]
    own = shown([row("color", "acc1", 0.3, task="own:cars"), row("count", "acc1", 0.4, task="own:cars")])
    assert "own:cars" in own[1]


def test_only_the_tasks_that_are_asked_for() -> None:
    rows = [row("all", "acc1", 0.3), row("all", "image_retrieval_recall@5", 0.4, task="retrieval")]
    table = splits_table(rows, tasks=("zero_shot",))
    assert (len(table.rows), len(table.columns)) == (1, 6)  # and no column for the task


def test_the_widest_real_table_fits_into_80_columns() -> None:
    rows = [row("unseen_drawing", "image_retrieval_recall@10", 1.0, model="ViTamin-Nano", task="retrieval_label")]
    rows.append(row("unseen_concept", "acc1", 0.5, model="ViTamin-Nano"))
    lines = shown(
        rows, [row("unseen_drawing", "image_retrieval_recall@10", 1.0, model="ViT-Nano", task="retrieval_label")]
    )
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


def test_an_empty_table_is_a_table() -> None:
    assert shown([])


def test_rows_of_another_model_are_left_out() -> None:
    lines = shown([row("test", "acc1", 0.5), row("test", "acc1", 0.25, model="nearest pixels", task="pixel_neighbour")])
    assert not any("25.0 %" in line for line in lines)


def test_where_titles_are_long_they_are_folded_and_no_number_is_cut() -> None:
    names = ("unseen_drawing", "unseen_concept_wide", "choose_drawing")
    rows = [row(name, "text_retrieval_recall@10", 0.5, model="ViTamin-Nano", task="retrieval") for name in names]
    lines = shown(
        rows, [row(name, "text_retrieval_recall@10", 0.4, model="ViT-Nano", task="retrieval") for name in names]
    )
    assert max(map(len, lines)) <= 80
    assert not any("\N{HORIZONTAL ELLIPSIS}" in line for line in lines)
    assert sum(line.count("49.0 \N{EN DASH} 51.0") for line in lines) == 3
