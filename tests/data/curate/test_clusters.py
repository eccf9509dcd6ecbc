import numpy as np
import pytest

from eyesmith.data.curate.clusters import nearest_centroids
from eyesmith.errors import ShapeError


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
