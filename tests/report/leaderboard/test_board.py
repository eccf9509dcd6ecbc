"""Measured models beside the printed ones: averages, intervals, what is missing, slips of the print."""

import math
from pathlib import Path
from typing import Any

import pytest

from eyesmith.errors import ConfigError
from eyesmith.eval.results import ModelResults, TaskRecord, read_open_clip_csv
from eyesmith.eval.sets import SUITES, TASKS
from eyesmith.report.leaderboard import SuiteBoard, make_board
from eyesmith.report.leaderboard.board import Cell, Entry
from eyesmith.report.leaderboard.differences import choose_pair, differences
from eyesmith.report.leaderboard.robustness import robust_entries

SAMPLE = Path(__file__).parents[2] / "eval" / "results" / "openclip_results_sample.csv"


def model(name: str, values: dict[str, float], *, half: float | None = None, images: int | None = None) -> ModelResults:
    records = {}
    for key, value in values.items():
        metric = TASKS[key].metric if key in TASKS else "acc1"
        low, high = (None, None) if half is None else (value - half, value + half)
        records[key] = TaskRecord(
            key=key,
            name=key,
            metrics={str(metric): value},
            main_metric=metric,
            main=value,
            low=low,
            high=high,
            images=images,
        )
    return ModelResults(model=name, source=f"{name}/eval_results.jsonl", records=records)


def suite_board(models: list[ModelResults], name: str) -> SuiteBoard:
    return next(one for one in make_board(models).suites if one.suite.name == name)


def all_of(suite: str, value: float) -> dict[str, float]:
    return {task.key: value for task in SUITES[suite].tasks if task.metric is not None}


def test_measured_lines_stand_among_the_printed_ones_by_their_average() -> None:
    board = suite_board(read_open_clip_csv(SAMPLE), "datacomp")
    averages = [entry.averages["average"].value for entry in board.entries]
    assert averages == sorted(averages, reverse=True)
    labels = [entry.label for entry in board.entries]
    assert len(labels) == len(set(labels)) == 28 + 6  # two printed lines of one name are told apart
    assert len(board.measured) == 6


def test_a_slip_of_the_print_shows_both_numbers() -> None:
    board = suite_board(read_open_clip_csv(SAMPLE), "datacomp")
    entry = next(entry for entry in board.entries if entry.label == "ViT-L/16 SigLIP 256")
    assert (entry.averages["retrieval"].value, entry.averages["retrieval"].printed) == (0.682, 0.611)
    assert entry.averages["average"].printed is None
    assert entry.note


def test_an_average_with_a_missing_task_is_left_out_and_the_task_named() -> None:
    values = all_of("datacomp", 0.5)
    del values["wilds/fmow"]
    (entry,) = suite_board([model("holed", values)], "datacomp").measured
    assert "average" not in entry.averages
    assert entry.averages["vtab"].value == 0.5
    assert entry.missing == ("FMoW",)


def test_the_interval_of_an_average_is_that_of_independent_tasks() -> None:
    (entry,) = suite_board([model("m", all_of("datacomp", 0.5), half=0.03)], "datacomp").measured
    cell = entry.averages["average"]
    assert cell.high is not None
    assert cell.low is not None
    assert cell.high - cell.value == pytest.approx(0.03 / math.sqrt(38))
    assert cell.value - cell.low == pytest.approx(0.03 / math.sqrt(38))
    (bare,) = suite_board([model("m", all_of("datacomp", 0.5))], "datacomp").measured
    assert bare.averages["average"].low is None


def test_parts_of_sets_are_marked() -> None:
    (entry,) = suite_board([model("m", {"cifar10": 0.5, "mnist": 0.5}, images=100)], "datacomp").measured
    assert entry.partial == ("CIFAR-10", "MNIST")
    (whole,) = suite_board([model("m", {"cifar10": 0.5}, images=10_000)], "datacomp").measured
    assert whole.partial == ()


