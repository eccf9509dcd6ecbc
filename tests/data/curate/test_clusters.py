import numpy as np
import pytest

from eyesmith.data.curate.clusters import nearest_centroids, train_centroids
from eyesmith.errors import ConfigError, ShapeError


def test_nearest_is_the_largest_product_and_the_lowest_index() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 6)).astype(np.float16)
    centroids = rng.normal(size=(9, 6)).astype(np.float32)
    expected = [int(np.argmax(centroids.astype(float) @ row.astype(float))) for row in features]
    assert nearest_centroids(features, centroids).tolist() == expected
    doubled = np.concatenate([centroids, centroids])
    assert nearest_centroids(features, doubled).tolist() == expected
    with pytest.raises(ShapeError):
        nearest_centroids(features, centroids[:, :5])


def test_centroids_find_separate_clouds() -> None:
    rng = np.random.default_rng(1)
    centres = np.array([[10.0, 0], [0, 10], [-10, 0], [0, -10]])
    rows = np.concatenate([centre + rng.normal(size=(50, 2)) for centre in centres]).astype(np.float32)
    found = train_centroids(rows, 4, seed=0)
    means = np.stack([rows[50 * i : 50 * i + 50].mean(axis=0) for i in range(4)])
    gaps = np.linalg.norm(found[:, None] - means[None], axis=2)
    np.testing.assert_array_equal(train_centroids(rows, 4, seed=0), found)
    spread = np.square(rows[:, None] - found[None]).sum(axis=2).min(axis=1).mean()
    assert spread <= np.square(rows - rows.mean(axis=0)).sum(axis=1).mean()
    if gaps.min(axis=0).max() < 1:  # when no two began in one cloud, they end at its mean
        np.testing.assert_allclose(np.sort(gaps.min(axis=0)), 0, atol=1e-4)
    with pytest.raises(ConfigError, match="1 to 200"):
        train_centroids(rows, 201)
