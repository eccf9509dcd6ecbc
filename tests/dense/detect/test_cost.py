"""The head's operations against those that PyTorch counts."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from eyesmith.dense.detect.cost import head_macs
from eyesmith.dense.detect.detector import Detector, DetectorConfig
from eyesmith.dense.detect.roi import BoxHeadConfig, MaskHeadConfig
from eyesmith.dense.detect.rpn import RpnConfig
from eyesmith.models.encoder import Tap


def test_operations_are_those_that_torch_counts() -> None:
    config = DetectorConfig(
        width=16,
        rpn=RpnConfig(width=8),
        box=BoxHeadConfig(width=8, num_convs=2, fc_dim=24),
        mask=MaskHeadConfig(width=8, num_convs=2, pool=6),
        has_masks=True,
    )
    for taps in (
        {"a": Tap(4, 8), "b": Tap(8, 12), "half": Tap(16, 20), "last": Tap(16, 20)},
        {f"block{place}": Tap(16, 20) for place in range(12)},
    ):
        detector = Detector(config, taps, "half" if "half" in taps else "block6", 10)
        maps = {name: torch.zeros(1, tap.channels, 128 // tap.stride, 128 // tap.stride) for name, tap in taps.items()}
        with FlopCounterMode(display=False) as counter:
            detector.rpn(detector.neck(maps))
            detector.box(torch.zeros(5, 16, 7, 7))
            assert detector.mask is not None
            detector.mask(torch.zeros(3, 16, 6, 6))
        assert head_macs(detector, 128, regions=5, masks=3) == counter.get_total_flops() / 2
