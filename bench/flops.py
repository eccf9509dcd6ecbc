"""What a graphics card can multiply in a second, so that a rate becomes a share of it."""

# dense bfloat16 FLOP/s (a multiply-add counts two) by a part of the device's name; of several the longest holds.
# From NVIDIA's data sheets, without sparsity; cards for desks with fp32 accumulation, which training and torch use.
PEAK_BF16 = {
    "A100": 312e12,
    "H100": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H200": 989e12,
    "H200 NVL": 835e12,
    "L4": 121e12,
    "L40": 181e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
    "RTX 5090": 209e12,
}


def peak_flops(device_name: str) -> float | None:
    """Dense bfloat16 FLOP/s of a device by the name torch gives it ("NVIDIA H200"); None for one not in the table."""
    words = f" {device_name.replace('-', ' ')} "
    known = [name for name in PEAK_BF16 if f" {name} " in words]
    return PEAK_BF16[max(known, key=len)] if known else None
