import csv
import io
import json
import re
from dataclasses import replace

import pytest

from eyesmith.lab.answers import Metric, answer_all, answer_data, main_metric, results_csv, rows_csv, to_json
from eyesmith.lab.answers.answer import grid_points
from eyesmith.lab.page.tables import tables_of
from eyesmith.lab.result import summary


@pytest.fixture(scope="module")
def answers(results):
    return answer_all(results)


@pytest.fixture(scope="module")
def exact(synthetic, tmp_path_factory):
    """Without noise of any kind in the values."""
    return answer_all(synthetic.lab_results(tmp_path_factory.mktemp("exact"), noise=0.0))


def test_the_main_metric_is_the_first_split_of_zero_shot(results) -> None:
    assert main_metric(results) == Metric(split="unseen_drawing")


def test_known_exponents_are_recovered(answers, exact, synthetic) -> None:
    for fit in exact.data.fits:
        assert fit.exponent == pytest.approx(synthetic.LAWS[fit.encoder][1], abs=1e-9)
    inside = [fit.exponent_low <= synthetic.LAWS[fit.encoder][1] <= fit.exponent_high for fit in answers.data.fits]
    assert len(inside) == 8
    assert sum(inside) >= 7
    assert "8 of 8 curves" in answers.data.sentence


def test_a_floor_is_fitted_with_four_budgets(synthetic, tmp_path) -> None:
    made = synthetic.lab_results(tmp_path, noise=0.0, budgets=(1e4, 4e4, 1e5, 4e5))
    fit = answer_data(grid_points(made, Metric(split="unseen_drawing"), "grid")).fits[0]
    assert fit.budgets == 4
    assert fit.floor is not None
    assert fit.floor < 0.1  # the law has none


def test_the_largest_budget_is_foretold_by_the_others(exact, answers) -> None:
    for fit in exact.data.fits:
        assert fit.held_out == max(row.samples for row in exact.data.rows)
        assert fit.foretold == pytest.approx(fit.found, rel=1e-6), "the made errors follow their law"
    inside = [fit.foretold_low <= fit.found <= fit.foretold_high for fit in answers.data.fits]
    assert sum(inside) >= 4
    assert "foretells the error at the largest" in answers.data.sentence


def test_size_gives_what_it_was_made_to_give(exact, synthetic) -> None:
    for row in exact.size.rows:
        truth = synthetic.accuracy(row.encoder, "nano", row.samples) - synthetic.accuracy(
            row.encoder, "pico", row.samples
        )
        assert row.gain == pytest.approx(truth)
        assert row.low < truth < row.high
    assert exact.size.sentence.startswith("4.0 times the parameters (nano for pico) at 200 k images")


def test_strides_of_equal_size_and_budget_are_compared(exact) -> None:
    assert {(row.stride, row.size, row.level) for row in exact.resolution.rows} == {
        (8, "nano", 2),
        (16, "nano", 2),
        (32, "nano", 2),
    }
    assert "ViT +6.0 points" in exact.resolution.sentence
    assert "with stride 16 in place of 32" in exact.resolution.sentence


def test_hybrids_stand_against_both_kinds(answers, exact, synthetic) -> None:
    pairs = {(one.hybrid, one.pure): one for one in exact.hybrid.contrasts}
    assert set(pairs) == {(a, b) for a in ("ViTamin", "CoAtNet") for b in ("ViT/16", "ConvNeXt")}
    one = pairs["ViTamin", "ConvNeXt"]
    settings = [(size, budget) for size in ("pico", "nano") for budget in synthetic.BUDGETS]
    truth = sum(synthetic.accuracy("ViTamin", *at) - synthetic.accuracy("ConvNeXt", *at) for at in settings) / 6
    assert one.difference == pytest.approx(truth)
    assert one.settings == 6
    noisy = {(one.hybrid, one.pure): one for one in answers.hybrid.contrasts}["ViTamin", "ConvNeXt"]
    assert noisy.low < truth < noisy.high
    rows = {row.name: row for row in exact.hybrid.rows}
    assert "latency_ms" in rows["ViT/16 pico"].front  # the fastest
    assert rows["ViT/16 nano"].front == ()
    assert (rows["ViTamin nano"].latency_ms, rows["ViTamin nano"].batch_ms) == (15.0, 267.0)


def test_changes_are_paired_by_seed(answers, exact) -> None:
    by_name = {one.name: one for one in exact.ablations}
    effects = {effect.variant: effect for one in exact.ablations for effect in one.effects}
    assert effects["ViTamin:bn-se"].difference == pytest.approx(-0.05)
    assert effects["ViTamin:mlp"].difference == pytest.approx(0.0, abs=1e-12)
    assert effects["lab-joint"].difference == pytest.approx(-0.07)
    assert effects["clean"].difference == pytest.approx(0.04)
    assert "not told apart" in by_name["block"].sentence
    assert by_name["quality"].capacity is not None
    assert "nano in place of pico on raw" in by_name["quality"].sentence
    for one in answers.ablations:
        for effect in one.effects:
            truth = {"ViTamin:bn-se": -0.05, "ViTamin:mlp": 0.0, "lab-joint": -0.07, "clean": 0.04}[effect.variant]
            assert effect.low < truth < effect.high


