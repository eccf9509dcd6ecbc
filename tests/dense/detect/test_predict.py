"""Fusion of the detector's word with the eye's, masks pasted into pictures, results in others' forms."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.dense.boxes import iou
from eyesmith.dense.detect.detections import Detections, paste
from eyesmith.dense.detect.detector import Detector, DetectorConfig, Regions
from eyesmith.dense.detect.predict import PredictConfig, class_scores, dense_vectors, likely_first, select
from eyesmith.dense.detect.roi import BoxHeadConfig
from eyesmith.dense.detect.rpn import RpnConfig
from eyesmith.dense.frozen import FrozenEncoder
from eyesmith.dense.vocabulary import Vocabulary
from eyesmith.errors import ConfigError, ShapeError
from eyesmith.models.vitamin.model import ViTaminConfig

SEEN = torch.tensor([True, True, False, False, False])


def parts() -> tuple[FrozenEncoder, Detector, Regions, Tensor]:
    """An eye, a head with five classes, 12 regions, and what the eye says of them."""
    torch.manual_seed(0)
    config = ViTaminConfig(image_size=(64, 64), widths=(8, 8, 16), depths=(1, 1, 2), num_heads=2, embed_dim=6)
    eye = FrozenEncoder(config.build())
    small = DetectorConfig(
        width=8,
        num_levels=3,
        has_extra=False,
        rpn=RpnConfig(width=8, num_convs=1),
        box=BoxHeadConfig(width=8, num_convs=0, fc_dim=8),
    )
    head = Detector(small, eye.taps, eye.half_tap, 6)
    vectors = F.normalize(torch.randn(5, 6), dim=-1)
    names = tuple("abcde")
    head.use(Vocabulary(names, names, vectors, torch.arange(5)), torch.randn(6))
    corner = torch.rand(12, 2) * 30
    boxes = torch.cat([corner, corner + 10 + torch.rand(12, 2) * 20], 1)
    regions = Regions(boxes, boxes + 0.5, torch.rand(12), F.normalize(torch.randn(12, 6), dim=-1))
    return eye, head, regions, F.normalize(torch.randn(12, 6), dim=-1)


def test_fusion_as_released_is_the_published_formula() -> None:
    _, head, regions, outside = parts()
    config = PredictConfig(background="class", alpha=0.1, beta=0.8, temperature=75.0)
    found = class_scores(head, regions, outside, SEEN, config)
    vocabulary, ground = head.vocabulary, head.ground()
    assert vocabulary is not None
    rows = torch.cat([vocabulary.vectors, ground[None]])
    own = (regions.vectors @ rows.mT * head.box.scale).softmax(-1)
    eyes = (outside @ rows.mT * 75).softmax(-1)
    for label in range(5):
        share = 0.1 if label < 2 else 0.8
        expected = own[:, label] ** (1 - share) * eyes[:, label] ** share
        torch.testing.assert_close(found[:, label], expected, atol=1e-6, rtol=1e-4)


def test_apart_the_background_multiplies_and_the_detector_alone_is_left_alone() -> None:
    _, head, regions, outside = parts()
    logits = head.logits(regions.vectors)
    nothing = logits.softmax(-1)[:, -1:]
    alone = logits[:, :-1].softmax(-1) * (1 - nothing)
    torch.testing.assert_close(class_scores(head, regions, outside, SEEN, PredictConfig(source="detector")), alone)
    torch.testing.assert_close(alone.sum(1), 1 - nothing[:, 0])
    off = class_scores(head, regions, outside, SEEN, PredictConfig(alpha=0.0, beta=0.0))
    torch.testing.assert_close(off, alone, atol=1e-6, rtol=1e-4)
    whole = class_scores(head, regions, outside, SEEN, PredictConfig(alpha=1.0, beta=1.0, temperature=20.0))
    assert head.vocabulary is not None
    expected = (head.vocabulary.scores(outside) * 20).softmax(-1) * (1 - nothing)
    torch.testing.assert_close(whole, expected, atol=1e-6, rtol=1e-4)


def test_regions_that_were_not_looked_at_keep_the_detectors_word() -> None:
    _, head, regions, outside = parts()
    config = PredictConfig(source="crop")
    alone = class_scores(head, regions, None, SEEN, config)
    found = class_scores(head, regions, outside[:4], SEEN, config, own_temperature=30.0)
    torch.testing.assert_close(found[4:], alone[4:])
    assert not torch.allclose(found[:4], alone[:4])
    weighed = class_scores(head, regions, None, SEEN, replace(config, objectness=1.0))
    torch.testing.assert_close(weighed, alone * regions.objectness[:, None])


@pytest.mark.parametrize("first", [False, True])
def test_the_eyes_word_is_its_map_over_the_box(first: bool) -> None:
    eye, _, _, _ = parts()
    dense = eye.dense(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8))[0]  # [C, 4, 4]
    cells = torch.tensor([[16.0, 0.0, 48.0, 32.0]])  # columns 1 and 2 of the upper rows
    found = dense_vectors(eye, dense, cells, project_first=first)
    part = dense[:, 0:2, 1:3].flatten(1).mT
    expected = F.normalize(eye.project(part), dim=-1).mean(0) if first else eye.project(part.mean(0))
    torch.testing.assert_close(found[0], F.normalize(expected, dim=-1), atol=1e-5, rtol=1e-4)
    assert dense_vectors(eye, dense, torch.zeros(0, 4)).shape == (0, 6)


def test_selection_is_suppression_by_class_and_the_best_of_all() -> None:
    _, _, regions, _ = parts()
    scores = torch.rand(12, 5, generator=torch.Generator().manual_seed(1))
    config = PredictConfig(per_image=9, floor=0.2, nms=0.4)
    places, labels, found = select(regions, scores, config)
    assert len(found) == 9
    assert bool((found[:-1] >= found[1:]).all())
    torch.testing.assert_close(found, scores[places, labels])
    for label in range(5):
        own = regions.boxes[places[labels == label]]
        assert iou(own, own).fill_diagonal_(0).amax() <= 0.4 if len(own) else True


def test_likely_regions_come_first_and_none_is_lost() -> None:
    _, head, regions, _ = parts()
    found = likely_first(head, regions, 12)
    assert len(found.boxes) == 12
    assert sorted(found.objectness.tolist()) == sorted(regions.objectness.tolist())


def test_masks_are_pasted_where_their_boxes_are() -> None:
    masks = torch.zeros(3, 8, 8)
    masks[0] = 1
    masks[1, :, :4] = 1  # the left half
    masks[2] = 1
    boxes = torch.tensor([[2.0, 3.0, 10.0, 7.0], [4.0, 4.0, 20.0, 12.0], [-5.0, -5.0, 3.0, 2.0]])
    found = paste(masks, boxes, (16, 24))
    expected = torch.zeros(3, 16, 24, dtype=torch.bool)
    expected[0, 3:7, 2:10] = True
    expected[1, 4:12, 4:12] = True
    expected[2, :2, :3] = True
    # the outermost half cell of a mask is mixed with what is outside of it
    assert (found ^ expected).sum().item() <= 2
    assert torch.equal(found[1], expected[1])
    assert not bool(paste(masks[:1], torch.tensor([[5.0, 5.0, 5.0, 9.0]]), (16, 24)).any())


def some(masks: bool = True) -> Detections:
    return Detections(
        boxes_px=torch.tensor([[0.0, 0.0, 8.0, 8.0], [2.0, 2.0, 6.0, 9.0]]),
        scores=torch.tensor([0.9, 0.2]),
        labels=torch.tensor([1, 0]),
        names=("cat", "dog"),
        size=(12, 10),
        masks=torch.ones(2, 4, 4) if masks else None,
    )


def test_detections_are_columns() -> None:
    found = some()
    assert len(found) == 2
    assert found.called == ["dog", "cat"]
    assert found[found.scores > 0.5].called == ["dog"]
    assert found[:1].masks_px().shape == (1, 12, 10)
    assert set(found.to_hugging_face()) == {"scores", "labels", "boxes", "masks"}
    scored = found.to_found()
    assert scored.boxes.tolist() == found.boxes_px.tolist()
    assert scored.masks is not None
    assert some(masks=False).to_found().masks is None
    empty = found[torch.zeros(0, dtype=torch.int64)]
    assert len(empty) == len(empty.called) == len(empty.to_found()) == 0
    with pytest.raises(ShapeError, match="no mask head"):
        some(masks=False).masks_px()
    with pytest.raises(ShapeError, match=r"scores: expected \[2\]"):
        replace(found, scores=torch.zeros(3))
    with pytest.raises(ShapeError, match="boxes_px: expected finite"):
        replace(found, boxes_px=torch.full((2, 4), float("nan")))


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="alpha, beta, nms and floor"):
        PredictConfig(alpha=1.5)
    with pytest.raises(ConfigError, match="source"):
        PredictConfig(source="eye")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="temperature"):
        PredictConfig(temperature=0.0)
