"""Names and ids of published classifiers' classes, from the installed packages."""

import pytest

from eyesmith.data.evaluation import imagenet, names
from eyesmith.data.evaluation.imagenet import is_wordnet_id, published_classes, wordnet_ids


def test_the_thousand_by_their_order() -> None:
    classes = published_classes(1000)
    assert len(set(classes)) == 1000
    assert (classes[0], classes[281], classes[999]) == ("tench", "tabby cat", "toilet paper")
    ids = wordnet_ids(classes)
    assert (ids[0], ids[281], ids[999]) == ("n01440764", "n02123045", "n15075141")
    assert list(ids) == sorted(ids)
    # the two names that CLIP's list has twice
    assert [name for name in classes if name.startswith("sunglasses")] == [
        "sunglasses (n04355933)",
        "sunglasses (n04356056)",
    ]


def test_the_21841_of_imagenet_21k() -> None:
    classes = published_classes(21_841)
    assert len(classes) == len(set(classes)) == 21_841
    ids = wordnet_ids(classes)
    assert list(ids) == sorted(ids)
    assert {*wordnet_ids(published_classes(1000))} - {*ids} == {"n04399382"}  # teddy, which the release of 2011 has not
    assert classes[ids.index("n01440764")] == "tench, Tinca tinca"
    assert classes[0] == "organism, being"


def test_other_counts_and_missing_packages_give_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert published_classes(3) == ("0", "1", "2")
    assert wordnet_ids(("0", "1", "2")) == ()
    assert wordnet_ids([str(label) for label in range(1000)]) == ()
    nothing = lambda package, file: None  # noqa: E731
    for module in (imagenet, names):
        monkeypatch.setattr(module, "package_file", nothing)
    caches = (imagenet.published_classes, imagenet._ids, names._clip_benchmark, names._open_clip)
    for cached in caches:
        cached.cache_clear()
    try:
        assert published_classes(1000)[:2] == ("0", "1")
        assert published_classes(21_841)[-1] == "21840"
    finally:
        for cached in caches:
            cached.cache_clear()


def test_what_an_id_looks_like() -> None:
    assert is_wordnet_id("n01440764")
    assert not is_wordnet_id("n0144076")
    assert not is_wordnet_id("tench")
