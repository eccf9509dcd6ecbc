"""The table of peaks finds a card by the name torch gives it."""

import pytest

from eyesmith.train.utilisation import peak_flops


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
    ],
)
def test_peak_by_name(name: str, tflops: int) -> None:
    assert peak_flops(name) == tflops * 1e12


@pytest.mark.parametrize("name", ["cpu", "NVIDIA GeForce RTX 4090D", "Tesla T4", ""])
def test_an_unknown_card_has_no_peak(name: str) -> None:
    assert peak_flops(name) is None
