"""F-ViT's parts by the published numbers, and a small detector that learns what it is shown."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.dense.boxes import decode, iou
from eyesmith.dense.detect.detector import LOSSES, Detector, DetectorConfig, Teach
from eyesmith.dense.detect.neck import Neck, plan_levels
from eyesmith.dense.detect.roi import BoxHeadConfig, MaskHead, MaskHeadConfig, level_of, mask_targets, pool_levels
from eyesmith.dense.detect.rpn import Rpn, RpnConfig, level_anchors
from eyesmith.dense.detect.truths import CROWD, Truths, truths_of
from eyesmith.dense.frozen import FrozenEncoder
from eyesmith.dense.roi_align import roi_align
from eyesmith.dense.vocabulary import Vocabulary
from eyesmith.errors import ConfigError, DataError, ShapeError
from eyesmith.models.encoder import Tap
from eyesmith.models.vitamin.model import ViTaminConfig

VITAMIN_L = {"stage1": Tap(4, 160), "stage2": Tap(8, 320), "stage3_half": Tap(16, 1024), "stage3": Tap(16, 1024)}
SMALL = ViTaminConfig(image_size=(64, 64), widths=(8, 16, 24), depths=(1, 1, 2), num_heads=2, embed_dim=12)
HEAD = DetectorConfig(
    width=16,
    num_levels=3,
    has_extra=False,
    rpn=RpnConfig(width=16, num_convs=1, anchor_cells=(4.0,), samples=64, before_nms=50, after_nms=30),
    box=BoxHeadConfig(width=16, num_convs=1, fc_dim=32, finest_px=20.0, samples=32),
    mask=MaskHeadConfig(width=16, num_convs=1, pool=7),
    has_masks=True,
)


def words(count: int = 4, dim: int = 12) -> Vocabulary:
    vectors = F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(9)), dim=-1)
    names = tuple(f"word {place}" for place in range(count))
    return Vocabulary(names, names, vectors, torch.arange(count))


def small(config: DetectorConfig = HEAD, *, seed: int = 0) -> tuple[FrozenEncoder, Detector]:
    torch.manual_seed(seed)
    eye = FrozenEncoder(SMALL.build())
    detector = Detector(config, eye.taps, eye.half_tap, eye.embed_dim)
    detector.use(words(), torch.randn(12, generator=torch.Generator().manual_seed(8)))
    return eye, detector


def scene(num: int = 2, *, with_masks: bool = True) -> tuple[Tensor, Truths]:
    """Grey pictures with one square each, bright or dark by its class."""
    pixels, masks = torch.full((num, 3, 64, 64), 120, dtype=torch.uint8), torch.zeros(num, 1, 64, 64, dtype=torch.bool)
    boxes, labels = [], []
    for row in range(num):
        x, y = 8 + 6 * row, 30 - 5 * row
        pixels[row, :, y : y + 24, x : x + 24] = 250 if row % 2 else 10
        masks[row, 0, y : y + 24, x : x + 24] = True
        boxes.append(torch.tensor([[x, y, x + 24.0, y + 24.0]]))
        labels.append(torch.tensor([row % 2]))
    return pixels, truths_of(boxes, labels, (64, 64), masks=list(masks) if with_masks else None)


def parameters(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


def test_levels_of_vitamin_are_f_vits() -> None:
    found = plan_levels(VITAMIN_L, "stage3_half", 4)
    assert [(one.tap, one.stride) for one in found] == [
        ("stage1", 4),
        ("stage2", 8),
        ("stage3_half", 16),
        ("stage3", 32),
    ]
    assert [one.tap for one in plan_levels(VITAMIN_L, "stage3_half", 3)] == ["stage1", "stage2", "stage3"]


@pytest.mark.parametrize(
    ("depth", "patch", "blocks", "strides"),
    [(12, 16, (3, 5, 7, 11), (4, 8, 16, 32)), (24, 14, (6, 10, 14, 23), (3.5, 7, 14, 28))],
)
def test_levels_of_plain_transformers_are_f_vits(
    depth: int, patch: int, blocks: tuple[int, ...], strides: tuple[float, ...]
) -> None:
    taps = {f"block{place + 1}": Tap(patch, 64) for place in range(depth)}
    found = plan_levels(taps, f"block{depth // 2}", 4)
    assert [one.tap for one in found] == [f"block{place + 1}" for place in blocks]
    assert tuple(one.stride for one in found) == strides


def test_levels_of_a_pyramid_are_its_stages() -> None:
    taps = {f"stage{i}": Tap(2 ** (i + 1), 192 * 2 ** (i - 1)) for i in range(1, 5)}
    found = plan_levels(taps, None, 4)
    assert [(one.tap, one.stride, one.channels) for one in found] == [
        (f"stage{i}", 2 ** (i + 1), 192 * 2 ** (i - 1)) for i in range(1, 5)
    ]


def test_the_neck_has_as_many_weights_as_its_layers() -> None:
    """For ViTamin-L, by hand; batch norms have two numbers a channel, as group norms have."""
    neck = Neck(plan_levels(VITAMIN_L, "stage3_half", 4), 256, "batch", has_extra=True)
    first = 2 * (160 * 160 * 9 + 160) + 2 * 160
    second = 320 * 320 * 9 + 320
    lateral = (160 + 320 + 1024 + 1024) * 256 + 4 * 512
    output = 4 * (256 * 256 * 9 + 512)
    assert parameters(neck) == first + second + lateral + output
    assert neck.strides == (4, 8, 16, 32, 64)
    plain = plan_levels({f"block{place}": Tap(14, 1024) for place in range(24)}, "block12", 4)
    up = 1024 * 1024 * 4 + 1024  # a 2 x 2 deconvolution
    assert parameters(Neck(plain, 256, "batch", has_extra=True)) == (
        2 * up + 2 * 1024 + up + 4 * 1024 * 256 + 4 * 512 + output
    )
    assert Neck(plain, 256, "batch", has_extra=True).strides == (3.5, 7, 14, 28, 56)


def test_the_heads_have_as_many_weights_as_f_vits() -> None:
    """Two convolutions and 15 numbers a cell; four convolutions, two shared layers, one each."""
    rpn = Rpn(RpnConfig(), 256, (4, 8, 16, 32, 64))
    assert parameters(rpn) == 2 * (256 * 256 * 9 + 256) + (256 + 1) * 3 + (256 + 1) * 12
    detector = Detector(DetectorConfig(has_masks=True), VITAMIN_L, "stage3_half", 768)
    convs = 4 * (256 * 256 * 9 + 512)
    shared = (256 * 49 + 1) * 768 + (768 + 1) * 768
    assert parameters(detector.box) == convs + shared + (768 + 1) * 768 + (768 + 1) * 768 + (768 + 1) * 4 + 1
    assert detector.mask is not None
    assert parameters(detector.mask) == convs + 256 * 256 * 4 + 256 + 256 + 1
    assert detector.box.scale.item() == 50.0
    assert detector.taps == ("stage1", "stage2", "stage3_half", "stage3")


def test_anchors_by_hand() -> None:
    found = level_anchors(RpnConfig(), (2, 3), 4.0, torch.device("cpu"))
    assert found.shape == (18, 4)
    torch.testing.assert_close(found[1], torch.tensor([-16.0, -16.0, 16.0, 16.0]))  # 8 cells of 4 pixels, square
    torch.testing.assert_close(found[3 * 4 + 1], torch.tensor([-12.0, -12.0, 20.0, 20.0]))  # second row, second cell
    sides = found[:3, 2:] - found[:3, :2]
    torch.testing.assert_close(sides[:, 1] / sides[:, 0], torch.tensor([0.5, 1.0, 2.0]))
    torch.testing.assert_close(sides.prod(1), torch.full((3,), 1024.0))
    # a level of 896 pixels at stride 4 has 224 x 224 cells
    assert len(level_anchors(RpnConfig(), (224, 224), 4.0, torch.device("cpu"))) == 3 * 224 * 224


def test_boxes_are_read_from_the_level_of_their_size() -> None:
    sides = torch.tensor([10.0, 111.0, 113.0, 223.0, 225.0, 447.0, 449.0, 5000.0])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], 1)
    assert level_of(boxes, 4, 56.0).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    pyramid = [torch.full((1, 1, 16 >> level, 16 >> level), float(level)) for level in range(3)]
    inner = torch.tensor([[10.0, 10.0, 20.0, 20.0], [4.0, 4.0, 50.0, 50.0], [5.0, 5.0, 30.0, 30.0]])
    found = pool_levels(pyramid, (4, 8, 16), inner, torch.zeros(3).long(), 2, 10.0)
    assert found.mean((1, 2, 3)).tolist() == [0.0, 2.0, 1.0]


def test_mask_targets_are_the_masks_seen_through_the_box() -> None:
    mask = torch.zeros(1, 40, 40)
    mask[0, 10:20, 10:30] = 1  # the upper half of its box
    found = mask_targets(mask, torch.tensor([[10.0, 10.0, 30.0, 30.0]]), 4)
    assert found[0].tolist() == [[1.0] * 4] * 2 + [[0.0] * 4] * 2
    assert mask_targets(mask, torch.zeros(0, 4), 4).shape == (0, 4, 4)


def test_a_mask_head_says_what_its_convolutions_say_one_after_the_other() -> None:
    torch.manual_seed(3)
    head = MaskHead(MaskHeadConfig(width=12, num_convs=1), 8)
    pooled = torch.randn(3, 8, 5, 5, requires_grad=True)
    wanted = head.logits(head.finer(head.convs(pooled)).relu())[:, 0]
    found = head(pooled)
    torch.testing.assert_close(found, wanted)
    weight = torch.randn_like(found)
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), [pooled, *head.parameters()]),
        torch.autograd.grad((wanted * weight).sum(), [pooled, *head.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_unseen_classes_are_no_part_of_the_loss() -> None:
    """Whatever their vectors are."""
    eye, detector = small()
    pixels, truths = scene()
    maps = eye.pyramid(pixels, detector.taps)
    seen = torch.tensor([True, True, False, False])
    before = detector(maps, truths, seen=seen, seed=1)
    vectors = words().vectors.clone()
    vectors[2:] = -vectors[2:]
    detector.use(replace(words(), vectors=vectors), torch.randn(12, generator=torch.Generator().manual_seed(8)))
    torch.testing.assert_close(detector(maps, truths, seen=seen, seed=1), before, rtol=0, atol=0)
    everything = torch.ones(4, dtype=torch.bool)
    assert not torch.equal(detector(maps, truths, seen=everything, seed=1)[2], before[2])


def test_a_picture_counts_alike_whoever_its_neighbours_are() -> None:
    """The losses of rows by themselves are those of the batch: what lets processes and parts compute what one would."""
    eye, detector = small()
    pixels, truths = scene(3)
    maps = eye.pyramid(pixels, detector.taps)
    together = detector(maps, truths, seen=torch.ones(4).bool(), seed=3)
    for row in range(3):
        own = {name: value[row : row + 1] for name, value in maps.items()}
        part = Truths(
            boxes=truths.boxes[row : row + 1],
            labels=truths.labels[row : row + 1],
            sizes=truths.sizes[row : row + 1],
            rows=truths.rows[row : row + 1],
            masks=truths.masks[row : row + 1] if truths.masks is not None else None,
        )
        alone = detector(own, part, seen=torch.ones(4).bool(), seed=3)
        torch.testing.assert_close(alone[:, 0], together[:, row], rtol=1e-4, atol=1e-5)


def test_it_learns_and_the_encoder_stays() -> None:
    eye, detector = small()
    weights = {name: value.clone() for name, value in eye.inner.state_dict().items()}
    pixels, truths = scene()
    maps = eye.pyramid(pixels, detector.taps)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=3e-3)
    detector.train()
    losses = []
    for step in range(60):
        found = detector(maps, truths, seen=torch.ones(4).bool(), seed=step)
        optimizer.zero_grad()
        found.sum(0).mean().backward()
        optimizer.step()
        losses.append(found.detach().mean(1))
    assert bool((losses[-1][[0, 2, 4]] < 0.7 * losses[0][[0, 2, 4]]).all()), (losses[0], losses[-1])
    regions, heads = detector.regions(maps, truths.sizes)
    for row, one in enumerate(regions):
        best = iou(one.boxes, truths.boxes_of(row)).amax()
        assert float(best) > 0.6
        named = detector.logits(one.vectors)[int(iou(one.boxes, truths.boxes_of(row))[:, 0].argmax())]
        assert int(named[:4].argmax()) == row % 2
    masks = detector.masks(heads, truths.boxes[:, 0], torch.arange(2))
    assert masks.shape == (2, 14, 14)
    assert all(torch.equal(value, weights[name]) for name, value in eye.inner.state_dict().items())
    assert not eye.inner.training
    assert not any(value.grad is not None for value in eye.inner.parameters())


def test_every_weight_takes_part_whatever_the_picture_holds() -> None:
    """Else several processes would wait for one another for ever."""
    eye, detector = small()
    pixels, _ = scene(1)
    maps = eye.pyramid(pixels, detector.taps)
    masks = torch.zeros(0, 64, 64, dtype=torch.bool)
    empty = truths_of([torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)], (64, 64), masks=[masks])
    whole = torch.tensor([[0.0, 0.0, 64.0, 64.0]])
    crowd = truths_of([whole], [torch.tensor([CROWD])], (64, 64), masks=[torch.ones(1, 64, 64)])
    for truths in (empty, crowd):
        detector.zero_grad()
        found = detector(maps, truths, seen=torch.ones(4).bool(), seed=0)
        assert bool(torch.isfinite(found).all())
        found.sum().backward()
        assert [name for name, value in detector.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize("side", [0.0, 1.0])
def test_boxes_of_a_pixel_or_none_are_finite(side: float) -> None:
    eye, detector = small()
    pixels, _ = scene(1)
    box = torch.tensor([[20.0, 20.0, 20.0 + side, 20.0 + side]])
    masks = torch.zeros(1, 64, 64)
    truths = truths_of([box], [torch.tensor([1])], (64, 64), masks=[masks])
    found = detector(eye.pyramid(pixels, detector.taps), truths, seen=torch.ones(4).bool(), seed=0)
    assert bool(torch.isfinite(found).all())


def test_ten_thousand_boxes_in_a_picture() -> None:
    eye, detector = small(replace(HEAD, has_masks=False))
    corner = torch.rand(10_000, 2, generator=torch.Generator().manual_seed(0)) * 50
    truths = truths_of([torch.cat([corner, corner + 8], 1)], [torch.zeros(10_000, dtype=torch.int64)], (64, 64))
    pixels, _ = scene(1)
    found = detector(eye.pyramid(pixels, detector.taps), truths, seen=torch.ones(4).bool(), seed=0)
    assert bool(torch.isfinite(found).all())


def test_vild_draws_vectors_to_the_encoders() -> None:
    eye, detector = small(replace(HEAD, distill_weight=1.0))
    pixels, truths = scene()
    maps = eye.pyramid(pixels, detector.taps)
    dense = eye.dense(pixels)
    losses = detector(maps, truths, seen=torch.ones(4).bool(), seed=0, teacher=Teach(eye, dense))
    assert losses[LOSSES.index("distill")].min().item() > 0
    teach = Teach(eye, dense)(1, truths.boxes[1])
    pooled = roi_align(dense, truths.boxes[1], torch.tensor([1]), (1, 1), stride=16.0)[:, :, 0, 0]
    torch.testing.assert_close(teach, F.normalize(eye.project(pooled), dim=-1))
    with pytest.raises(ConfigError, match="ViLD"):
        detector(maps, truths, seen=torch.ones(4).bool(), seed=0)


def test_proposals_are_the_best_anchors_moved_and_apart() -> None:
    """Against a loop for one level."""
    rpn = Rpn(RpnConfig(width=4, num_convs=1, before_nms=40, after_nms=10, anchor_cells=(2.0,)), 3, (8.0,))
    torch.nn.init.normal_(rpn.objectness.weight)
    torch.nn.init.normal_(rpn.moves.weight, std=0.2)
    logits, moves, anchors = rpn([torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))])
    found = rpn.propose(logits, moves, anchors, torch.tensor([[40.0, 48.0]]))[0]
    boxes = decode(anchors[0], moves[0][0], size=(40, 48)).detach()
    kept: list[int] = []
    for place in logits[0][0].argsort(descending=True, stable=True).tolist()[:40]:
        size = boxes[place, 2:] - boxes[place, :2]
        if bool((size > 0).all()) and all(float(iou(boxes[[place]], boxes[[one]])) <= 0.7 for one in kept):
            kept.append(place)
    torch.testing.assert_close(found.boxes, boxes[kept[:10]])
    torch.testing.assert_close(found.scores, logits[0][0, kept[:10]].sigmoid().detach())


def test_wrong_parts_are_named() -> None:
    eye, detector = small()
    pixels, truths = scene(1, with_masks=False)
    maps = eye.pyramid(pixels, detector.taps)
    with pytest.raises(DataError, match="has_masks=false"):
        detector(maps, truths, seen=torch.ones(4).bool(), seed=0)
    with pytest.raises(ConfigError, match="taps: expected stage1"):
        detector({}, truths, seen=torch.ones(4).bool(), seed=0)
    with pytest.raises(ShapeError, match="expected vectors of 12"):
        detector.use(words(dim=5), torch.zeros(5))
    with pytest.raises(ConfigError, match="background"):
        detector.use(words())
    with pytest.raises(ConfigError, match="use\\("):
        Detector(HEAD, eye.taps, eye.half_tap, 12).logits(torch.zeros(1, 12))
    with pytest.raises(ConfigError, match="num_levels"):
        DetectorConfig(num_levels=7)
    with pytest.raises(ShapeError, match="row 0"):
        truths_of([torch.tensor([[0.0, 0.0, float("nan"), 1.0]])], [torch.tensor([0])], (64, 64))