def test_correlation_with_the_paper(exact, synthetic) -> None:
    stats = pytest.importorskip("scipy.stats")
    from eyesmith.lab.answers import published_model

    rows = exact.correlation.rows
    theirs = [published_model(synthetic.PAPER[row.encoder, row.size]).imagenet[row.level] for row in rows]
    whole = exact.correlation.find("all")
    assert whole.pairs == 24
    assert whole.spearman == pytest.approx(stats.spearmanr([row.value for row in rows], theirs).statistic)
    assert whole.kendall == pytest.approx(stats.kendalltau([row.value for row in rows], theirs).statistic)
    blocks = [row for row in exact.correlation.correlations if row.over == "block" and row.score == "imagenet"]
    within = exact.correlation.find("within")
    assert within.spearman == pytest.approx(sum(row.spearman for row in blocks) / 6)
    assert within.is_exact
    assert within.spearman_p >= 1 / 24
    assert "all 24 settings" in exact.correlation.sentence


def test_equal_encoders_have_no_order_and_no_nan_is_told(synthetic, tmp_path) -> None:
    made = synthetic.lab_results(tmp_path)

    def with_value(levels: tuple[int, ...]):
        cells = [
            replace(cell, rows=tuple(replace(row, value=0.25, low=0.2, high=0.3) for row in cell.rows))
            if cell.level in levels
            else cell
            for cell in made.cells
        ]
        return answer_all(replace(made, cells=tuple(cells)))

    part, none = with_value((0,)), with_value((0, 1, 2))
    assert "it cannot be taken, as in one or more of them all encoders are equally good" in part.correlation.sentence
    assert "so there is no order to correlate" in none.correlation.sentence
    for found in (part, none):
        said = [found.data.sentence, found.correlation.sentence]
        said += map(str, [*tables_of(found.correlation), *tables_of(found.data)])
        assert not [text for text in said if re.search(r"\bnan\b|-0\.00\b", text)]


def test_what_is_missing_is_told(synthetic, tmp_path) -> None:
    made = synthetic.lab_results(tmp_path)
    cells = [cell for cell in made.cells if not (cell.encoder == "CoAtNet" and cell.level == 1 and cell.size == "pico")]
    found = answer_all(replace(made, cells=tuple(cells), measured=()))
    assert "Not there, and not counted: CoAtNet pico at budget 2." in found.data.notes
    assert any("not measured" in note for note in found.hybrid.notes)
    one = answer_all(
        replace(made, cells=tuple(cell for cell in cells if cell.encoder == "ViTamin" and cell.level == 0))
    )
    assert "one amount of training samples only" in one.data.sentence
    assert "no hybrid and encoder of one kind" in one.hybrid.sentence
    assert "nothing can be correlated" in one.correlation.sentence
    assert answer_all(replace(made, cells=())) is None


def test_numbers_as_files(answers, results) -> None:
    content = json.loads(json.dumps(to_json(answers), allow_nan=False))
    assert content["metric"] == {"split": "unseen_drawing", "metric": "acc1", "task": "zero_shot"}
    assert set(content["answers"]) >= {"hybrid", "data", "size", "resolution", "block", "ltt", "quality", "correlation"}
    assert content["correlation_by_metric"][0]["split"] == "unseen_concept"
    lines = list(csv.DictReader(io.StringIO(results_csv(results))))
    assert len(lines) == 2 * len(results.cells)
    assert float(lines[0]["value"]) == pytest.approx(results.cells[0].rows[0].value, rel=1e-5)
    assert len(list(csv.DictReader(io.StringIO(rows_csv(answers.data.rows))))) == 24


def test_data_sets_of_one_name_are_told_apart(results) -> None:
    places = {"data/raw": "one/pairs", "data/clean": "two/pairs"}
    cells = tuple(replace(cell, data=places.get(cell.data, cell.data)) for cell in results.cells)
    groups = tuple(
        replace(group, data=tuple(places.values())) if group.question == "quality" else group
        for group in results.plan.groups
    )
    renamed = replace(results, cells=cells, plan=replace(results.plan, groups=groups))
    found = answer_all(renamed)
    assert found is not None
    quality = next(one for one in found.ablations if one.name == "quality")
    assert quality.sentence.startswith("Against one/pairs, everything else equal: two/pairs ")
    mine = [cell for cell in cells if "quality" in cell.groups]
    columns, rows = summary(mine)
    assert {row[columns.index("data")] for row in rows} == {"one/pairs", "two/pairs"}
    assert sum(int(row[columns.index("seeds")]) for row in rows) == len(mine)
    assert len(rows) == len({(cell.encoder, cell.size, cell.recipe, cell.data, cell.samples) for cell in mine})
