"""OV-COCO and OV-LVIS out of the plain files, by the counts that are published."""

import numpy as np
import pytest

from eyesmith.data.annotations import Annotations, Category, ov_coco, ov_lvis
from eyesmith.data.annotations.splits import OV_COCO_BASE, OV_COCO_NOVEL, only_categories
from eyesmith.errors import DataError


def with_names(made: Annotations, names: list[str], **fields: object) -> Annotations:
    from dataclasses import replace

    return replace(made, categories=tuple(Category(id=i + 1, name=name, **fields) for i, name in enumerate(names)))  # pyright: ignore


def test_counts_of_ov_coco() -> None:
    assert (len(OV_COCO_BASE), len(OV_COCO_NOVEL)) == (48, 17)
    assert not set(OV_COCO_BASE) & set(OV_COCO_NOVEL)


def test_ov_coco(made: Annotations) -> None:
    names = ["cat", "person", "traffic light", *OV_COCO_NOVEL[:2], "bus", *OV_COCO_NOVEL[3:], *OV_COCO_BASE[1:]]
    names = list(dict.fromkeys([*names, "cat"]))
    full = with_names(made, names)  # the made objects are cats (novel), persons (base) and traffic lights (dropped)
    train, val = ov_coco(full, train=True), ov_coco(full, train=False)
    assert len(train.categories) == len(val.categories) == 65
    assert "traffic light" not in train.names
    assert int(train.novel.sum()) == 17
    assert {train.names[label] for one in train for label in one.labels.tolist()} == {"person"}
    assert len(val) == len(full)
    with_person = [index for index, one in enumerate(full) if 1 in one.labels]
    assert [one.id for one in train.pictures] == [full.pictures[index].id for index in with_person]
    for before, after in zip(full, val, strict=True):
        kept = before.only(before.labels < 2)
        np.testing.assert_array_equal(kept.ids, after.ids)
        assert [full.names[label] for label in kept.labels] == [val.names[label] for label in after.labels]
    with pytest.raises(DataError, match="OV-COCO needs COCO's classes; there is no "):
        ov_coco(made, train=True)


def test_ov_lvis(made: Annotations) -> None:
    categories = tuple(
        Category(id=one.id, name=one.name, frequency=letter) for one, letter in zip(made.categories, "frc", strict=True)
    )
    from dataclasses import replace

    full = replace(made, categories=categories)
    train, val = ov_lvis(full, train=True), ov_lvis(full, train=False)
    assert train.novel.tolist() == val.novel.tolist() == [False, True, False]
    assert len(train) == len(full)
    assert all(1 not in one.labels for one in train)
    assert sum(len(one) for one in val) == sum(len(one) for one in full)
    assert sum(len(one) for one in train) == sum(int((one.labels != 1).sum()) for one in full)
    with pytest.raises(DataError, match="needs LVIS's categories with their frequency"):
        ov_lvis(made, train=True)


def test_categories_that_are_kept_are_listed(made: Annotations) -> None:
    with pytest.raises(DataError, match="not listed"):
        only_categories(made, np.array([True, True, False]), listed=np.array([True, False, True]))
