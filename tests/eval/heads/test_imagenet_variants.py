import pytest
import torch

from eyesmith.errors import DataError, ShapeError
from eyesmith.eval.heads import objectnet_answers, real_answers, real_labels, robustness, subset_answers, subset_classes

# EVA-02, Table 6: IN-1K, V2, ReaL, A, R, Sketch, then avg and delta as printed
LARGE = (90.0, 82.4, 91.1, 87.7, 89.9, 70.1)
KEYS = ("imagenet1k", "imagenetv2", "imagenet-real", "imagenet-a", "imagenet-r", "imagenet_sketch")


def test_average_and_delta_of_the_printed_row():
    found = robustness(dict(zip(KEYS, LARGE, strict=True)) | {"objectnet": 1.0})
    assert round(found.average, 1) == 85.2
    assert round(found.delta, 1) == 4.8
    with pytest.raises(DataError, match="missing: imagenet_sketch"):
        robustness(dict(zip(KEYS[:-1], LARGE[:-1], strict=True)))


def test_a_subset_is_judged_among_its_own_classes():
    logits = torch.zeros(3, 1000)
    logits[:, 7] = 9  # not in the subset
    logits[0, 20], logits[1, 30] = 1, 1
    assert subset_answers(logits, torch.tensor([1, 1, 0]), [10, 20, 30]).tolist() == [True, False, True]  # tie: first
    with pytest.raises(ShapeError, match="outside the 3 classes"):
        subset_answers(logits, torch.tensor([1, 1, 3]), [10, 20, 30])
    with pytest.raises(ShapeError, match="distinct"):
        subset_answers(logits, torch.tensor([0, 0, 0]), [10, 10])


def test_real_labels_drop_images_without_any():
    logits = torch.eye(6)[:, :4] + 0.0
    assert real_answers(logits[:4], [(0,), (0, 1), (), (1, 2)]).tolist() == [True, True, False]
    with pytest.raises(DataError, match="not one"):
        real_answers(logits[:2], [(), ()])


def test_objectnet_takes_the_first_class_of_the_mapping_alone():
    logits = torch.zeros(3, 1000)
    logits[0, 5], logits[1, 6], logits[2, 900] = 1, 1, 1
    assert objectnet_answers(logits, torch.tensor([0, 0, 0]), [(5, 6), (7,)]).tolist() == [True, False, False]
    with pytest.raises(DataError, match="no ImageNet class"):
        objectnet_answers(logits, torch.tensor([0, 0, 0]), [(5,), ()])


def test_the_lists_of_the_installed_package():
    for name in ("imagenet-a", "imagenet-r"):
        classes = subset_classes(name)
        assert len(set(classes)) == 200
        assert list(classes) == sorted(classes)
        assert 0 <= classes[0] <= classes[-1] < 1000
    with pytest.raises(DataError, match="expected one of"):
        subset_classes("imagenet-c")
    found = real_labels(["ILSVRC2012_val_00000001.JPEG", "val/ILSVRC2012_val_00050000"])
    assert all(isinstance(label, int) for labels in found for label in labels)
    for key in ("cat.jpg", "ILSVRC2012_val_00050001", "s0000001"):
        with pytest.raises(DataError, match="no name of a validation image"):
            real_labels([key])
