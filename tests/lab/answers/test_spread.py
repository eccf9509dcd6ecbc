import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta

from eyesmith.lab.answers.spread import Metric, Spread, mean_spread, metrics_of, points_of, pooled_residuals

METRIC = Metric(split="unseen_drawing")


def test_intervals_hold_the_truth_as_often_as_they_say(results, synthetic) -> None:
    points = list(points_of(results.cells, METRIC).values())
    held = 0
    for point in points:
        encoder, size, _, recipe, data = point.setting
        truth = synthetic.accuracy(encoder, size, point.samples)
        truth += synthetic.JOINT * (recipe == "lab-joint") + synthetic.CLEAN * data.endswith("clean")
        held += point.low <= truth <= point.high
    assert held / len(points) > 0.9
    widths = [point.high - point.low for point in points]
    assert 0.03 < np.mean(widths) < 0.1  # 800 queries alone give 0.07 at one half


def test_residuals_are_pooled_in_units_of_their_deviation() -> None:
    pool = pooled_residuals([([0.4, 0.6], 0.5), ([0.3], 0.3)], [100, 100])
    np.testing.assert_allclose(np.sort(pool), np.array([-0.1, 0.1]) * np.sqrt(2) / 0.5)


def test_one_seed_borrows_and_none_has_the_test_set_alone(synthetic, tmp_path) -> None:
    made = synthetic.lab_results(tmp_path)
    grid = [cell for cell in made.cells if "grid" in cell.groups and cell.recipe == "lab-ltt"]
    alone = [cell for cell in grid if cell.seed == 0]
    without = next(iter(points_of(alone, METRIC).values()))
    assert not without.by_training.any()
    assert without.by_test.any()
    lonely = [cell for cell in grid if not (cell.id == grid[0].id and cell.seed == 1)][:1]
    borrowed = points_of([*lonely, *(cell for cell in grid if cell.encoder != lonely[0].encoder)], METRIC)
    point = next(iter(borrowed.values()))
    assert len(point.by_seed) == 1
    assert point.by_training.std() > 0


def test_answers_do_not_depend_on_the_order_of_cells(results) -> None:
    one, two = points_of(results.cells, METRIC), points_of(results.cells[::-1], METRIC)
    for setting, point in one.items():
        assert (two[setting].value, two[setting].low) == pytest.approx((point.value, point.low), abs=0.005)


def test_queries_in_common_make_differences_sharper(results, tmp_path) -> None:
    generator = np.random.default_rng(0)
    pair = [cell for cell in results.cells if cell.seed == 0][:2]
    hits = generator.random(800) < 0.4
    cells = []
    for place, one in enumerate(pair):
        mine = hits.copy()
        mine[place * 8 : place * 8 + 8] ^= True  # the two differ in sixteen queries
        folder = tmp_path / str(place)
        folder.mkdir()
        (folder / "ranks.json").write_text(json.dumps({"unseen_drawing": np.where(mine, 0, 5).tolist()}))
        rows = tuple(
            replace(row, value=float(mine.mean())) if row.split == "unseen_drawing" else row for row in one.rows
        )
        cells.append(replace(one, rows=rows, folder=folder))
    first, second = points_of(cells, METRIC).values()
    difference = second.minus(first)
    assert first.is_joint
    assert difference.by_test.std() == pytest.approx(np.sqrt(16 / 800**2), rel=0.15)  # of the sixteen alone
    assert first.by_test.std() == pytest.approx(np.sqrt(0.24 / 800), rel=0.1)
    (cells[0].folder / "ranks.json").write_text("{")
    assert not next(iter(points_of(cells, METRIC).values())).is_joint


def test_a_mean_over_settings_keeps_the_test_sets_part() -> None:
    generator = np.random.default_rng(1)
    parts = [
        Spread(value=0.5, by_training=generator.normal(0, 0.02, 4000), by_test=generator.normal(0, 0.03, 4000))
        for _ in range(4)
    ]
    mean = mean_spread(parts)
    assert mean.by_training.std() == pytest.approx(0.01, rel=0.1)
    assert mean.by_test.std() == pytest.approx(0.03, rel=0.1)
    joint = mean_spread([replace(part, is_joint=True) for part in parts])
    assert joint.by_test.std() == pytest.approx(0.015, rel=0.1)


def test_metrics_are_found_as_they_stand(results) -> None:
    assert metrics_of(results.cells) == [METRIC, Metric(split="unseen_concept")]


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("with_ranks", [False, True])
def test_all_wrong_or_all_right_is_no_certainty(results, tmp_path, value, with_ranks) -> None:
    cells = []
    for place, one in enumerate([cell for cell in results.cells if cell.seed == 0][:2]):
        rows = tuple(replace(row, value=value) for row in one.rows)
        folder = tmp_path / str(place)
        folder.mkdir()
        if with_ranks:
            (folder / "ranks.json").write_text(json.dumps({"unseen_drawing": [0 if value else 5] * 800}))
        cells.append(replace(one, rows=rows, folder=folder))
    first, second = points_of(cells, METRIC).values()
    bound = float(beta.ppf(0.975, 1, 800))  # Clopper and Pearson's for 0 of 800
    wide = bound if value == 0 else -bound
    assert sorted([first.low, first.high]) == pytest.approx(sorted([value, value + wide]), abs=0.0005)
    apart = second.minus(first)
    assert apart.value == 0
    assert -0.006 < apart.low < -0.003
    assert 0.003 < apart.high < 0.006
