"""What a detector's head costs, from its layers alone."""

import math

from torch import nn

from eyesmith.dense.detect.detector import Detector
from eyesmith.dense.detect.roi import BoxHead


def head_macs(detector: Detector, side: int, *, regions: int, masks: int = 0) -> float:
    """Multiply-adds of one picture, forward: neck, proposals, and regions of the heads.

    side: of the square, pixels; regions: that the box head sees; masks: that the mask head sees. Pooling, norms and
    suppression are left out.
    """
    neck, strides = detector.neck, detector.neck.strides
    total = 0.0
    for level, layer, lateral, output in zip(neck.levels, neck.after_taps, neck.lateral, neck.output, strict=True):
        own = math.ceil(side / level.tap_stride) ** 2
        for module in layer.modules():
            if isinstance(module, nn.ConvTranspose2d):
                total += module.weight.numel() * own  # each cell is spread once
                own *= math.prod(module.stride)
            elif isinstance(module, nn.Conv2d):
                total += module.weight.numel() * own
        cells = math.ceil(side / level.stride) ** 2
        total += cells * (_weights(lateral) + _weights(output))
    total += sum(math.ceil(side / stride) ** 2 for stride in strides) * _weights(detector.rpn)
    box = detector.box
    flat = _weights(box.shared) + _weights(box.embedding) + _weights(box.placing)
    total += regions * (BoxHead.POOL**2 * _weights(box.convs) + flat)
    if detector.mask is not None and masks:
        mask, cells = detector.mask, detector.config.mask.pool**2
        total += masks * cells * (_weights(mask.convs) + mask.finer.weight.numel() + 4 * mask.logits.weight.numel())
    return total


def _weights(module: nn.Module) -> int:
    """Of matrices and kernels: what is multiplied once for each place."""
    return sum(value.numel() for value in module.parameters() if value.ndim >= 2)
