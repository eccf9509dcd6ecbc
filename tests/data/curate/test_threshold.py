import numpy as np
import pytest

from eyesmith.data.curate.threshold import fraction_threshold
from eyesmith.errors import ConfigError


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.3, 0.5, 0.999])
def test_equals_the_place_in_falling_order(fraction: float, dtype: type) -> None:
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(0.2, 0.1, 5000), 3).astype(dtype)  # many equal ones, negative ones too
    expected = sorted(scores.tolist(), reverse=True)[int(5000 * fraction)]
    found = fraction_threshold(lambda: np.array_split(scores, 7), fraction)
    assert found == expected
    assert (scores >= dtype(found)).sum() >= int(5000 * fraction) + 1


def test_missing_scores_are_below_all_others() -> None:
    scores = np.array([0.5, np.nan, -2.0, np.nan])
    assert fraction_threshold(lambda: [scores], 0.3) == -2.0
    assert fraction_threshold(lambda: [scores], 0.5) == -np.inf


def test_all_of_a_pool_is_no_fraction() -> None:
    with pytest.raises(ConfigError, match="less than 1"):
        fraction_threshold(lambda: [np.ones(3)], 1.0)