def test_models_of_whole_sets_are_compared_first() -> None:
    models = [
        model(name, {"cifar10": value}, images=n)
        for name, value, n in (("a", 0.9, 9), ("b", 0.5, None), ("c", 0.4, None))
    ]
    pair = choose_pair(suite_board(models, "datacomp"))
    assert pair is not None
    assert [entry.label for entry in pair] == ["b", "c"]


def test_a_suite_is_shown_when_its_average_stands_or_its_tasks_have_no_other_place() -> None:
    def names(values: dict[str, float]) -> list[str]:
        return [one.suite.name for one in make_board([model("m", values)]).suites]

    assert names(all_of("datacomp", 0.5)) == ["datacomp", "retrieval"]
    assert names({"cifar10": 0.5}) == ["datacomp"]
    assert names({"birdsnap": 0.5}) == ["eva02"]
    assert names({"video/ucf101": 0.5}) == ["video"]
    assert names({"zero_shot/test": 0.5}) == []


def test_fine_tuned_classifiers_of_table_6_come_only_with_their_own_suite() -> None:
    board = suite_board([model("m", all_of("imagenet-variants", 0.5))], "imagenet-variants")
    assert {entry.source for entry in board.entries if entry.role == "published"} == {"EVA-02, Table 6"}
    assert "fine-tuned" in board.suite.note


def test_eva02s_tables_9_and_10_share_their_lines() -> None:
    board = suite_board([model("m", all_of("eva02", 0.5))], "eva02")
    entry = next(entry for entry in board.entries if entry.label == "EVA-02-CLIP-L/14+")
    assert entry.source == "EVA-02, Table 9, EVA-02, Table 10"
    assert entry.facts["samples_b"] == 6
    assert entry.facts["params_m"] == 424
    assert round(entry.averages["average"].value, 3) == 0.735
    alone = next(entry for entry in board.entries if entry.label == "FLIP-H/14")
    assert set(alone.averages) == {"imagenet"}


def test_a_users_own_set_is_listed_beside_the_suites() -> None:
    board = make_board([model("m", {"zero_shot/test": 0.5})])
    assert [(name, record.key) for name, record in board.others] == [("m", "zero_shot/test")]


def test_differences_are_sorted_and_say_whether_intervals_part() -> None:
    one = model("one", {"cifar10": 0.9, "mnist": 0.5, "cars": 0.3}, half=0.02)
    two = model("two", {"cifar10": 0.6, "mnist": 0.51, "food101": 0.3}, half=0.02)
    board = suite_board([one, two], "datacomp")
    pair = choose_pair(board, ("one", "two"))
    assert pair is not None
    found = differences(*pair)
    assert [(d.key, round(d.gap, 2), d.is_clear) for d in found] == [("cifar10", 0.3, True), ("mnist", -0.01, False)]
    with pytest.raises(ConfigError, match="did you mean one"):
        choose_pair(board, ("ones", "two"))
    with pytest.raises(ConfigError, match="averages only"):
        choose_pair(board, ("one", "ViTamin-L 224"))


def test_effective_robustness_is_what_the_printed_line_does_not_foretell() -> None:
    def entry(label: str, role: Any, accuracy: float, shifted: float) -> Entry:
        averages = {"imagenet": Cell(value=accuracy), "shift": Cell(value=shifted)}
        return Entry(label=label, role=role, facts={}, averages=averages)

    def logistic(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    printed = [entry(f"p{x}", "published", logistic(x), logistic(2 * x - 1)) for x in (0.1, 0.2, 0.5, 0.9, 1.3)]
    ours = entry("ours", "ours", logistic(0.4), 0.6)
    suite = SUITES["datacomp"]
    line, found = robust_entries(SuiteBoard(suite=suite, entries=(*printed, ours)))
    assert line is not None
    assert (line.slope, line.intercept) == pytest.approx((2, -1))
    assert [one.label for one in found] == ["ours"]
    assert found[0].expected == pytest.approx(logistic(-0.2))
    assert robust_entries(SuiteBoard(suite=suite, entries=(*printed[:4], ours))) == (None, [])
    assert robust_entries(SuiteBoard(suite=suite, entries=tuple(printed))) == (None, [])
