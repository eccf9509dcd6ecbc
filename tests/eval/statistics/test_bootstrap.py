import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import f1_score, recall_score

from eyesmith.errors import ConfigError, DataError, ShapeError
from eyesmith.eval.statistics import bootstrap_interval, f1_macro, group_mean, mean, resampled, worst_group
from eyesmith.eval.statistics.bootstrap import bounded, evaluate_metric
from eyesmith.eval.statistics.metrics import wilson_interval

RNG = np.random.default_rng(3)
LABELS = RNG.integers(0, 5, 200)
GUESSES = np.where(RNG.random(200) < 0.6, LABELS, RNG.integers(0, 7, 200))
HITS = (GUESSES == LABELS).astype(float)


def slow_replicates(metric, seed, rounds=4000, over="samples"):
    """Draw samples (or classes) one by one and compute the metric with scikit-learn."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(rounds):
        if over == "samples":
            rows = rng.integers(0, len(LABELS), len(LABELS))
            found.append(metric(LABELS[rows], GUESSES[rows]))
        else:
            parts = [(k == LABELS) for k in rng.integers(0, 5, 5)]
            found.append(np.mean([metric(LABELS[part], GUESSES[part]) for part in parts]))
    return np.quantile(found, [0.025, 0.975])


def accuracy(labels, guesses):
    return np.mean(labels == guesses)


def f1(labels, guesses):
    return f1_score(labels, guesses, average="macro", labels=np.unique(labels), zero_division=0)


def recall(labels, guesses):
    return recall_score(labels, guesses, average="macro", labels=np.unique(labels))


def worst(labels, guesses):
    return min(np.mean(guesses[labels == k] == k) for k in np.unique(labels))


@pytest.mark.parametrize(
    ("metric", "values", "oracle"),
    [
        (mean, HITS, accuracy),
        (group_mean, HITS, recall),
        (worst_group, HITS, worst),
        (f1_macro, GUESSES, f1),
    ],
)
def test_metrics_and_intervals_equal_a_slow_loop(metric, values, oracle):
    found = bootstrap_interval(values, metric=metric, groups=LABELS, replicates=4000)
    assert found.value == pytest.approx(oracle(LABELS, GUESSES), abs=1e-12)
    rounds = 4000 if oracle is accuracy else 120  # scikit-learn takes its time
    np.testing.assert_allclose([found.low, found.high], slow_replicates(oracle, 5, rounds), atol=0.03)


def test_resampling_classes_draws_whole_classes_with_their_multiplicity():
    found = bootstrap_interval(HITS, metric=group_mean, groups=LABELS, over="classes", replicates=4000)
    np.testing.assert_allclose([found.low, found.high], slow_replicates(accuracy, 6, 4000, "classes"), atol=0.01)
    # two classes, one always right: draws are both, right twice, wrong twice
    drawn = resampled(np.r_[np.ones(3), np.zeros(9)], metric=group_mean, groups=np.r_[[0] * 3, [1] * 9], over="classes")
    assert sorted(set(drawn[:, 0])) == [0, 0.5, 1]


def test_accuracy_has_the_binomial_interval_whether_units_are_few_or_many():
    share = HITS.mean()
    low, high = stats.binom.ppf([0.025, 0.975], 200, share) / 200
    for values in (HITS, HITS + RNG.random(200) * 1e-9):  # second: 200 different units
        found = bootstrap_interval(values, replicates=6000)
        np.testing.assert_allclose([found.low, found.high], [low, high], atol=0.011)


def test_equal_seeds_give_equal_intervals_and_groups_of_any_integers_do():
    first = bootstrap_interval(torch.tensor(HITS), groups=torch.tensor(LABELS * 7 - 3), metric=group_mean, seed=1)
    assert first == bootstrap_interval(HITS, groups=LABELS * 7 - 3, metric=group_mean, seed=1)
    assert first != bootstrap_interval(HITS, groups=LABELS, metric=group_mean, seed=2)
    narrow = bootstrap_interval(HITS, level=0.5)
    wide = bootstrap_interval(HITS, level=0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_columns_see_the_same_resamples():
    drawn = resampled(np.stack([HITS, HITS, 1 - HITS], axis=1))
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 1])
    np.testing.assert_allclose(drawn[:, 0] + drawn[:, 2], 1)
    assert evaluate_metric(HITS, mean) == pytest.approx([HITS.mean()])


def test_blocks_do_not_change_what_is_drawn_from_many_units():
    values = RNG.random(60_000)
    found = bootstrap_interval(values, replicates=200)
    half = 1.96 * values.std() / 60_000**0.5
    np.testing.assert_allclose([found.low, found.high], [values.mean() - half, values.mean() + half], atol=half / 3)


def test_wrong_values_are_named():
    with pytest.raises(ShapeError, match="N above 0"):
        bootstrap_interval([])
    with pytest.raises(DataError, match="row 1 is not finite"):
        bootstrap_interval([0.0, float("nan")])
    with pytest.raises(ShapeError, match=r"groups: expected \[2\] integers"):
        bootstrap_interval([0.0, 1.0], groups=[0.5, 1.0])
    with pytest.raises(ConfigError, match="needs groups"):
        bootstrap_interval([0.0, 1.0], over="classes")
    with pytest.raises(ConfigError, match="over"):
        bootstrap_interval([0.0, 1.0], over="images")
    with pytest.raises(ConfigError, match="level"):
        bootstrap_interval([0.0, 1.0], level=95)
    with pytest.raises(ConfigError, match="replicates"):
        bootstrap_interval([0.0, 1.0], replicates=0)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_right_or_all_wrong_is_bounded_by_as_many_answers_as_the_statistic_stands_for(value):
    sizes = np.array([2, 10, 40])
    groups = np.repeat(np.arange(3), sizes)
    values = np.full(52, value)
    # independent: the variance of a mean over groups at p, over p (1 - p)
    alike = 0.25 / np.var((RNG.binomial(sizes, 0.5, (400_000, 3)) / sizes).mean(1))
    for metric, trials in ((mean, 52), (group_mean, alike), (worst_group, 2)):
        found = bootstrap_interval(values, metric=metric, groups=groups)
        assert found.low == found.high == value
        assert bounded(found, metric, 52, groups) == pytest.approx(wilson_interval(value * trials, trials), abs=0.003)
    some = bootstrap_interval(HITS)
    assert bounded(some, mean, len(HITS)) == (some.low, some.high)
